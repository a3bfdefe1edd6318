"""Read nanoGPT's ``ckpt.pt``: a pickle with ``model`` (a PyTorch state dict) and ``model_args``. Does not write it.

Its linear layers are ``[out, in]``, the transpose of the canonical ``[in, out]``; a model trained with ``bias=False``
gets zero biases. Its vocabulary is GPT-2's, padded to 50304 rows; the padding, which no token trains, is left out. A
head of its own is used. The activation is not recorded: the exact GELU since June 2023, its tanh form before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.config import GPT2_N_VOCAB
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, StoredTensor, Tensor, check_tensors, config_from, tensor_shapes
from gpt2lab.weights.huggingface_weights import canonical_name
from gpt2lab.weights.torch_file import is_same, stored_tensor

_PADDED_VOCAB = 50304
_ARGUMENTS = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
_LINEAR = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
_EMBEDDINGS = {"wte.weight", "lm_head.weight"}
_ASSUMED = (
    "nanoGPT does not record the activation, so gelu is assumed, which it has used since June 2023; "
    "older models need the activation gelu_new"
)


def is_nanogpt(content: Mapping[Any, Any]) -> bool:
    """Return whether the content of a PyTorch file is nanoGPT's."""
    return isinstance(content.get("model_args"), dict) and isinstance(content.get("model"), dict)


def read_nanogpt(path: Path, content: Mapping[Any, Any]) -> Checkpoint:
    """Open a ``ckpt.pt`` with this content. Raises :class:`CheckpointError` if its model is not a GPT-2."""
    arguments, state = content["model_args"], content["model"]
    _check_arguments(path, arguments)
    stored, precision = _read_state(path, state)
    n_vocab = arguments.get("vocab_size")
    if n_vocab == _PADDED_VOCAB:
        for name in _EMBEDDINGS & stored.keys():
            stored[name] = _without_padding(path, name, stored[name])
        n_vocab = GPT2_N_VOCAB
    shape = {"n_vocab": n_vocab, "n_ctx": arguments.get("block_size"), "activation": "gelu"}
    shape["tie_word_embeddings"] = "lm_head.weight" not in stored
    config = config_from(path, shape | {name: arguments.get(name) for name in ("n_embd", "n_head", "n_layer")})
    if arguments.get("bias") is False and config.n_layer <= len(stored):
        for name, dimensions in tensor_shapes(config).items():
            if name.endswith(".bias"):
                if name in stored:
                    raise CheckpointError(f"{path}: bias is False, but tensor {name} is there")
                stored[name] = _zeros(dimensions)
    tensors = check_tensors(path, config, stored)
    if unused := [name for name in stored if name not in tensors]:
        raise CheckpointError(f"{path}: tensor {unused[0]} is not part of a GPT-2 of {config.n_layer} layers")
    assumed = f"{path}: {_ASSUMED}"
    return Checkpoint(config, tensors, None, "nanogpt", precision, path, (path,), activation_assumed=assumed)


def _check_arguments(path: Path, arguments: Mapping[Any, Any]) -> None:
    """Raise :class:`CheckpointError` for an argument that only a changed nanoGPT has: it may compute another model."""
    for name, value in arguments.items():
        if name not in _ARGUMENTS:
            raise CheckpointError(f"{path}: model_args has {name} = {value!r}, which nanoGPT's GPT-2 does not have")


def _read_state(path: Path, state: Mapping[Any, Any]) -> tuple[dict[str, StoredTensor], str]:
    """Return the tensors by canonical name, and their precision; the head only if it is not the embedding again."""
    named = {canonical_name(str(key)): value for key, value in state.items()}
    stored, precision = {}, "float32"
    for name, value in named.items():
        if not name.endswith(".attn.bias"):  # the causal mask of old versions
            stored[name], precision = stored_tensor(path, name, value, transposed=name.endswith(_LINEAR))
    if stored.keys() >= _EMBEDDINGS and is_same(*(named[name] for name in _EMBEDDINGS)):
        del stored["lm_head.weight"]
    return stored, precision


def _without_padding(path: Path, name: str, padded: StoredTensor) -> StoredTensor:
    if len(padded.shape) != 2 or padded.shape[0] != _PADDED_VOCAB:
        raise CheckpointError(f"{path}: {name} has shape {list(padded.shape)}, not {_PADDED_VOCAB} rows")
    return StoredTensor((GPT2_N_VOCAB, padded.shape[1]), lambda: padded.read()[:GPT2_N_VOCAB])


def _zeros(shape: tuple[int, ...]) -> StoredTensor:
    def read() -> Tensor:
        return np.zeros(shape, dtype=np.float32)

    return StoredTensor(shape, read)
