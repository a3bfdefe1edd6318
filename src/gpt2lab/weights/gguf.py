"""Read and write GPT-2 in GGUF, named and shaped as by llama.cpp's converter, including the tokenizer.

GGUF stores matrices ``[out, in]``, the transpose of the canonical ``[in, out]``; the output matrix is
``token_embd.weight`` itself. Vectors and ``position_embd.weight`` stay float32, and a matrix whose rows are not a whole
number of blocks becomes float16, as in llama.cpp. ``gguf_file`` handles the container.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.system.paths import printable
from gpt2lab.weights.checkpoint import (
    LAYER_NORM_EPSILON,
    Checkpoint,
    StoredTensor,
    Tensor,
    TokenizerFiles,
    check_tensors,
    config_from,
    tensor_shapes,
)
from gpt2lab.weights.gguf_file import GgufArray, GgufFile, GgufTensor, read_gguf_file, write_gguf_file
from gpt2lab.weights.quantization import PRECISIONS, Precision, decode, decode_transposed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

_TOKENS_SHA256 = "1b0b4d1f2288958613732175557fa89f8db2b619574bc7500c5b8cb8269c16ee"
_MERGES_SHA256 = "dca569b10de5f0a468dfe0d780bc5db55facb46b3bfbd8c29c9a18d3df1cac41"
_GPT2_STRINGS = {50257: (758791, _TOKENS_SHA256), 50000: (806304, _MERGES_SHA256)}

_FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32, "q8_0": 7, "q4_0": 2}
WRITABLE = tuple(_FILE_TYPES)
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # token types

_PARTS = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_WHOLE = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f"}
_TO_GGUF = {part: name for name, part in (_PARTS | _WHOLE).items()}


def read_gguf(path: Path) -> Checkpoint:
    """Open a ``.gguf`` file that holds a GPT-2. Raises :class:`CheckpointError` otherwise."""
    file = read_gguf_file(path, _GPT2_STRINGS)
    _check_kind(file)
    config = _config(file)
    stored = {}
    for name, tensor in file.tensors.items():
        canonical = _canonical_name(name)
        if canonical is not None:
            stored[canonical] = _stored_tensor(file, canonical, tensor)
        elif name != "output.weight":
            raise CheckpointError(f"{path}: tensor {name} is not part of a GPT-2")
    tensors = check_tensors(path, config, stored)
    if len(tensors) != len(stored):
        name = next(name for name in stored if name not in tensors)
        raise CheckpointError(f"{path}: tensor {_gguf_name(name)} is not part of a GPT-2 of {config.n_layer} layers")
    _check_tied(file)
    notes = _notes(path, file)
    return Checkpoint(
        config, tensors, _tokenizer_files(file, config), "gguf", _precision(file), path, (path,), notes=notes
    )


def _check_kind(file: GgufFile) -> None:
    """Raise :class:`CheckpointError` for a file that is no model, no GPT-2, or not all of one, and say what it is."""
    path, metadata = file.file.path, file.metadata
    if metadata.get("general.type", "model") != "model":
        base = metadata.get("general.base_model.0.name", "another model")
        raise CheckpointError(f"{path}: holds {metadata['general.type']!r} (general.type) for {base}, not a model")
    architecture = metadata.get("general.architecture")
    if architecture != "gpt2":
        raise CheckpointError(f"{path}: holds a model of architecture {architecture!r}, not gpt2")
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{path}: one of {metadata['split.count']} parts (split.count): join them with 'llama-gguf-split --merge'"
        )
    if not file.tensors:
        raise CheckpointError(f"{path}: holds a vocabulary without weights; give the model's own file")


def _config(file: GgufFile) -> ModelConfig:
    path, metadata = file.file.path, file.metadata
    embedding = file.tensors.get("token_embd.weight")
    values = {
        "n_vocab": embedding.shape[0] if embedding else None,
        "n_ctx": metadata.get("gpt2.context_length"),
        "n_embd": metadata.get("gpt2.embedding_length"),
        "n_head": metadata.get("gpt2.attention.head_count"),
        "n_layer": metadata.get("gpt2.block_count"),
    }
    config = config_from(path, values)
    _check_hyperparameters(file, config)
    return config


def _check_hyperparameters(file: GgufFile, config: ModelConfig) -> None:
    """Raise :class:`CheckpointError` for a ``gpt2.`` key whose value means another computation, or that is unknown."""
    required = {
        "vocab_size": config.n_vocab,
        "feed_forward_length": 4 * config.n_embd,
        "attention.layer_norm_epsilon": LAYER_NORM_EPSILON,
        "attention.head_count_kv": config.n_head,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.causal": True,
    }
    known = {"context_length", "embedding_length", "block_count", "attention.head_count"}
    for key, value in file.metadata.items():
        name = key.removeprefix("gpt2.")
        if name == key or name in known:
            continue
        if name not in required:
            raise CheckpointError(f"{file.file.path}: {key} is {value!r}, which is unknown for a GPT-2")
        expected = required[name]
        if type(value) is not type(expected) or not math.isclose(value, expected, rel_tol=1e-6):
            raise CheckpointError(f"{file.file.path}: {key} is {value!r}, only {expected!r} is supported")


def _notes(path: Path, file: GgufFile) -> tuple[str, ...]:
    names = sorted({tensor.precision.name for tensor in file.tensors.values()} - set(PRECISIONS))
    if not names:
        return ()
    listed = " and ".join(names).upper().replace("AND", "and")
    return (f"{path.name}: weights in {listed} are decoded, and rounded again to the precision in use",)


def _canonical_name(name: str) -> str | None:
    match = re.fullmatch(r"(?:blk\.(0|[1-9][0-9]{0,8})\.)?([a-z_]+)\.(weight|bias)", name)
    if not match:
        return None
    layer, part, kind = match.groups()
    if layer is None:
        return f"{_WHOLE[part]}.{kind}" if part in _WHOLE else None
    return f"h.{layer}.{_PARTS[part]}.{kind}" if part in _PARTS else None


def _stored_tensor(file: GgufFile, name: str, tensor: GgufTensor) -> StoredTensor:
    precision = tensor.precision
    transposed = len(tensor.shape) == 2 and name not in ("wte.weight", "wpe.weight")
    if precision.name not in PRECISIONS:
        return _foreign_tensor(file, name, tensor, transposed)

    def read() -> Tensor:
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
        return np.ascontiguousarray(values.T) if transposed else values

    return StoredTensor(tensor.shape[::-1] if transposed else tensor.shape, read)


def _check_tied(file: GgufFile) -> None:
    """Check that an ``output.weight``, which older converters wrote, equals the token embedding."""
    output, embedding = file.tensors.get("output.weight"), file.tensors["token_embd.weight"]
    if output is None:
        return
    same = (output.shape, output.precision) == (embedding.shape, embedding.precision)
    if not same or not np.array_equal(file.items(output).view("u1"), file.items(embedding).view("u1")):
        raise CheckpointError(f"{file.file.path}: output.weight differs from token_embd.weight; GPT-2 has one for both")


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


def _tokenizer_files(file: GgufFile, config: ModelConfig) -> TokenizerFiles | None:
    """Return the file's tokenizer, parsed only if it is not GPT-2's own."""
    path, metadata = file.file.path, file.metadata
    model, rule = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model in (None, "none", "no_vocab"):
        return None
    if model != "gpt2" or rule not in (None, "default", "gpt-2"):
        raise CheckpointError(f"{path}: its tokenizer ({model!r}, splitting {rule!r}) is not like GPT-2's")
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
    if isinstance(tokens, GgufArray) and isinstance(merges, GgufArray):
        if tokens.sha256 == _TOKENS_SHA256 and merges.sha256 == _MERGES_SHA256:
            return None
        if tokens.length != config.n_vocab:
            raise CheckpointError(f"{path}: its tokenizer has {tokens.length} tokens, its model {config.n_vocab}")
    from gpt2lab.weights.vocabulary import check_merge_lines  # readers of GPT-2's own start without it

    types = _token_types(file, config.n_vocab)
    named = {id: token for id, token in enumerate(file.strings("tokenizer.ggml.tokens")) if types[id] != _UNUSED}
    encoder = {token: id for id, token in named.items()}
    if len(encoder) != len(named):
        raise CheckpointError(f"{path}: a token occurs twice in its tokenizer")
    return TokenizerFiles(encoder, check_merge_lines(path, file.strings("tokenizer.ggml.merges")))


def _token_types(file: GgufFile, n_vocab: int) -> list[int]:
    array = file.metadata.get("tokenizer.ggml.token_type")
    if array is None:
        return [_NORMAL] * n_vocab
    if not isinstance(array, GgufArray) or array.type != 5 or array.length != n_vocab:
        raise CheckpointError(f"{file.file.path}: tokenizer.ggml.token_type must be {n_vocab} int32 numbers")
    types: list[int] = file.file.array(array.start, "<i4", (n_vocab,)).tolist()
    return types


def write_gguf(checkpoint: Checkpoint, path: Path, *, precision: str, overwrite: bool = False) -> None:
    """Write ``checkpoint`` as one file that :func:`read_gguf` and llama.cpp load.

    ``precision`` is that of the matrices, one of :data:`WRITABLE`. Only one tensor at a time is in memory.
    """
    if precision not in WRITABLE:
        raise CheckpointError(f"a .gguf file holds {', '.join(WRITABLE)}, not {precision}; a folder can")
    from gpt2lab.weights.writing import destination_file  # readers start without it

    chosen = PRECISIONS[precision]
    for name, value in checkpoint.config.switches.items():
        if name not in ("n_inner", "layer_norm_epsilon"):
            raise CheckpointError(f"a .gguf file cannot record {name} {value!r}; a Hugging Face folder can")
    metadata = _model_metadata(checkpoint, chosen) | _tokenizer_metadata(checkpoint)
    tensors = [_new_tensor(checkpoint, name, chosen) for name in tensor_shapes(checkpoint.config)]
    with destination_file(path, overwrite=overwrite) as out:
        write_gguf_file(out, metadata, tensors)


def _new_tensor(checkpoint: Checkpoint, name: str, wanted: Precision) -> NewTensor:
    from gpt2lab.weights.writing import NewTensor, encoded

    shape = tensor_shapes(checkpoint.config)[name]
    transposed = len(shape) == 2 and name not in ("wte.weight", "wpe.weight")
    stored_shape = shape[::-1] if transposed else shape
    precision = wanted
    if len(shape) == 1 or name == "wpe.weight":
        precision = PRECISIONS["float32"]
    elif stored_shape[-1] % wanted.block:
        precision = PRECISIONS["float16"]

    def items() -> NDArray[Any]:
        return encoded(checkpoint, name, precision, transposed=transposed)

    return NewTensor(_gguf_name(name), stored_shape, precision, items)


def _gguf_name(name: str) -> str:
    """Translate ``h.0.attn.c_attn.weight`` to ``blk.0.attn_qkv.weight``."""
    layer = re.match(r"h\.(\d+)\.", name)
    part, _, kind = name[layer.end() if layer else 0 :].rpartition(".")
    return (f"blk.{layer[1]}." if layer else "") + f"{_TO_GGUF[part]}.{kind}"


def _model_metadata(checkpoint: Checkpoint, precision: Precision) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "general.architecture": "gpt2",
        "general.name": printable(checkpoint.path.stem),
        "general.file_type": _FILE_TYPES[precision.name],
        "general.quantization_version": 2,
        "gpt2.vocab_size": config.n_vocab,
        "gpt2.context_length": config.n_ctx,
        "gpt2.embedding_length": config.n_embd,
        "gpt2.feed_forward_length": config.mlp_width,
        "gpt2.block_count": config.n_layer,
        "gpt2.attention.head_count": config.n_head,
        "gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }


def _tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the tokenizer's metadata; ids without a token become ``[PAD…]``: llama.cpp needs a name for each."""
    from gpt2lab.weights.vocabulary import check_encoder_ids, vocabulary_to_write

    vocabulary = vocabulary_to_write(checkpoint)
    if vocabulary is None:
        return {"tokenizer.ggml.model": "none"}
    n_vocab = checkpoint.config.n_vocab
    tokens, types = [f"[PAD{id}]" for id in range(n_vocab)], [_UNUSED] * n_vocab
    for token, id in check_encoder_ids(checkpoint.path, vocabulary.encoder, n_vocab).items():
        tokens[id], types[id] = token, _NORMAL
    metadata: dict[str, Any] = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2"}
    end_of_text = vocabulary.encoder.get(END_OF_TEXT_MARKER)
    if end_of_text is not None:
        types[end_of_text] = _CONTROL
        metadata |= {"tokenizer.ggml.bos_token_id": end_of_text, "tokenizer.ggml.eos_token_id": end_of_text}
    return metadata | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": vocabulary.merges,
    }
