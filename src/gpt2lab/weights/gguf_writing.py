"""Write GPT-2 in GGUF, named and shaped as by llama.cpp's converter, including the tokenizer.

Vectors and ``position_embd.weight`` stay float32, and a matrix whose rows are not a whole number of blocks becomes
float16, as in llama.cpp. ``gguf`` reads these files, ``gguf_file`` handles the container.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.errors import CheckpointError, one_line
from gpt2lab.system.paths import printable
from gpt2lab.tokenizer import SpecialTokens
from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, tensor_shapes
from gpt2lab.weights.gguf import (
    ACTIVATION_KEY,
    INVERSE_LAYER_KEY,
    PARTS,
    SCALE_KEY,
    UNTRANSPOSED,
    UPCAST_KEY,
    WHOLE,
)
from gpt2lab.weights.gguf_file import write_gguf_file
from gpt2lab.weights.gguf_tokenizer import STOP_KEYS, TEMPLATE_KEY, TOKENIZER_JSON_KEY, TokenType
from gpt2lab.weights.precisions import PRECISIONS, Precision
from gpt2lab.weights.vocabulary import check_encoder_ids, vocabulary_to_write
from gpt2lab.weights.writing import NewTensor, destination_file, encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32, "q8_0": 7, "q4_0": 2}
WRITABLE = tuple(_FILE_TYPES)
_TO_GGUF = {part: name for name, part in (PARTS | WHOLE).items()}
_UNKNOWN_TO_LLAMA_CPP = {
    "activation": ACTIVATION_KEY,
    "scale_attn_weights": SCALE_KEY,
    "scale_attn_by_inverse_layer_idx": INVERSE_LAYER_KEY,
}


def write_gguf(checkpoint: Checkpoint, path: Path, *, precision: str, overwrite: bool = False) -> None:
    """Write ``checkpoint`` as one file that :func:`gpt2lab.weights.gguf.read_gguf` and llama.cpp load.

    ``precision`` is that of the matrices, one of :data:`WRITABLE`. Only one tensor at a time is in memory. A warning is
    logged for what llama.cpp computes differently.
    """
    if precision not in WRITABLE:
        raise CheckpointError(f"a .gguf file holds {', '.join(WRITABLE)}; for {precision}, write a folder")
    chosen = PRECISIONS[precision]
    metadata = _model_metadata(checkpoint, chosen) | _tokenizer_metadata(checkpoint)
    _check_utf8(checkpoint.path, metadata)
    tensors = [_new_tensor(checkpoint, name, chosen) for name in tensor_shapes(checkpoint.config)]
    with destination_file(path, overwrite=overwrite) as out:
        write_gguf_file(out, metadata, tensors)
    for name, key in _UNKNOWN_TO_LLAMA_CPP.items():
        if name in checkpoint.config.switches:
            _warn(f"{path}: llama.cpp ignores {key} ({metadata[key]!r}) and computes other logits from this file")


def _check_utf8(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise :class:`CheckpointError` for a text that GGUF cannot hold, such as a token or a chat template."""
    for key, value in metadata.items():
        try:
            "".join(map(str, value if isinstance(value, list) else [value])).encode()
        except UnicodeEncodeError:
            raise CheckpointError(f"{path}: UTF-8 cannot encode {key}, as GGUF demands") from None


def _warn(line: str) -> None:
    logging.getLogger("gpt2lab").warning("gpt2lab: %s", one_line(line))


def _new_tensor(checkpoint: Checkpoint, name: str, wanted: Precision) -> NewTensor:
    shape = tensor_shapes(checkpoint.config)[name]
    transposed = len(shape) == 2 and name not in UNTRANSPOSED
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
    metadata = {
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
    if config.activation != "gelu_new":
        metadata[ACTIVATION_KEY] = config.activation
    if not config.scale_attn_weights:
        metadata[SCALE_KEY] = 1.0
    if config.scale_attn_by_inverse_layer_idx:
        metadata[INVERSE_LAYER_KEY] = True
    if config.reorder_and_upcast_attn:
        metadata[UPCAST_KEY] = True
    return metadata


def _tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the tokenizer's metadata; ids without a token become ``[PAD…]``: llama.cpp needs a name for each."""
    special, other = checkpoint.special, checkpoint.other_tokenizer
    if other is not None and other.json is not None:
        _warn(f"llama.cpp can use this file with token ids only: {other.why}")
        whole = {TOKENIZER_JSON_KEY: other.json} | _special_metadata(checkpoint, special, None)
        return {"tokenizer.ggml.model": "none", **whole}
    vocabulary = vocabulary_to_write(checkpoint)
    ids = _special_metadata(checkpoint, special, vocabulary)
    if vocabulary is None:
        return {"tokenizer.ggml.model": "none", **ids}
    tokens, types = _tokens(checkpoint, vocabulary)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        **ids,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in types],
        "tokenizer.ggml.merges": vocabulary.merges,
    }


def _tokens(checkpoint: Checkpoint, vocabulary: TokenizerFiles) -> tuple[list[str], list[TokenType]]:
    """Return the token of each of the model's ids, and its type."""
    n_vocab = checkpoint.config.n_vocab
    added = {token.content: token for token in checkpoint.special.added}
    without_row = {token.content for token in added.values() if token.id >= n_vocab}
    for content in sorted(without_row):
        _warn(f"the token {content!r} is left out: its id is {added[content].id}, but the model has only {n_vocab} ids")
    encoder = {token: id for token, id in vocabulary.encoder.items() if token not in without_row}
    tokens, types = [f"[PAD{id}]" for id in range(n_vocab)], [TokenType.UNUSED] * n_vocab
    for token, id in check_encoder_ids(checkpoint.path, encoder, n_vocab).items():
        tokens[id], types[id] = token, TokenType.NORMAL
        if token in added:
            types[id] = TokenType.CONTROL if added[token].special else TokenType.USER_DEFINED
        elif token == END_OF_TEXT_MARKER:
            types[id] = TokenType.CONTROL
    return tokens, types


def _special_metadata(
    checkpoint: Checkpoint, special: SpecialTokens, vocabulary: TokenizerFiles | None
) -> dict[str, Any]:
    """Return the ids of special tokens; ``<|endoftext|>`` begins and ends texts if the model's files do not say."""
    end_of_text = vocabulary.encoder.get(END_OF_TEXT_MARKER) if vocabulary else None
    eos = special.eos if special.eos is not None else () if end_of_text is None else (end_of_text,)
    if len(eos) > len(STOP_KEYS):
        raise CheckpointError(
            f"{checkpoint.path}: the model has {len(eos)} EOS ids, but a .gguf file holds only {len(STOP_KEYS)}"
        )
    bos = end_of_text if special.bos is None else special.bos
    others = {"bos": bos, "padding": special.pad, "unknown": special.unk}
    ids = {f"tokenizer.ggml.{role}_token_id": id for role, id in others.items()} | dict(zip(STOP_KEYS, eos))  # noqa: B905
    metadata: dict[str, Any] = {key: id for key, id in ids.items() if id is not None and id < checkpoint.config.n_vocab}
    for key, around, allowed in (
        ("tokenizer.ggml.add_bos_token", special.before, bos),
        ("tokenizer.ggml.add_eos_token", special.after, eos[0] if eos else None),
    ):
        if around and around != (allowed,):
            raise CheckpointError(
                f"{checkpoint.path}: its tokenizer puts the ids {list(around)} around texts, "
                "which a .gguf file cannot record"
            )
        if around:
            metadata[key] = True
    if special.chat_template is not None:
        metadata[TEMPLATE_KEY] = special.chat_template
    if special.more_templates:
        metadata["tokenizer.chat_templates"] = [name for name, _ in special.more_templates]
    return metadata | {f"{TEMPLATE_KEY}.{name}": text for name, text in special.more_templates}
