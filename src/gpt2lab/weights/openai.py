"""Read OpenAI's checkpoints of GPT-2, and those that nshepperd's and gpt-2-simple's fine-tuning save; no TensorFlow.

The folder holds ``checkpoint`` (names the newest ``PREFIX``), ``PREFIX.index`` (a LevelDB table from variable names to
protobuf ``BundleEntryProto``), ``PREFIX.data-NNNNN-of-MMMMM`` (the bytes), ``hparams.json``, and often
``encoder.json`` and ``vocab.bpe``. Each tensor's CRC-32C is checked when it is read. Variables that GPT-2 does not
have (optimiser state) are ignored. Does not write this format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import (
    Checkpoint,
    MappedFile,
    OtherTokenizer,
    StoredTensor,
    Tensor,
    check_tensors,
    config_from,
    parse_json,
    read_bytes,
    read_text,
    tensor_shapes,
)
from gpt2lab.weights.crc32c import masked_crc32c
from gpt2lab.weights.leveldb import read_table, read_varint
from gpt2lab.weights.vocabulary import read_vocabulary

_DT_FLOAT = 1
_MAX_SHARDS = 10_000
_MAX_DIMENSIONS = 8  # the product of a list of any length could take hours

_PARTS = {
    "ln_1/g": "ln_1.weight",
    "ln_1/b": "ln_1.bias",
    "attn/c_attn/w": "attn.c_attn.weight",
    "attn/c_attn/b": "attn.c_attn.bias",
    "attn/c_proj/w": "attn.c_proj.weight",
    "attn/c_proj/b": "attn.c_proj.bias",
    "ln_2/g": "ln_2.weight",
    "ln_2/b": "ln_2.bias",
    "mlp/c_fc/w": "mlp.c_fc.weight",
    "mlp/c_fc/b": "mlp.c_fc.bias",
    "mlp/c_proj/w": "mlp.c_proj.weight",
    "mlp/c_proj/b": "mlp.c_proj.bias",
}
_WHOLE = {"wte": "wte.weight", "wpe": "wpe.weight", "ln_f/g": "ln_f.weight", "ln_f/b": "ln_f.bias"}


def is_openai(path: Path) -> bool:
    """Return whether ``path`` is such a folder, or one checkpoint's prefix (``…/model-1000``) or ``.index`` file."""
    if path.is_dir():
        return (path / "checkpoint").is_file() or any(path.glob("*.index"))
    return path.suffix == ".index" or Path(f"{path}.index").is_file()


def read_openai(path: Path) -> Checkpoint:
    """Open a folder, or one of its checkpoints by prefix or ``.index`` file.

    Without ``hparams.json`` (nshepperd's run folders have none), the shape must be a released one.
    """
    prefix = newest_prefix(path) if path.is_dir() else Path(str(path).removesuffix(".index"))
    index = MappedFile(Path(f"{prefix}.index"))
    table = read_table(index)
    n_shards = _n_shards(index.path, table.get(b""))
    shards = _Shards(prefix, n_shards)
    stored = {}
    spans: dict[int, list[tuple[int, int]]] = {}
    for key, value in table.items():
        name = _canonical_name(key)
        if name is not None:
            entry = _entry(index.path, name, value)
            stored[name] = _stored_tensor(shards, name, entry)
            spans.setdefault(entry.shard, []).append((entry.offset, entry.size))
    for shard, parts in spans.items():
        _check_apart(shards.file(shard).path, parts)
    hparams = prefix.parent / "hparams.json"
    if hparams.is_file():
        config = config_from(hparams, parse_json(hparams, read_bytes(hparams)))
    else:
        config = _released_config(prefix, stored)
    tensors = check_tensors(index.path, config, stored)
    encoder, merges = prefix.parent / "encoder.json", prefix.parent / "vocab.bpe"
    files = (index.path, *(shards.file(shard).path for shard in sorted(spans)))
    tokenizer = read_vocabulary(encoder, merges) if encoder.is_file() and merges.is_file() else None
    other = None
    if encoder.is_file() != merges.is_file():  # one alone may be that of any vocabulary
        other = OtherTokenizer(f"{prefix.parent} holds only one of encoder.json and vocab.bpe")
    return Checkpoint(config, tensors, tokenizer, "openai", "float32", path, files, other_tokenizer=other)


def newest_prefix(folder: Path) -> Path:
    """Return the prefix that the folder's ``checkpoint`` file names, else that of its only ``.index`` file.

    Only the last part of the recorded path counts, because folders get copied and nothing outside them may be read.
    """
    listing = folder / "checkpoint"
    if listing.is_file():
        match = re.search(r'^model_checkpoint_path: *"([^"]+)"', read_text(listing), re.MULTILINE)
        name = re.split(r"[/\\]", match[1])[-1] if match else ""
        if name in ("", ".", "..") or "\0" in name:
            raise CheckpointError(f"{listing}: names no checkpoint")
        return folder / name
    found = sorted(folder.glob("*.index"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder}: has no file named checkpoint, and {len(found)} .index files instead of one; give a file's path"
        )
    return folder / found[0].stem


def _canonical_name(key: bytes) -> str | None:
    """Translate ``model/h0/attn/c_attn/w`` to ``h.0.attn.c_attn.weight``; None for a key that is not a GPT-2 tensor."""
    match = re.fullmatch(rb"model/(?:h(0|[1-9][0-9]{0,8})/)?([a-z0-9_/]+)", key)
    if not match:
        return None
    part = match[2].decode()
    if match[1] is None:
        return _WHOLE.get(part)
    return f"h.{match[1].decode()}.{_PARTS[part]}" if part in _PARTS else None


@dataclass
class _Entry:
    """A ``BundleEntryProto``: the place of a tensor."""

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int | None = None
    sliced: bool = False


def _entry(path: Path, name: str, value: bytes) -> _Entry:
    entry = _Entry()
    try:
        for number, content in _fields(value):
            if number == 2 and isinstance(content, bytes):
                entry.shape = [_dimension(dim) for n, dim in _fields(content) if n == 2 and isinstance(dim, bytes)]
            elif number == 7:
                entry.sliced = True
            elif isinstance(content, int) and number in (1, 3, 4, 5, 6):
                setattr(entry, {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc"}[number], content)
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: corrupt entry of {name} ({error})") from None
    if len(entry.shape) > _MAX_DIMENSIONS:
        raise CheckpointError(f"{path}: {name} has {len(entry.shape)} dimensions")
    return entry


def _dimension(message: bytes) -> int:
    return next((value for number, value in _fields(message) if number == 1 and isinstance(value, int)), 0)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values of a protobuf message: integers, or the bytes of strings and messages."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = read_varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = read_varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        content = message[at : at + length]
        if len(content) != length:
            raise ValueError("a field cut short")
        at += length
        yield number, content if wire == 2 else int.from_bytes(content, "little")


def _n_shards(path: Path, header: bytes | None) -> int:
    """Read the number of ``.data`` files from the ``BundleHeaderProto`` under the empty key."""
    if header is None:
        raise CheckpointError(f"{path}: the checkpoint's header is missing")
    try:
        fields = dict(_fields(header))
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: corrupt header ({error})") from None
    n_shards = fields.get(1, 0)
    if not isinstance(n_shards, int) or not 0 < n_shards <= _MAX_SHARDS:
        raise CheckpointError(f"{path}: claims {n_shards!r} data files")
    if fields.get(2, 0) != 0:
        raise CheckpointError(f"{path}: written by a big-endian machine, which is not supported")
    return n_shards


class _Shards:
    """The ``.data`` files of one checkpoint, each mapped when first needed."""

    def __init__(self, prefix: Path, count: int) -> None:
        self._prefix = prefix
        self._count = count
        self._files: dict[int, MappedFile] = {}

    def file(self, index: int) -> MappedFile:
        if index >= self._count:
            raise CheckpointError(f"{self._prefix}.index: refers to data file {index} of {self._count}")
        if index not in self._files:
            self._files[index] = MappedFile(Path(f"{self._prefix}.data-{index:05d}-of-{self._count:05d}"))
        return self._files[index]


def _stored_tensor(shards: _Shards, name: str, entry: _Entry) -> StoredTensor:
    file = shards.file(entry.shard)
    if entry.dtype != _DT_FLOAT or entry.sliced:
        raise CheckpointError(f"{file.path}: {name} is not one whole float32 tensor (TensorFlow type {entry.dtype})")
    shape = tuple(entry.shape[1:] if len(entry.shape) == 3 and entry.shape[0] == 1 else entry.shape)
    size = 4
    for length in shape:
        size *= length
    if size != entry.size:
        raise CheckpointError(f"{file.path}: {name} of shape {list(shape)} has {entry.size} bytes, not {size}")
    file.part(entry.offset, size)

    def read() -> Tensor:
        data = file.copy(entry.offset, size)
        if entry.crc is not None and masked_crc32c(data) != entry.crc:
            raise CheckpointError(f"{file.path}: checksum of {name} differs, the file is corrupt")
        return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32, copy=False)

    return StoredTensor(shape, read)


def _released_config(prefix: Path, stored: dict[str, StoredTensor]) -> ModelConfig:
    """Return the released size with exactly these tensors (no shape contains the number of heads)."""
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    for config in RELEASED_SIZES.values():
        if tensor_shapes(config) == shapes:
            return config
    raise CheckpointError(
        f"{prefix.parent}: hparams.json is missing, and the tensors fit no released size; add the file"
    )


def _check_apart(path: Path, spans: Iterable[tuple[int, int]]) -> None:
    """Raise :class:`CheckpointError` if two of the ``(offset, size)`` spans overlap."""
    for (start, size), (following, _) in pairwise(sorted(spans)):
        if start + size > following:
            raise CheckpointError(f"{path}: two tensors share the bytes at {following}")
