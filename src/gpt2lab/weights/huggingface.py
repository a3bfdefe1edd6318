"""Read and write GPT-2 in Hugging Face's format: a folder with ``config.json``, weights and tokenizer files.

Weights are ``model.safetensors``, several such files with an index, or, if torch is installed, ``pytorch_model.bin``;
names may start with ``transformer.``, and with what PyTorch's wrappers put before it. A model that is called gpt2 but
is computed in a way that the engines lack (another activation, cross-attention, …) is refused, not computed wrongly.
Does not download.

Folders in int8 and int4 are our own: ``config.json`` names another ``model_type``, and ``weights-int8.safetensors`` is
a name that other programs do not look for, since they would take the whole numbers for weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.config import ACTIVATIONS, ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import (
    Checkpoint,
    check_tensors,
    config_from,
    parse_json,
    read_bytes,
    tensor_shapes,
)
from gpt2lab.weights.huggingface_special import MORE_TEMPLATES, TOKENIZER_FILES
from gpt2lab.weights.huggingface_tokenizer import read_folder_tokenizer
from gpt2lab.weights.huggingface_weights import OWN, SINGLE, Stored, read_own_weights, read_weights, stored_name
from gpt2lab.weights.precisions import PRECISIONS, Precision
from gpt2lab.weights.safetensors_file import write_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

WRITABLE = ("float32", "float16", "bfloat16", *OWN)
_OWN_TYPE, _OWN_PRECISION = "gpt2lab", "gpt2lab_precision"  # in config.json of our own folders
_SWITCHES = (
    *("n_inner", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
    *("reorder_and_upcast_attn", "tie_word_embeddings"),
)
"""The fields of :class:`ModelConfig` that have the same name in ``config.json``; ``activation`` has another."""


_ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel")
"""Classes of transformers whose weights give GPT-2's logits; others have another head, or code of their own."""


def read_huggingface(path: Path, weights: Path | None = None) -> Checkpoint:
    """Open a folder; with ``weights``, read that file of it and no other: safetensors, PyTorch's, or an index.

    Raises :class:`CheckpointError` if it holds no GPT-2 that the engines compute exactly.
    """
    file = path / "config.json"
    values = _checked(file, parse_json(file, read_bytes(file)))
    config = _config(file, values)
    if values["model_type"] == _OWN_TYPE:
        kind = values[_OWN_PRECISION]
        stored, files = read_own_weights(weights or path / OWN[kind], kind)
    else:
        stored, files = read_weights(path, weights)
    if "wte.weight" not in stored and "lm_head.weight" in stored and config.tie_word_embeddings:
        stored["wte.weight"] = stored["lm_head.weight"]  # safetensors stores a matrix with two names only once
    tensors = check_tensors(weights or path, config, {name: tensor for name, (tensor, _) in stored.items()})
    if config.tie_word_embeddings:
        _check_tied(weights or path, stored)
    found = read_folder_tokenizer(path, values, config.n_vocab)
    return Checkpoint(
        config,
        tensors,
        found.files,
        "huggingface",
        stored["wte.weight"][1],
        weights or path,
        files,
        special=found.special,
        other_tokenizer=found.other,
        tokenizer_sources=found.sources,
        notes=_notes(weights or path, stored, tensors),
    )


def _notes(path: Path, stored: Stored, tensors: Mapping[str, Any]) -> tuple[str, ...]:
    """Return lines on weights that are rounded, and on tensors that no part of a GPT-2 reads."""
    notes = []
    if any(precision == "float64" for _, precision in stored.values()):
        notes.append(f"{path}: float64 weights are rounded to float32")
    unused = [name for name in stored if name not in tensors and name != "lm_head.weight"]
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        notes.append(f"{path}: tensors that are not part of this GPT-2 are ignored: {', '.join(unused[:3])}{more}")
    return tuple(notes)


def _checked(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``config.json`` if the model is a GPT-2, with the ``model_type`` that those of 2019 lack."""
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list):
        raise CheckpointError(f"{path}: architectures is {architectures!r}, not a list of names")
    if architectures and not any(name in _ARCHITECTURES for name in architectures):
        if values.get("model_type", "gpt2") == "gpt2":
            known = ", ".join(_ARCHITECTURES)
            raise CheckpointError(f"{path}: architectures is {architectures!r}; only {known} are supported")
    elif architectures and "model_type" not in values:
        values = {**values, "model_type": "gpt2"}
    for name in ("auto_map", "quantization_config"):  # code of the model's own; weights in another form
        if values.get(name):
            raise CheckpointError(f"{path}: {name} is {values[name]!r}, which is not supported")
    return values


def check_config(path: Path) -> None:
    """Raise :class:`CheckpointError` if a ``config.json`` describes a model that :func:`read_huggingface` refuses."""
    _config(path, _checked(path, parse_json(path, read_bytes(path))))


def _config(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    if values.get("model_type") == _OWN_TYPE:
        if (kind := values.get(_OWN_PRECISION)) not in tuple(OWN):
            raise CheckpointError(f"{path}: {_OWN_PRECISION} is {kind!r}; only {', '.join(OWN)} are supported")
    elif values.get("model_type") != "gpt2":
        raise CheckpointError(f"{path}: model_type is {values.get('model_type')!r}; only 'gpt2' is supported")
    activation = values.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"{path}: activation_function is {activation!r}; only {known} are supported")
    if (crossed := values.get("add_cross_attention", False)) is not False:
        raise CheckpointError(f"{path}: add_cross_attention is {crossed!r}; only False is supported")
    return config_from(
        path,
        {
            "n_vocab": values.get("vocab_size"),
            "n_ctx": values.get("n_positions", values.get("n_ctx")),
            **{name: values.get(name) for name in ("n_embd", "n_head", "n_layer")},
            "activation": activation,
            **{name: values[name] for name in _SWITCHES if name in values},
        },
    )


def _check_tied(path: Path, stored: Stored) -> None:
    """Check that an ``lm_head.weight``, if there is one, equals the token embedding."""
    head = stored.get("lm_head.weight")
    if head is None:
        return
    import numpy as np

    embedding = stored["wte.weight"][0]
    if head[0].shape != embedding.shape or not np.array_equal(head[0].read(), embedding.read(), equal_nan=True):
        raise CheckpointError(f"{path}: lm_head.weight differs from wte.weight, but tie_word_embeddings is true")


def write_huggingface(checkpoint: Checkpoint, path: Path, *, precision: str, overwrite: bool = False) -> None:
    """Write ``checkpoint`` as a folder that ``transformers`` loads by path, including the tokenizer.

    ``precision`` is one of :data:`WRITABLE`; folders in ``int8`` and ``int4`` can be loaded by gpt2lab alone. Only one
    tensor at a time is in memory.
    """
    if precision not in WRITABLE:
        raise CheckpointError(f"a Hugging Face folder holds {', '.join(WRITABLE)}; for {precision}, write a .gguf file")
    from gpt2lab.weights.tokenizer_copy import tokenizer_copy  # readers start without these
    from gpt2lab.weights.writing import destination_folder

    file = OWN.get(precision, SINGLE)
    for other in {SINGLE, *OWN.values()} - {file}:
        if (path / other).exists():
            raise CheckpointError(f"{path} holds {other}, which would stay beside {file}; give another name")
    tensors = _new_tensors(checkpoint, precision)
    tokenizer = tokenizer_copy(checkpoint)
    metadata = {"format": _OWN_TYPE, _OWN_PRECISION: precision} if precision in OWN else None
    with destination_folder(path, overwrite=overwrite, marker="config.json") as folder:
        with (folder / file).open("wb") as out:
            write_safetensors(out, tensors, metadata)
        _write_json(folder / "config.json", config_json(checkpoint.config, precision, tokenizer.ids))
        tokenizer.write(folder)
    outdated = set(TOKENIZER_FILES) - tokenizer.files.keys()  # files of a folder that was written over
    for file_of_old in (*map(path.joinpath, outdated), *(path / MORE_TEMPLATES).glob("*.jinja")):
        file_of_old.unlink(missing_ok=True)


def _new_tensors(checkpoint: Checkpoint, precision: str) -> list[NewTensor]:
    if precision in OWN:
        from gpt2lab.weights.integer_tensors import integer_tensors

        return integer_tensors(checkpoint, precision, stored_name)
    shapes = tensor_shapes(checkpoint.config)
    return [_new_tensor(checkpoint, name, shape, PRECISIONS[precision]) for name, shape in shapes.items()]


def _new_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], precision: Precision) -> NewTensor:
    from gpt2lab.weights.writing import NewTensor, encoded

    def items() -> NDArray[Any]:
        return encoded(checkpoint, name, precision)

    return NewTensor(stored_name(name), shape, precision, items)


def config_json(config: ModelConfig, precision: str, ids: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of ``config.json`` for a model stored in ``precision``; ``ids`` are special tokens'."""
    theirs = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "torch_dtype": precision}
    return {
        **({"model_type": _OWN_TYPE, _OWN_PRECISION: precision} if precision in OWN else theirs),
        "activation_function": config.activation,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "vocab_size": config.n_vocab,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
        "n_inner": config.n_inner,
        **{name: value for name, value in config.switches.items() if name in _SWITCHES},
        **ids,
    }


def _write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8", newline="\n")
