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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError, ConfigError

Tensor = NDArray[np.float32]
LAYER_NORM_EPSILON = 1e-5
"""The term added to the variance in every layer norm of GPT-2; a checkpoint with another value is refused."""
READERS = 1
"""The version of the readers. Raise it when one reads a file differently, so that older packed files are not reused."""
MAX_TEXT_FILE = 256 << 20  # bytes; larger JSON and text files are refused


@dataclass(frozen=True)
class TokenizerFiles:
    """A vocabulary as checkpoints store it: token → id as in ``encoder.json``, merge lines as in ``vocab.bpe``."""

    encoder: dict[str, int]
    merges: list[str]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its canonical shape, a function that reads it as float32, and the file if it is mapped."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    file: MappedFile | None = None


class LazyTensors(Mapping[str, Tensor]):
    """Canonical name → float32 array, read on each access, and checked where the format has checksums.

    Nothing is cached: an array lives as long as the caller holds it, and each access releases the file's pages that
    earlier ones read. Arrays may be read-only views of the file.
    """

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        if stored.file is not None:
            stored.file.let_go()
        return stored.read()

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
    ``tokenizer_files`` is None if the checkpoint has GPT-2's own vocabulary or none at all.
    ``format`` is ``openai``, ``huggingface``, ``gguf`` or ``nanogpt``. ``precision`` is that of most stored weights
    (``float32``, ``float16``, ``bfloat16``, ``q8_0``, ``q4_0``). ``files`` are the files that the tensors are read
    from, including indexes.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer_files: TokenizerFiles | None
    format: str
    precision: str
    path: Path
    files: tuple[Path, ...] = ()
    opened: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False, default=())
    """Size, times of change and inode of each of ``files`` when it was opened, to detect later changes."""

    def __post_init__(self) -> None:
        statuses = [path.stat() for path in self.files if path.exists()]
        opened = tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in statuses)
        object.__setattr__(self, "opened", opened)


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
            ("mlp.c_fc", (n, 4 * n)),
            ("mlp.c_proj", (4 * n, n)),
        ):
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[-1:]
    return shapes | {"ln_f.weight": (n,), "ln_f.bias": (n,)}


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
    return LazyTensors(chosen)


def check_apart(path: Path, spans: Iterable[tuple[int, int]]) -> None:
    """Raise :class:`CheckpointError` if two of the ``(offset, size)`` spans overlap."""
    for (start, size), (following, _) in pairwise(sorted(spans)):
        if start + size > following:
            raise CheckpointError(f"{path}: two tensors share the bytes at {following}")


class MappedFile:
    """A file mapped read-only; access beyond its end raises :class:`CheckpointError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            self._map = b""
        except OSError as error:
            raise unreadable(path, error) from None
        self.data = memoryview(self._map)

    def __len__(self) -> int:
        return len(self.data)

    def let_go(self) -> None:
        """Release the pages read so far; they stay in the system's cache, and views read them again when used."""
        if isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def part(self, start: int, size: int) -> memoryview:
        """Return ``size`` bytes from ``start``, without copying."""
        if start < 0 or size < 0 or start + size > len(self.data):
            raise CheckpointError(
                f"{self.path}: cut short or corrupt (bytes {start} to {start + size} of {len(self.data)} are wanted)"
            )
        return self.data[start : start + size]

    def array(self, start: int, dtype: str | np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return part of the file as a read-only array: a view, or a copy if it is not aligned in the file."""
        kind = np.dtype(dtype)
        array = np.frombuffer(self.part(start, kind.itemsize * math.prod(shape)), dtype=kind).reshape(shape)
        return array if array.flags.aligned else array.copy()


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return the error for a file that the system does not let us read."""
    return CheckpointError(f"cannot read {path}: {error.strerror or error}")


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, without translating newlines."""
    return read_bytes(path).decode("utf-8", errors="surrogateescape")


def read_bytes(path: Path) -> bytes:
    """Read a whole file of at most 256 MiB."""
    try:
        if path.stat().st_size > MAX_TEXT_FILE:
            raise CheckpointError(f"{path}: larger than the {MAX_TEXT_FILE >> 20} MiB that such a file may have")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def parse_json(path: Path, text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises :class:`CheckpointError` if it is none or a key occurs twice."""

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
        raise CheckpointError(f"{path}: a JSON object is wanted, not {type(value).__name__}")
    return value


def config_from(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    """Build a :class:`ModelConfig` from a file's values; its errors name the file."""
    try:
        return ModelConfig.from_hparams(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
