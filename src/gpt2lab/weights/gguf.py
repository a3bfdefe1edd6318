"""Read GPT-2 in GGUF, named and shaped as by llama.cpp's converter, including the tokenizer.

GGUF stores matrices ``[out, in]``, the transpose of the canonical ``[in, out]``; the output matrix is
``token_embd.weight`` itself, or ``output.weight``. It has no key for some switches of GPT-2's family: those that
``gguf_writing`` adds are obeyed. ``gguf_file`` handles the container.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.config import ACTIVATIONS, ModelConfig
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.weights.checkpoint import (
    Checkpoint,
    StoredTensor,
    Tensor,
    check_tensors,
)
from gpt2lab.weights.gguf_file import GgufFile, GgufTensor, read_gguf_file
from gpt2lab.weights.gguf_tokenizer import GPT2_STRINGS, read_gguf_tokenizer
from gpt2lab.weights.precisions import PRECISIONS, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COMPARED = 1 << 20  # values compared at once

ACTIVATION_KEY = "gpt2.activation_function"
SCALE_KEY = "gpt2.attention.scale"
INVERSE_LAYER_KEY = "gpt2.attention.scale_by_inverse_layer_idx"
UPCAST_KEY = "gpt2.attention.reorder_and_upcast"
UNTRANSPOSED = ("wte.weight", "wpe.weight", "lm_head.weight")
"""Tensors ``[n, n_embd]``, which GGUF stores in the canonical shape."""

_EXACT_GELU = "the exact GELU"
_DIFFERENT = {
    r"cerebras": _EXACT_GELU,
    r"gpt-?sw3": _EXACT_GELU,
    r"codeparrot": "attention scaled by the inverse of the layer's number",
    r"crfm|(alias|battlestar|caprica|darkmatter|expanse|arwen|beren|celebrimbor|durin|eowyn)-gpt2": (
        "attention scaled by the inverse of the layer's number"
    ),
    r"rugpt-?3-?xl": "sparse attention in every second layer",
}
"""Names of GPT-2s that are computed in another way → that way, which llama.cpp's converter does not record."""


PARTS = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
WHOLE = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}


def read_gguf(path: Path) -> Checkpoint:
    """Open a ``.gguf`` file that holds a GPT-2. Raises :class:`CheckpointError` otherwise."""
    file = read_gguf_file(path, GPT2_STRINGS)
    _check_kind(file)
    config = _config(file)
    names = {_canonical_name(name): name for name in file.tensors}
    if config.tie_word_embeddings:
        names.pop("lm_head.weight", None)
    stored = {canonical: _stored_tensor(file, name, canonical) for canonical, name in names.items() if canonical}
    tensors = check_tensors(path, config, stored)
    if unused := [name for canonical, name in names.items() if canonical not in tensors]:
        raise CheckpointError(f"{path}: tensor {unused[0]} is not part of a GPT-2 of {config.n_layer} layers")
    vocabulary, special, other = read_gguf_tokenizer(file, config)
    family = _family_note(file)
    of_activation = _EXACT_GELU in family
    return Checkpoint(
        config,
        tensors,
        vocabulary,
        "gguf",
        _precision(file),
        path,
        (path,),
        special=special,
        other_tokenizer=other,
        notes=tuple(filter(None, (_decoding_note(file), "" if of_activation else family))),
        activation_assumed=None if ACTIVATION_KEY in file.metadata else family if of_activation else "",
    )


def _check_kind(file: GgufFile) -> None:
    """Raise :class:`CheckpointError` for a file that is no model, no GPT-2, or not all of one, and say what it is."""
    path, metadata = file.file.path, file.metadata
    kind = metadata.get("general.type", "model")
    if kind != "model":
        base = metadata.get("general.base_model.0.name", "another model")
        what = {"adapter": f"an adapter for {base}: merge it into its base with llama.cpp's llama-export-lora"}
        raise CheckpointError(f"{path} holds {what.get(str(kind), 'no model')} (general.type is {kind!r})")
    architecture = metadata.get("general.architecture")
    if architecture != "gpt2":
        raise CheckpointError(f"{path} holds a model of architecture {architecture!r}, not gpt2")
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{path} is one of {metadata['split.count']} parts (split.count): join them with 'llama-gguf-split --merge'"
        )
    if not file.tensors:
        raise CheckpointError(f"{path} holds a vocabulary without weights; give the model's own file")


_KEYS = {
    "n_ctx": "gpt2.context_length",
    "n_embd": "gpt2.embedding_length",
    "n_head": "gpt2.attention.head_count",
    "n_layer": "gpt2.block_count",
    "n_inner": "gpt2.feed_forward_length",
    "layer_norm_epsilon": "gpt2.attention.layer_norm_epsilon",
    "scale_attn_by_inverse_layer_idx": INVERSE_LAYER_KEY,
    "reorder_and_upcast_attn": UPCAST_KEY,
}
"""Field of :class:`ModelConfig` → the key with the same value."""


def _config(file: GgufFile) -> ModelConfig:
    path, metadata = file.file.path, file.metadata
    embedding, output = file.tensors.get("token_embd.weight"), file.tensors.get("output.weight")
    activation = metadata.get(ACTIVATION_KEY, "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: {ACTIVATION_KEY} is {activation!r}; only {', '.join(ACTIVATIONS)} are supported"
        )
    values = {name: metadata.get(key) for name, key in _KEYS.items() if key in metadata or not _is_switch(name)}
    epsilon = values["layer_norm_epsilon"]
    if isinstance(epsilon, float):
        values["layer_norm_epsilon"] = _shortest(epsilon)
    values |= {
        "n_vocab": embedding.shape[0] if embedding else None,
        "activation": activation,
        "scale_attn_weights": metadata.get(SCALE_KEY) != 1.0,
        "tie_word_embeddings": output is None or _is_embedding(file, output),
    }
    try:
        config = ModelConfig.from_hparams(values)
    except ConfigError as error:
        key = _KEYS.get(str(error).split()[0])
        raise CheckpointError(f"{path}: {error}" + (f" ({key})" if key else "")) from None
    _check_hyperparameters(file, config)
    return config


def _shortest(number: float) -> float:
    """Return the decimal with the fewest digits that float32 rounds to ``number``, as the file does."""
    (rounded,) = array("f", [number])
    tries = (float(f"{rounded:.{digits}g}") for digits in range(1, 10))
    return next((each for each in tries if array("f", [each])[0] == rounded), rounded)


def _is_switch(name: str) -> bool:
    """Return whether a file need not have this field of :class:`ModelConfig`."""
    return name in ("n_inner", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn")


def _check_hyperparameters(file: GgufFile, config: ModelConfig) -> None:
    """Raise :class:`CheckpointError` for a ``gpt2.`` key whose value means another computation, or that is unknown."""
    obeyed = {key.removeprefix("gpt2.") for key in (ACTIVATION_KEY, *_KEYS.values())}
    required = {
        "vocab_size": config.n_vocab,
        "attention.head_count_kv": config.n_head,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.scale": config.head_dim**-0.5 if config.scale_attn_weights else 1.0,
        "attention.causal": True,
    }
    for key, value in file.metadata.items():
        name = key.removeprefix("gpt2.")
        if name == key or name in obeyed:
            continue
        if name not in required:
            raise CheckpointError(f"{file.file.path}: {key} is {value!r}, but a GPT-2 has no such key")
        expected = required[name]
        if type(value) is not type(expected) or not math.isclose(value, expected, rel_tol=1e-6):
            raise CheckpointError(f"{file.file.path}: {key} is {value!r}; only {expected!r} is supported")


def _decoding_note(file: GgufFile) -> str:
    """Return a line about weights that are decoded; empty if none are."""
    names = sorted({tensor.precision.name for tensor in file.tensors.values()} - set(PRECISIONS))
    if not names:
        return ""
    listed = " and ".join(filter(None, (", ".join(names[:-1]).upper(), names[-1].upper())))
    return f"{file.file.path.name}: weights in {listed} are decoded, and rounded again to the precision in use"


def _family_note(file: GgufFile) -> str:
    """Return a line about a name that suggests another computation; empty if none does."""
    recorded = not file.metadata.keys().isdisjoint((ACTIVATION_KEY, INVERSE_LAYER_KEY))
    if recorded or not (found := _different(file.metadata)):
        return ""
    key, name, how = found
    advice = "set the activation to gelu, or use" if how == _EXACT_GELU else "use"
    return (
        f"{file.file.path.name}: {key} is {name!r}, a model with {how}; the file does not record this, so it is "
        f"computed like GPT-2: {advice} the model's Hugging Face folder"
    )


def _different(metadata: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the key and the name of a model that is known to be computed in another way, and that way."""
    for key, name in metadata.items():
        if key.startswith("general.") and isinstance(name, str):
            for pattern, how in _DIFFERENT.items():
                if re.search(pattern, name, re.IGNORECASE):
                    return key, name, how
    return None


def _canonical_name(name: str) -> str | None:
    match = re.fullmatch(r"(?:blk\.(0|[1-9][0-9]{0,8})\.)?([a-z_]+)\.(weight|bias)", name)
    if not match:
        return None
    layer, part, kind = match.groups()
    if layer is None:
        return f"{WHOLE[part]}.{kind}" if part in WHOLE else None
    return f"h.{layer}.{PARTS[part]}.{kind}" if part in PARTS else None


def _stored_tensor(file: GgufFile, name: str, canonical: str) -> StoredTensor:
    tensor = file.tensors[name]
    precision = tensor.precision
    transposed = len(tensor.shape) == 2 and canonical not in UNTRANSPOSED
    if precision.name not in PRECISIONS:
        return _foreign_tensor(file, name, tensor, transposed)

    def read() -> Tensor:
        from gpt2lab.weights.quantization import decode, decode_transposed  # imports NumPy, which a start need not

        if transposed:
            return decode_transposed(file.items(tensor), precision, *tensor.shape)
        return decode(file.items(tensor), precision, tensor.shape)

    return StoredTensor(tensor.shape[::-1] if transposed else tensor.shape, read)


def _foreign_tensor(file: GgufFile, name: str, tensor: GgufTensor, transposed: bool) -> StoredTensor:
    """Return the reader of a tensor in a type that gpt2lab never writes."""
    from gpt2lab.weights.dequantization import check_decodable, dequantize

    check_decodable(file.file.path, name, tensor.precision)

    def read() -> Tensor:
        values = dequantize(file.items(tensor), tensor.precision, tensor.shape)
        return values.T.copy() if transposed else values

    return StoredTensor(tensor.shape[::-1] if transposed else tensor.shape, read)


def _is_embedding(file: GgufFile, output: GgufTensor) -> bool:
    """Return whether the output matrix, which some converters write even so, has the values of the token embedding."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or output.shape != embedding.shape or len(output.shape) != 2:
        return False
    step = max(1, _COMPARED // output.shape[1])
    for first in range(0, output.shape[0], step):
        rows = [_rows(file, tensor, first, step) for tensor in (output, embedding)]
        if output.precision == embedding.precision:
            same = rows[0].tobytes() == rows[1].tobytes()
        else:
            left, right = (_decoded(file, tensor, part) for tensor, part in zip((output, embedding), rows, strict=True))
            same = bool((left == right).all())
        if not same:
            return False
    return True


def _rows(file: GgufFile, tensor: GgufTensor, first: int, count: int) -> NDArray[Any]:
    """Return the stored items of up to ``count`` rows of a matrix."""
    n_rows, width = min(count, tensor.shape[0] - first), tensor.shape[1]
    precision = tensor.precision
    return file.file.array(
        tensor.offset + precision.n_bytes(first * width), precision.dtype, (n_rows * width // precision.block,)
    )


def _decoded(file: GgufFile, tensor: GgufTensor, items: NDArray[Any]) -> Tensor:
    shape = (len(items) * tensor.precision.block // tensor.shape[1], tensor.shape[1])
    if tensor.precision.name in PRECISIONS:
        from gpt2lab.weights.quantization import decode

        return decode(items, tensor.precision, shape)
    from gpt2lab.weights.dequantization import check_decodable, dequantize

    check_decodable(file.file.path, "output.weight or token_embd.weight", tensor.precision)
    return dequantize(items, tensor.precision, shape)


def _precision(file: GgufFile) -> str:
    """Return the precision of the matrices: of most of them, if the others could not be stored in it, or else all."""
    counts: dict[Precision, int] = {}
    widths: dict[Precision, set[int]] = {}
    for name, tensor in file.tensors.items():
        if len(tensor.shape) == 2 and name != "position_embd.weight":
            counts[tensor.precision] = counts.get(tensor.precision, 0) + math.prod(tensor.shape)
            widths.setdefault(tensor.precision, set()).add(tensor.shape[-1])
    most, *others = sorted(counts, key=lambda precision: -counts[precision])
    if all(width % most.block for other in others for width in widths[other]):
        return most.name
    return ", ".join(precision.name for precision in (most, *others))
