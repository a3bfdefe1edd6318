"""The tensors of a Hugging Face folder, by their canonical names, from whichever of its files holds them.

Names may start with ``transformer.``, and with what PyTorch's wrappers put before it. A matrix may be stored once under
two names. This module knows nothing of ``config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import StoredTensor, parse_json, read_bytes
from gpt2lab.weights.file_kinds import TORCH, kind_of
from gpt2lab.weights.safetensors_file import read_safetensors
from gpt2lab.weights.torch_file import load_torch, stored_tensor

SINGLE = "model.safetensors"
OWN = {"int8": "weights-int8.safetensors", "int4": "weights-int4.safetensors"}
"""Precision → the file of gpt2lab's own folders in it."""
_SHARDED = "model.safetensors.index.json"
_TORCH_SINGLE, _TORCH_SHARDED = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHT_FILES = (SINGLE, _SHARDED, _TORCH_SINGLE, _TORCH_SHARDED)
"""The names of a folder's weights, in the order of transformers; an index names further files."""
_MAX_SHARDS = 1000
_PREFIXES = ("module.", "_orig_mod.", "transformer.")
"""Starts of names before the canonical one: DistributedDataParallel's, torch.compile's, the language model's."""

Stored: TypeAlias = dict[str, tuple[StoredTensor, str]]
"""Name → tensor and its precision."""


def has_weights(folder: Path) -> bool:
    """Return whether a folder with ``config.json`` has weights under one of the names that are looked for."""
    return any((folder / name).is_file() for name in (*WEIGHT_FILES, *OWN.values()))


def read_weights(folder: Path, chosen: Path | None) -> tuple[Stored, tuple[Path, ...]]:
    """Return canonical name → tensor and precision, and the files: the chosen one, or the first kind in the folder."""
    path = chosen or next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: has a config.json but no weights ({SINGLE})")
    is_index = path.name.endswith(".index.json")
    is_torch = ".bin" in path.name if chosen is None or is_index else kind_of(path) is TORCH
    read = _from_torch if is_torch else _from_safetensors
    if is_index:
        stored, files = _from_shards(path, read)
        return _canonical(path, stored), files
    if (shard := re.search(r"-(\d+)-of-(\d+)\.", path.name)) and int(shard[2]) > 1:
        raise CheckpointError(f"{path}: one of {int(shard[2])} shards: give their folder, or their .index.json")
    return _canonical(path, read(path)), (path,)


def read_own_weights(path: Path, precision: str) -> tuple[Stored, tuple[Path, ...]]:
    """Return canonical name → tensor and precision, and the file: gpt2lab's own, in ``int8`` or ``int4``."""
    from gpt2lab.weights.integer_tensors import read_integers  # most models start without it

    return _canonical(path, read_integers(path, precision)), (path,)


def _from_safetensors(path: Path) -> Stored:
    stored = {}
    for name, tensor in read_safetensors(path).items():
        if _is_weight(name):
            how, precision = tensor.stored(name)
            stored[name] = (how, precision.name)
    return stored


def _from_torch(path: Path) -> Stored:
    return {
        name: stored_tensor(path, name, value)
        for name, value in load_torch(path).items()
        if isinstance(name, str) and _is_weight(name)
    }


def _from_shards(index: Path, read: Callable[[Path], Stored]) -> tuple[Stored, tuple[Path, ...]]:
    """Return the tensors that an index lists, each from the file that it names in the same folder."""
    weight_map = parse_json(index, read_bytes(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must name a file for each tensor")
    files = sorted(set(weight_map.values()))
    if len(files) > _MAX_SHARDS:
        raise CheckpointError(f"{index}: names {len(files)} files, more than {_MAX_SHARDS}")
    stored: Stored = {}
    for file in files:
        if "/" in file or "\\" in file or not file.endswith((".safetensors", ".bin")):
            raise CheckpointError(f"{index}: {file!r} is not the name of a weights file beside it")
        for name, tensor in read(index.parent / file).items():
            if weight_map.get(name) == file:
                stored[name] = tensor
    missing = [name for name in weight_map if _is_weight(name) and name not in stored]
    if missing:
        raise CheckpointError(f"{index}: {missing[0]} is not in {weight_map[missing[0]]}")
    return stored, (index, *(index.parent / file for file in files))


def _is_weight(name: str) -> bool:
    """Return whether ``name`` is a parameter, and not the causal mask that older versions saved too."""
    return not name.endswith((".attn.bias", ".attn.masked_bias"))


def _canonical(path: Path, stored: Stored) -> Stored:
    renamed: Stored = {}
    for name, tensor in stored.items():
        if ".lora_" in name:
            raise CheckpointError(f"{path}: {name} belongs to an adapter: merge it into its base model, then save that")
        canonical = canonical_name(name)
        if canonical in renamed:
            raise CheckpointError(f"{path}: a tensor occurs twice, with and without a prefix: {name}")
        renamed[canonical] = tensor
    return renamed


def stored_name(name: str) -> str:
    """Return the name in a file of the tensor with this canonical name; only the head is outside the transformer."""
    return name if name == "lm_head.weight" else f"transformer.{name}"


def canonical_name(name: str) -> str:
    """Return the canonical name of a tensor that a file calls ``name``, with or without prefixes."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name
