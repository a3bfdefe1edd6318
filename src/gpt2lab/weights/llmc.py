"""Read llm.c's ``gpt2_124M.bin`` and the ``model_*.bin`` of its training. Does not write them.

The layout is that of ``write_model`` in llm.c's ``train_gpt2.py``: 256 int32, then every parameter, kind by kind with
all layers of a kind together. The header holds a magic number, the version, block_size, vocab_size, n_layer, n_head,
n_embd and the rows of the token embedding, which are padded. Versions: 1 is float32 without padding, 3 float32 and 5
bfloat16 with it. Linear layers are ``[out, in]``, the transpose of the canonical ``[in, out]``; the activation is GELU
in its tanh form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, MappedFile, StoredTensor, Tensor, check_tensors, config_from
from gpt2lab.weights.precisions import PRECISIONS, Precision
from gpt2lab.weights.quantization import decode

_HEADER = 1024  # bytes
_PRECISIONS = {1: "float32", 3: "float32", 5: "bfloat16"}


def read_llmc(path: Path) -> Checkpoint:
    """Open a file. Raises :class:`CheckpointError` if its version is another, or its size does not fit its header."""
    file = MappedFile(path)
    _, version, n_ctx, n_vocab, n_layer, n_head, n_embd, rows = np.frombuffer(file.part(0, _HEADER), "<i4")[:8].tolist()
    if version not in _PRECISIONS or (version == 3 and rows == 0):  # 2 and the first 3 had another order
        which = "an early version 3" if version == 3 else f"version {version}"
        raise CheckpointError(
            f"{path}: {which} of llm.c's format is not supported; write the file again with a newer llm.c (1, 3, 5)"
        )
    precision = PRECISIONS[_PRECISIONS[version]]
    shape = {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}
    config = config_from(path, shape)
    rows = n_vocab if version == 1 else rows
    if rows < n_vocab:
        raise CheckpointError(f"{path}: padded_vocab_size is {rows}, less than the vocab_size of {n_vocab}")
    expected = _HEADER + sum(n * precision.n_bytes(math.prod(shape)) for _, shape, n in _kinds(config, rows))
    if len(file) != expected:
        raise CheckpointError(f"{path} has {len(file)} bytes, but its header describes {expected}")
    tensors = check_tensors(path, config, dict(_stored(file, config, rows, precision)))
    return Checkpoint(config, tensors, None, "llm.c", precision.name, path, (path,))


def _kinds(config: ModelConfig, rows: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield each kind of parameter in the file's order: its name, the stored shape of one, and how many there are."""
    n, layers = config.n_embd, config.n_layer
    yield "wte.weight", (rows, n), 1
    yield "wpe.weight", (config.n_ctx, n), 1
    for part, (n_out, n_in) in {
        "ln_1": (n, 0),
        "attn.c_attn": (3 * n, n),
        "attn.c_proj": (n, n),
        "ln_2": (n, 0),
        "mlp.c_fc": (4 * n, n),
        "mlp.c_proj": (n, 4 * n),
    }.items():
        yield f"h.{{}}.{part}.weight", (n_out, n_in) if n_in else (n_out,), layers
        yield f"h.{{}}.{part}.bias", (n_out,), layers
    yield "ln_f.weight", (n,), 1
    yield "ln_f.bias", (n,), 1


def _stored(
    file: MappedFile, config: ModelConfig, rows: int, precision: Precision
) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the canonical name and the reader of each tensor."""
    start = _HEADER
    for name, shape, count in _kinds(config, rows):
        for layer in range(count):
            linear = len(shape) == 2 and name.startswith("h.")
            kept = (config.n_vocab, shape[1]) if name == "wte.weight" else shape
            yield name.format(layer), _tensor(file, start, kept, precision, transposed=linear)
            start += precision.n_bytes(math.prod(shape))


def _tensor(
    file: MappedFile, start: int, shape: tuple[int, ...], precision: Precision, *, transposed: bool
) -> StoredTensor:
    def read() -> Tensor:
        values = decode(file.array(start, precision.dtype, (math.prod(shape),)), precision, shape)
        return np.ascontiguousarray(values.T) if transposed else values

    return StoredTensor(shape[::-1] if transposed else shape, read)
