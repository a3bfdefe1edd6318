"""GGUF files, laid out as by llama.cpp's converter and quantiser, and written by the gguf package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import needs
from checkpoint_cases.registry import Written, logits_of, read, refused, tiny
from gpt2lab.weights import convert, open_checkpoint

CONVERTER, QUANTIZER = "llama.cpp's `convert_hf_to_gguf.py`", "llama.cpp's `llama-quantize`"
MATRICES = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
SCALES = {  # where the float16 scales of a block stand; its other bytes may be anything
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,)}
}


def gguf() -> Any:
    return needs.package("gguf")


def quantized(values: Any, kind: str) -> tuple[Any, Any]:
    """Return a matrix in a type of GGML, and the values that the gguf package decodes from it.

    The package cannot round to the types of :data:`SCALES`: their blocks get random bits and a small scale.
    """
    number = gguf().GGMLQuantizationType[kind]
    if kind not in SCALES:
        items = gguf().quants.quantize(values, number)
    else:
        block, size = gguf().GGML_QUANT_SIZES[number]
        random = np.random.default_rng(values.size)
        items = random.integers(0, 256, (values.shape[0], values.shape[1] // block, size), np.uint8)
        for at in SCALES[kind]:
            items[:, :, at : at + 2] = np.frombuffer(np.float16(0.005).tobytes(), np.uint8)
        items = items.reshape(values.shape[0], -1)
    return items, gguf().quants.dequantize(items, number)


def stored(model: Any, types: Mapping[str, str]) -> tuple[dict[str, Any], Any]:
    """Return name → items and type as in a GGUF file; give the model the values that these items mean.

    ``types`` maps the last part of a matrix's name to a type; others are F32.
    """
    torch = needs.package("torch")
    names = gguf().get_tensor_name_map(gguf().MODEL_ARCH.GPT2, model.config.n_layer)
    tensors = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            transposed = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
            values = (parameter.T if transposed else parameter).numpy().copy()
            theirs = names.get_name(name, (".weight", ".bias"))
            kind = types.get(theirs.split(".")[-2]) if values.ndim == 2 else None
            tensors[theirs] = (values, None)
            if kind:
                items, values = quantized(values, kind)
                tensors[theirs] = (items, gguf().GGMLQuantizationType[kind])
                parameter.copy_(torch.from_numpy(values.T if transposed else values))
    return tensors, model


def converted(
    path: Path,
    model: Any,
    types: Mapping[str, str] | None = None,
    *,
    architecture: str = "gpt2",
    change: Callable[[Any], None] = lambda writer: None,
    weights: bool = True,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a model as llama.cpp's converter does, after ``change(writer)``; ``more`` are additional tensors."""
    tensors, _ = stored(model, types or {})
    config = model.config
    writer = gguf().GGUFWriter(path, architecture, **options)
    writer.add_type("model")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("none")
    change(writer)
    for name, (items, kind) in {**tensors, **(more or {})}.items() if weights else ():
        writer.add_tensor(name, items, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wide(**config: Any) -> Any:
    """Return a model whose rows hold whole blocks of every type, with weights as small as a trained model's."""
    model = tiny(**{"n_embd": 256, "n_layer": 1, **config})
    for parameter in model.parameters():
        parameter.data *= 0.1
    return model


def file_of(folder: Path, types: Mapping[str, str], *says: str, model: Any = None) -> Written:
    model = model or wide()
    path = converted(folder / "m.gguf", model, types)
    return Written(path, logits_of(model), says=says)


@read("`.gguf` in F32", writer=CONVERTER, note="every value as it is stored")
def f32(folder: Path) -> Written:
    return file_of(folder, {})


@read("`.gguf` in F16 and BF16", writer=CONVERTER, note="every value as it is stored")
def halves(folder: Path) -> Written:
    return file_of(folder, {"token_embd": "F16", **dict.fromkeys(MATRICES[:2], "F16"), "ffn_up": "BF16"})


@read("`.gguf` in Q8_0", writer=CONVERTER, note="every value as it is stored")
def q8_0(folder: Path) -> Written:
    return file_of(folder, dict.fromkeys(("token_embd", *MATRICES), "Q8_0"))


@read("`.gguf` in Q4_0, with the embedding in Q6_K", writer=QUANTIZER, note="needs `gpt2lab[gguf]`")
def q4_0(folder: Path) -> Written:
    return file_of(folder, {"token_embd": "Q6_K", **dict.fromkeys(MATRICES, "Q4_0")}, "weights in Q6_K are decoded")


@read("`.gguf` in Q4_1, Q5_0 and Q5_1", writer=QUANTIZER, note="needs `gpt2lab[gguf]`")
def q5(folder: Path) -> Written:
    types = {"attn_qkv": "Q4_1", "attn_output": "Q5_0", "ffn_up": "Q5_1", "ffn_down": "Q4_1"}
    return file_of(folder, types, "weights in Q4_1, Q5_0 and Q5_1 are decoded, and rounded again")


@read("`.gguf` in Q2_K, Q3_K, Q4_K, Q5_K and Q6_K", writer=QUANTIZER, note="needs `gpt2lab[gguf]`")
def k_quants(folder: Path) -> Written:
    types = dict(zip(("token_embd", *MATRICES), ("Q6_K", "Q2_K", "Q3_K", "Q4_K", "Q5_K"), strict=True))
    return file_of(folder, types, "weights in Q2_K, Q3_K, Q4_K, Q5_K and Q6_K are decoded")


@read("`.gguf` in IQ4_NL and IQ4_XS", writer=QUANTIZER, note="needs `gpt2lab[gguf]`")
def iq4(folder: Path) -> Written:
    types = {"attn_qkv": "IQ4_NL", "attn_output": "IQ4_XS", "ffn_up": "IQ4_XS", "ffn_down": "IQ4_NL"}
    return file_of(folder, types, "weights in IQ4_NL and IQ4_XS are decoded")


@read("`.gguf` with an `output.weight` that equals the embedding", writer=f"{CONVERTER} until 2024", note="one matrix")
def tied(folder: Path) -> Written:
    model = wide()
    output = {"output.weight": (model.transformer.wte.weight.detach().numpy().copy(), None)}
    return Written(converted(folder / "m.gguf", model, more=output), logits_of(model))


@read("`.gguf` whose name belongs to a family that differs", writer=CONVERTER, note="as GPT-2; a note says so")
def cerebras(folder: Path) -> Written:
    model = wide()
    path = converted(folder / "m.gguf", model, change=lambda writer: writer.add_name("Cerebras GPT 111M"))
    says = ("general.name is 'Cerebras GPT 111M', a model with the exact GELU; the file does not record this",)
    return Written(path, logits_of(model), says=says)


@read("`.gguf` with an `output.weight` of its own", writer=CONVERTER, note="it is the output matrix")
def head(folder: Path) -> Written:
    return file_of(folder, {"token_embd": "F16"}, model=wide(tie_word_embeddings=False))


@read("`.gguf` with an `output.weight` in another type", writer=QUANTIZER, note="each matrix as it is stored")
def other_rounding(folder: Path) -> Written:
    model = wide(tie_word_embeddings=False)
    model.lm_head.weight.data.copy_(model.transformer.wte.weight.data)
    types = {"token_embd": "Q4_0", "output": "Q8_0", **dict.fromkeys(MATRICES, "Q4_0")}
    return file_of(folder, types, model=model)


@read("`.gguf` with another MLP width and epsilon", writer="gguf", note="as llama.cpp computes it")
def shape(folder: Path) -> Written:
    return file_of(folder, {}, model=wide(n_inner=320, layer_norm_epsilon=1e-6))


@read(
    "`.gguf` that records an activation and attention scaling",
    writer="gpt2lab",
    note="as recorded; llama.cpp ignores them",
)
def switches(folder: Path) -> Written:
    more = {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "n_layer": 2}
    model = wide(activation_function="gelu", **more)
    model.save_pretrained(folder / "hf")
    convert(open_checkpoint(folder / "hf"), folder / "m.gguf")
    return Written(folder / "m.gguf", logits_of(model))


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def with_tokenizer(folder: Path, before: bool = False) -> Any:
    """Let transformers save a byte-level tokenizer with added tokens; return it."""
    transformers, tokenizers = needs.package("transformers"), needs.package("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id for id, token in enumerate([*alphabet, "Ġw", "or", "<|endoftext|>"])}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("Ġ", "w"), ("o", "r")]))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    if before:
        ids = [("<|endoftext|>", vocabulary["<|endoftext|>"])]
        bpe.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B:1", special_tokens=ids
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|end|>", unk_token="<|endoftext|>"
    )
    tokenizer.add_tokens(["tool_call"])
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder)
    return tokenizer


def add_tokenizer(writer: Any, tokenizer: Any, folder: Path, n_vocab: int) -> None:
    """Add a tokenizer as llama.cpp's converter does: ``_set_vocab_gpt2`` in its ``base.py``."""
    kind, added = gguf().TokenType, tokenizer.added_tokens_decoder
    tokens, types = [f"[PAD{id}]" for id in range(n_vocab)], [kind.UNUSED] * n_vocab
    for token, id in tokenizer.get_vocab().items():
        tokens[id], types[id] = token, kind.NORMAL
        if id in added:
            types[id] = kind.CONTROL if added[id].special else kind.USER_DEFINED
    for key in list(writer.kv_data[0]):
        if key.startswith("tokenizer."):
            del writer.kv_data[0][key]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    gguf().SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)


def tokenized(folder: Path, before: bool = False) -> Written:
    tokenizer = with_tokenizer(folder / "hf", before)
    model = tiny(vocab_size=len(tokenizer) + 5, eos_token_id=tokenizer.eos_token_id)
    model.config.to_json_file(folder / "hf" / "config.json")
    path = converted(
        folder / "m.gguf",
        model,
        change=lambda writer: add_tokenizer(writer, tokenizer, folder / "hf", model.config.vocab_size),
    )
    ids = {text: tokenizer(text).input_ids for text in ("A word", "or tool_call", "tool_calls, ünï 日本", " w\n\n x")}
    return Written(path, logits_of(model), ids)


@read("`.gguf` with a tokenizer, added tokens and a chat template", writer=CONVERTER, note="token types are kept")
def added_tokens(folder: Path) -> Written:
    return tokenized(folder)


@read("`.gguf` with `add_bos_token`", writer=CONVERTER, note="every prompt begins with that token")
def bos(folder: Path) -> Written:
    return tokenized(folder, before=True)


@read("`.gguf` with a SentencePiece tokenizer", writer=CONVERTER, note="token ids only; a note says so")
def sentencepiece(folder: Path) -> Written:
    def change(writer: Any) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.model")
        writer.add_tokenizer_model("llama")

    model = tiny()
    return Written(converted(folder / "m.gguf", model, change=change), logits_of(model))


# ---- refused --------------------------------------------------------------------------------------------------------


@refused(
    "`.gguf` with an alignment that is not a power of two",
    writer="gguf",
    note="as in llama.cpp",
    says=("general.alignment must be a power of two as uint32, not 13",),
)
def alignment(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), change=lambda writer: writer.add_uint32("general.alignment", 13))


@refused(
    "`.gguf` with an alignment that is not a uint32",
    writer="gguf",
    note="as in llama.cpp",
    says=("general.alignment must be a power of two as uint32, not True as bool",),
)
def alignment_of_another_type(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), change=lambda writer: writer.add_bool("general.alignment", True))


@refused(
    "`.gguf` whose tensor has another type than its data",
    writer="gguf, by hand",
    note="its size contradicts the next offset",
    says=("the data of ", "a tensor's type or shape is wrong"),
)
def relabelled(folder: Path) -> Path:
    path = converted(folder / "m.gguf", tiny())
    data = path.read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(data[:at] + (1).to_bytes(4, "little") + data[at + 4 :])
    return path


@refused(
    "`.gguf` with a vocabulary and no weights",
    writer=f"{CONVERTER} `--vocab-only`",
    note="give the model",
    says=("holds a vocabulary without weights",),
)
def vocabulary(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), weights=False)


@refused(
    "`.gguf` in big-endian order",
    writer=f"{CONVERTER} `--bigendian`",
    note="convert it with `gguf-convert-endian`",
    says=("a big-endian GGUF file: convert it with 'gguf-convert-endian FILE little'",),
)
def big_endian(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), endianess=gguf().GGUFEndian.BIG)


@refused(
    "`.gguf` with a LoRA adapter",
    writer="llama.cpp's `convert_lora_to_gguf.py`",
    note="merge it into its base",
    says=("holds an adapter", "general.type is 'adapter'"),
)
def adapter(folder: Path) -> Path:
    def change(writer: Any) -> None:
        writer.kv_data[0].pop("general.type")
        writer.add_type("adapter")

    return converted(folder / "m.gguf", tiny(), change=change)


@refused(
    "a part of a split `.gguf`",
    writer="llama.cpp's `llama-gguf-split`",
    note="join the parts",
    says=("one of 3 parts (split.count)", "llama-gguf-split --merge"),
)
def part(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), change=lambda writer: writer.add_uint16("split.count", 3))


@refused(
    "`.gguf` of another kind of model",
    writer=CONVERTER,
    note="`general.architecture` is not `gpt2`",
    says=("holds a model of architecture 'llama', not gpt2",),
)
def another_model(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), architecture="llama")


@refused(
    "`.gguf` with a hyperparameter or a tensor that GPT-2 lacks",
    writer="gguf",
    note="as in llama.cpp",
    says=("gpt2.logit_scale is 0.5, but a GPT-2 has no such key",),
)
def unknown_key(folder: Path) -> Path:
    return converted(folder / "m.gguf", tiny(), change=lambda writer: writer.add_logit_scale(0.5))
