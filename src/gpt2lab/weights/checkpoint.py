"""The common form of every checkpoint format, and the checks that all readers share.

A :class:`Checkpoint` is a shape and a mapping of canonical tensor names to float32 arrays, each of which is read on
access. Sizes, offsets, shapes and counts that a file claims are checked here (:class:`MappedFile`,
:func:`check_tensors`) before anything is allocated for them, so a malformed file costs one :class:`CheckpointError` and
nothing else. This module knows no format: each has a module of its own.
"""

from __future__ import annotations

import json
import math
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gpt2lab.config import ModelConfig, takes_gpt2_vocabulary
from gpt2lab.errors import CheckpointError, ConfigError, TokenizerError
from gpt2lab.system.files import OpenFile
from gpt2lab.tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpt2lab.weights.integers import Integers

Tensor: TypeAlias = "NDArray[np.float32]"
READERS = 3
"""The version of the readers. Raise it when one reads a file differently, so that older packed files are not reused."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_AT_ONCE = 1 << 30  # bytes; systems read at most 2 GiB
_CHECKED_AT_ONCE = 1 << 24  # bytes
MAX_TEXT_FILE = 256 << 20  # bytes; larger JSON and text files are refused


class TokenizerFiles(NamedTuple):
    """A vocabulary as checkpoints store it: token → id as in ``encoder.json``, merge lines as in ``vocab.bpe``."""

    encoder: dict[str, int]
    merges: list[str]


class OtherTokenizer(NamedTuple):
    """A tokenizer that is not byte-level BPE like GPT-2's, or one whose files do not suffice."""

    why: str
    """The file, the key and the value that make it another tokenizer."""
    json: str | None = None
    """The ``tokenizer.json`` from which the package ``tokenizers`` can build it; None: nothing can."""
    advice: str = "save the folder's tokenizer again with transformers, which writes tokenizer.json"
    """The way to a checkpoint from which it can be built."""


class StoredTensor(NamedTuple):
    """One tensor of a file: its canonical shape, and a function that reads it as float32."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    integers: Callable[[], Integers] | None = None
    """Of a matrix that the file holds in ``int8`` or ``int4``: a function that reads it as it is stored."""


class LazyTensors(Mapping[str, Tensor]):
    """Canonical name → float32 array, read on each access, and checked where the format has checksums.

    Nothing is cached: an array lives as long as the caller holds it, and may be read-only. Raises
    :class:`CheckpointError` for a tensor with a value that is NaN or infinite.
    """

    def __init__(self, path: Path, stored: Mapping[str, StoredTensor]) -> None:
        self._path = path
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._stored[name].read()
        if not _is_finite(tensor):
            raise CheckpointError(
                f"{self._path}: tensor {name} has values that are NaN or infinite: the file is damaged, "
                "or its training diverged"
            )
        return tensor

    def integers(self, name: str, precision: str) -> Integers | None:
        """Return a matrix as the file stores it; None unless that is in ``precision``."""
        read = self._stored[name].integers
        integers = read() if read else None
        return integers if integers and integers.precision == precision else None

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    ``tensors`` maps each name of :func:`tensor_shapes` to a C-contiguous float32 array of that shape.
    ``tokenizer_files`` is None if the checkpoint has GPT-2's own vocabulary or none at all, or ``other_tokenizer``.
    ``special`` is what the files say of special tokens, whose ids are also in ``tokenizer_files``.
    ``format`` is ``openai``, ``huggingface``, ``gguf``, ``nanogpt`` or ``llm.c``. ``precision`` is that of most stored
    weights (``float32``, ``float16``, ``bfloat16``, ``float64``, ``int8``, ``q8_0``, ``q4_0``, or others of GGUF's
    types). ``files`` are the files that the tensors are read from, including indexes. ``notes`` are lines for the user,
    such as what had to be assumed.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer_files: TokenizerFiles | None
    format: str
    precision: str
    path: Path
    files: tuple[Path, ...] = ()
    special: SpecialTokens = field(default_factory=SpecialTokens)
    other_tokenizer: OtherTokenizer | None = None
    tokenizer_sources: tuple[Path, ...] = ()
    """A Hugging Face folder's files on its tokenizer and on generation, which another such folder copies."""
    notes: tuple[str, ...] = ()
    activation_assumed: str | None = None
    """None if the files or their format say what the activation is; otherwise a note on why this one was assumed."""
    opened: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False, default=())
    """Size, times of change and inode of each of ``files`` when it was opened, to detect later changes."""

    def __post_init__(self) -> None:
        statuses = [path.stat() for path in self.files if path.exists()]
        opened = tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in statuses)
        object.__setattr__(self, "opened", opened)


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer | None:
    """Return the checkpoint's own tokenizer, or GPT-2's if it has none; None if that cannot be the model's.

    A model may have a few more ids than its tokenizer: its embedding was rounded up, or tokens were added that no
    text encodes to. It may also have fewer, if tokens were added without a row for each. A much larger vocabulary must
    belong to another tokenizer, so GPT-2's is not used for it. For a tokenizer that cannot run, a line says why.
    """
    files, special, n_vocab = checkpoint.tokenizer_files, checkpoint.special, checkpoint.config.n_vocab
    if checkpoint.other_tokenizer is not None:
        return _other_tokenizer(checkpoint, checkpoint.other_tokenizer)
    if files:
        return Tokenizer.from_files(files.encoder, files.merges, special, n_vocab)
    return Tokenizer.gpt2(special) if takes_gpt2_vocabulary(n_vocab) else None


def _other_tokenizer(checkpoint: Checkpoint, other: OtherTokenizer) -> Tokenizer | None:
    if other.json is not None:
        with suppress(ImportError):
            from gpt2lab.package_tokenizer import PackageTokenizer  # needs the package tokenizers

            try:
                return PackageTokenizer(other.json, checkpoint.special, checkpoint.config.n_vocab)
            except TokenizerError as error:
                raise CheckpointError(f"{other.why}: {error}") from None
    import logging

    logging.getLogger("gpt2lab").warning("gpt2lab: %s: prompts and texts are token ids", without_text(other))
    return None


def without_text(other: OtherTokenizer) -> str:
    """Return why a tokenizer does not run, and what to do."""
    if other.json is None:
        return f"{other.why}; {other.advice}"
    return f"{other.why}, which needs pip install 'gpt2lab[tokenizers]'"


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return canonical name → shape of every tensor of a GPT-2, in the order of the forward pass.

    The names are Hugging Face's without ``transformer.``; matrices are ``[in, out]`` as in the original.
    """
    n = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config.n_vocab, n), "wpe.weight": (config.n_ctx, n)}
    for layer in range(config.n_layer):
        for name, shape in (
            ("ln_1", (n,)),
            ("attn.c_attn", (n, 3 * n)),
            ("attn.c_proj", (n, n)),
            ("ln_2", (n,)),
            ("mlp.c_fc", (n, config.mlp_width)),
            ("mlp.c_proj", (config.mlp_width, n)),
        ):
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[-1:]
    head = {} if config.tie_word_embeddings else {"lm_head.weight": (config.n_vocab, n)}
    return shapes | {"ln_f.weight": (n,), "ln_f.bias": (n,)} | head


def check_tensors(path: Path, config: ModelConfig, stored: Mapping[str, StoredTensor]) -> LazyTensors:
    """Return the tensors that ``config`` requires, in canonical order; others are left out.

    Raises :class:`CheckpointError` if one is missing or has another shape.
    """
    if config.n_layer > len(stored):  # first, because the names of a claimed billion layers would fill memory
        raise CheckpointError(f"{path}: {len(stored)} tensors are too few for a GPT-2 of {config.n_layer} layers")
    chosen = {}
    for name, shape in tensor_shapes(config).items():
        if name not in stored:
            raise CheckpointError(f"{path}: tensor {name} is missing")
        if stored[name].shape != shape:
            raise CheckpointError(f"{path}: tensor {name} has shape {list(stored[name].shape)}, not {list(shape)}")
        chosen[name] = stored[name]
    return LazyTensors(path, chosen)


def _is_finite(tensor: Tensor) -> bool:
    """Return whether no value is NaN or infinite. The sum shows it without a second array, unless it overflows."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(tensor.sum()) or np.isfinite(tensor).all())


class MappedFile:
    """A file that is open for reading; access beyond its end raises :class:`CheckpointError`.

    Headers are read from a memory map, which lasts milliseconds. Tensors are copied from the file: if it is truncated
    meanwhile, the map would end the process (SIGBUS), but the copy is an error like any other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = OpenFile(path)
            self._map: mmap.mmap | bytes = self._file.map()
        except ValueError:  # an empty file cannot be mapped
            self._map = b""
        except OSError as error:
            raise unreadable(path, error) from None
        self.data = memoryview(self._map)
        check_not_pointer(path, self.data)

    def __len__(self) -> int:
        return len(self.data)

    def part(self, start: int, size: int) -> memoryview:
        """Return ``size`` bytes from ``start``, without copying: a part of a header."""
        if start < 0 or size < 0 or start + size > len(self.data):
            raise CheckpointError(
                f"{self.path}: cut short or corrupt (bytes {start} to {start + size} are needed of {len(self.data)})"
            )
        return self.data[start : start + size]

    def copy(self, start: int, size: int) -> bytes:
        """Return a copy of ``size`` bytes from ``start``."""
        self.part(start, size)
        parts = []
        try:
            while size:
                parts.append(self._file.read_at(start, min(size, _MOST_AT_ONCE)))
                if not parts[-1]:
                    raise CheckpointError(f"{self.path} was cut short while it was open")
                start, size = start + len(parts[-1]), size - len(parts[-1])
        except OSError as error:
            raise unreadable(self.path, error) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def array(self, start: int, dtype: str | np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return part of the file as a read-only array: a copy."""
        import numpy as np

        kind = np.dtype(dtype)
        return np.frombuffer(self.copy(start, kind.itemsize * math.prod(shape)), dtype=kind).reshape(shape)

    def view(self, start: int, dtype: str | np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return part of the file as a read-only array: a view of the map. Call :meth:`check_whole` before each use."""
        import numpy as np

        kind = np.dtype(dtype)
        return np.frombuffer(self.part(start, kind.itemsize * math.prod(shape)), dtype=kind).reshape(shape)

    def check_whole(self) -> None:
        """Raise :class:`CheckpointError` if the file has become shorter than its map."""
        if self._file.size < len(self.data):
            raise CheckpointError(f"{self.path} was cut short while it was open")

    def crc32(self, start: int) -> int:
        """Return the CRC-32 of the bytes from ``start`` to the end."""
        crc = 0
        for at in range(start, len(self), _CHECKED_AT_ONCE):
            crc = zlib.crc32(self.copy(at, min(_CHECKED_AT_ONCE, len(self) - at)), crc)
        return crc


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return the error for a file that the system does not let us read."""
    return CheckpointError(f"cannot read {path}: {error.strerror or error}")


def check_not_pointer(path: Path | str, content: bytes | memoryview | None = None) -> None:
    """Raise :class:`CheckpointError` if a file is the pointer that Git LFS leaves in place of a large file.

    ``content`` is the file, or its beginning; None: read it from ``path``, if that can be read.
    """
    if content is None:
        with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123 (str or Path)
            content = file.read(len(_LFS_POINTER))
    if content is not None and bytes(content[: len(_LFS_POINTER)]) == _LFS_POINTER:
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in its repository")


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, without translating newlines."""
    return read_bytes(path).decode("utf-8", errors="surrogateescape")


def read_bytes(path: Path) -> bytes:
    """Read a whole file of at most 256 MiB."""
    try:
        if path.stat().st_size > MAX_TEXT_FILE:
            raise CheckpointError(f"{path}: larger than the limit of {MAX_TEXT_FILE >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    check_not_pointer(path, content)
    return content


def parse_json(path: Path, text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises :class:`CheckpointError` if the text is not one or a key occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def config_from(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    """Build a :class:`ModelConfig` from a file's values; its errors name the file."""
    try:
        return ModelConfig.from_hparams(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
