"""GGUF files of GPT-2's family: switches, heads, special tokens and quantised weights, as their writers store them."""

import logging

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import AddedToken, SpecialTokens
from gpt2lab.weights import Checkpoint, TokenizerFiles, open_checkpoint, tensor_shapes
from gpt2lab.weights.gguf_writing import write_gguf

gguf = needs.package("gguf")
SHAPE = {"n_vocab": 23, "n_ctx": 7, "n_embd": 64, "n_head": 4, "n_layer": 2}
WORDS = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3, "<|user|>": 20, "word": 21}, ["a b"])
ADDED = (AddedToken("<|endoftext|>", 3), AddedToken("<|user|>", 20), AddedToken("word", 21, False, normalized=True))


@pytest.fixture
def written(tmp_path, make_checkpoint):
    def write(config=None, *, special=None, files=None, precision="float32"):
        made = make_checkpoint(config or ModelConfig(**SHAPE))
        made = Checkpoint(
            made.config, made.tensors, files, "test", "float32", tmp_path / "made", special=special or SpecialTokens()
        )
        write_gguf(made, tmp_path / "m.gguf", precision=precision, overwrite=True)
        return made, tmp_path / "m.gguf"

    return write


def fields(path):
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize(
    "switches",
    [
        {"activation": "gelu"},
        {"activation": "relu"},
        {"activation": "silu"},
        {"n_inner": 96},
        {"layer_norm_epsilon": 1e-6},
        {"layer_norm_epsilon": 1.25e-5},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_a_switch_comes_back(written, same, switches):
    made, path = written(ModelConfig(**SHAPE, **switches))
    assert made.config.switches == switches
    same(open_checkpoint(path), made)


def test_a_plain_model_has_only_keys_that_llama_cpp_knows(written):
    _, path = written()
    known = {f"gpt2.{name}" for name in ("vocab_size", "context_length", "embedding_length", "feed_forward_length")}
    known |= {"gpt2.block_count", "gpt2.attention.head_count", "gpt2.attention.layer_norm_epsilon"}
    assert {key for key in fields(path) if key.startswith("gpt2.")} == known


@pytest.mark.parametrize(
    ("switches", "key"),
    [
        ({"activation": "gelu"}, "gpt2.activation_function ('gelu')"),
        ({"scale_attn_by_inverse_layer_idx": True}, "gpt2.attention.scale_by_inverse_layer_idx (True)"),
        ({"scale_attn_weights": False}, "gpt2.attention.scale (1.0)"),
    ],
)
def test_writing_says_what_llama_cpp_ignores(written, caplog, switches, key):
    with caplog.at_level(logging.WARNING, "gpt2lab"):
        _, path = written(ModelConfig(**SHAPE, **switches))
    assert caplog.messages == [f"gpt2lab: {path}: llama.cpp ignores {key} and computes other logits from this file"]


@pytest.mark.parametrize("name", ["Cerebras-GPT-111M", "gpt-sw3-126m", "codeparrot-small", "alias-gpt2-small-x21"])
def test_a_name_of_a_family_that_differs_gives_a_line(tmp_path, make_checkpoint, name):
    made = make_checkpoint()
    made = Checkpoint(made.config, made.tensors, None, "test", "float32", tmp_path / name)
    write_gguf(made, tmp_path / "m.gguf", precision="float32")
    [note] = open_checkpoint(tmp_path / "m.gguf").notes
    assert note.startswith(f"m.gguf: general.name is '{name}', a model with ")


def test_a_family_that_differs_gives_no_line_if_the_file_records_the_activation(tmp_path, make_checkpoint):
    made = make_checkpoint(ModelConfig(**SHAPE, activation="gelu"))
    made = Checkpoint(made.config, made.tensors, None, "test", "float32", tmp_path / "Cerebras-GPT-111M")
    write_gguf(made, tmp_path / "m.gguf", precision="float32")
    assert open_checkpoint(tmp_path / "m.gguf").notes == ()


def test_an_output_matrix_of_its_own_is_used(written):
    made, path = written(ModelConfig(**SHAPE, tie_word_embeddings=False))
    names = [tensor.name for tensor in gguf.GGUFReader(path).tensors]
    assert names.count("output.weight") == 1
    read = open_checkpoint(path)
    np.testing.assert_array_equal(read.tensors["lm_head.weight"], made.tensors["lm_head.weight"])


@pytest.mark.parametrize("kind", ["F16", "F32", "Q8_0", "Q5_0"])
def test_an_output_matrix_is_the_embedding_if_all_values_are_equal(tmp_path, kind):
    embedding = np.random.default_rng(0).standard_normal((23, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[kind]
    stored = gguf.quants.quantize(embedding, kind)
    same = gguf.quants.dequantize(stored, kind)
    other = same.copy()
    other[22, 63] += 1
    for output, tied in ((same, True), (other, False)):
        path = model_of(tmp_path, {"token_embd.weight": (stored, kind), "output.weight": (output, None)})
        read = open_checkpoint(path)
        assert read.config.tie_word_embeddings is tied
        np.testing.assert_array_equal(read.tensors["wte.weight"], same)
        if not tied:
            np.testing.assert_array_equal(read.tensors["lm_head.weight"], other)


def model_of(folder, special, width=64):
    """Let the gguf package write a GPT-2; ``special`` maps names to items and their type, None for plain numbers."""
    config = ModelConfig(**{**SHAPE, "n_embd": width, "n_layer": 1})
    writer = gguf.GGUFWriter(folder / "theirs.gguf", "gpt2")
    writer.add_block_count(1)
    writer.add_context_length(7)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    random = np.random.default_rng(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 1)
    for name, shape in tensor_shapes(config).items():
        stored = shape[::-1] if len(shape) == 2 and name.startswith("h.") else shape
        theirs = names.get_name(f"transformer.{name}", (".weight", ".bias"))
        if theirs not in special:
            writer.add_tensor(theirs, random.standard_normal(stored, np.float32))
    for name, (items, kind) in special.items():
        writer.add_tensor(name, items, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "theirs.gguf"


# ---- quantised weights ----------------------------------------------------------------------------------------------

SCALES = {  # where float16 scales stand in a block whose other bytes may be anything
    **{
        "Q2_K": (80, 82),
        "Q3_K": (108,),
        "Q4_K": (0, 2),
        "Q5_K": (0, 2),
        "Q6_K": (208,),
        "IQ4_XS": (0,),
        "IQ4_NL": (0,),
    },
    **{"Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,)},
    **{"IQ3_S": (0,), "IQ1_S": (0,), "TQ1_0": (52,), "TQ2_0": (64,)},
}


def blocks(kind, rows, columns, seed=0):
    """Return a matrix whose blocks hold random bits and scales of a hundredth."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    items = np.random.default_rng(seed).integers(0, 256, (rows, columns // block, size), np.uint8)
    for at in SCALES[kind]:
        items[:, :, at : at + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    return items.reshape(rows, -1)


@pytest.mark.parametrize("kind", SCALES)
def test_every_type_gives_the_values_of_the_gguf_package(tmp_path, kind):
    number = gguf.GGMLQuantizationType[kind]
    embedding, matrix = blocks(kind, 23, 256), blocks(kind, 1024, 256, seed=1)
    special = {"token_embd.weight": (embedding, number), "blk.0.ffn_up.weight": (matrix, number)}
    read = open_checkpoint(model_of(tmp_path, special, width=256))
    np.testing.assert_array_equal(read.tensors["wte.weight"], gguf.quants.dequantize(embedding, number))
    np.testing.assert_array_equal(read.tensors["h.0.mlp.c_fc.weight"], gguf.quants.dequantize(matrix, number).T)
    assert read.tensors["h.0.mlp.c_fc.weight"].flags.c_contiguous
    assert read.notes == (f"theirs.gguf: weights in {kind} are decoded, and rounded again to the precision in use",)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = model_of(tmp_path, {"token_embd.weight": (blocks("Q5_0", 23, 64), gguf.GGMLQuantizationType.Q5_0)})
    monkeypatch.setattr("gpt2lab.weights.dequantization.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"weights in Q5_0 need the gguf package: pip install 'gpt2lab\[gguf\]'"):
        open_checkpoint(path)


@pytest.mark.parametrize(("kind", "item"), [("I32", np.int32), ("F64", np.float64), ("I8", np.int8)])
def test_a_type_that_holds_no_weights_is_named(tmp_path, kind, item):
    path = model_of(tmp_path, {"token_embd.weight": (np.ones((23, 64), item), None)})
    with pytest.raises(CheckpointError, match=rf"token_embd\.weight has type {kind}, which holds no weights"):
        open_checkpoint(path)


def test_a_scale_that_is_not_finite_is_reported_with_the_name_of_its_tensor(tmp_path):
    items = blocks("Q6_K", 23, 256)
    items[3, 208:210] = np.frombuffer(np.float16("inf").tobytes(), np.uint8)
    special = {"token_embd.weight": (items, gguf.GGMLQuantizationType.Q6_K)}
    read = open_checkpoint(model_of(tmp_path, special, width=256))
    with pytest.raises(CheckpointError, match=r"tensor wte\.weight has values that are NaN or infinite"):
        read.tensors["wte.weight"]


def test_precisions_are_those_of_all_matrices_if_they_are_mixed(tmp_path):
    special = {
        "token_embd.weight": (blocks("Q6_K", 23, 256), gguf.GGMLQuantizationType.Q6_K),
        "blk.0.ffn_up.weight": (blocks("Q4_K", 1024, 256), gguf.GGMLQuantizationType.Q4_K),
    }
    assert open_checkpoint(model_of(tmp_path, special, width=256)).precision == "float32, q4_k, q6_k"


# ---- special tokens -------------------------------------------------------------------------------------------------


def test_types_ids_and_template_are_written(written):
    special = SpecialTokens(ADDED, eos=(20, 3), bos=3, pad=20, unk=1, before=(3,), chat_template="{{ messages }}")
    _, path = written(special=special, files=WORDS)
    theirs = fields(path)
    types = theirs["tokenizer.ggml.token_type"]
    assert [types[id] for id in (0, 1, 2, 3, 4, 20, 21, 22)] == [1, 1, 1, 3, 5, 3, 4, 5]
    roles = {"eos": 20, "eot": 3, "bos": 3, "padding": 20, "unknown": 1}
    assert {role: theirs.get(f"tokenizer.ggml.{role}_token_id") for role in roles} == roles
    assert theirs["tokenizer.ggml.add_bos_token"] is True
    assert "tokenizer.ggml.add_eos_token" not in theirs
    assert theirs["tokenizer.chat_template"] == "{{ messages }}"


def test_special_tokens_come_back(written):
    special = SpecialTokens(
        ADDED, eos=(20, 3, 1), bos=3, pad=20, unk=1, before=(3,), after=(20,), chat_template="{{ x }}"
    )
    _, path = written(special=special, files=WORDS)
    read = open_checkpoint(path)
    assert (read.special, read.tokenizer_files) == (special, WORDS)


def test_end_of_text_is_the_end_where_the_model_does_not_say(written):
    _, path = written(files=WORDS)
    assert open_checkpoint(path).special == SpecialTokens((AddedToken("<|endoftext|>", 3),), eos=(3,), bos=3)


def test_a_token_without_a_row_is_left_out_with_a_line(written, caplog):
    padded = TokenizerFiles({**WORDS.encoder, "[PAD]": 23}, WORDS.merges)
    special = SpecialTokens((*ADDED, AddedToken("[PAD]", 23)), eos=(3,), bos=3, pad=23)
    with caplog.at_level(logging.WARNING, "gpt2lab"):
        _, path = written(special=special, files=padded)
    assert caplog.messages == ["gpt2lab: the token '[PAD]' is left out: its id is 23, but the model has only 23 ids"]
    read = open_checkpoint(path)
    assert (read.special, read.tokenizer_files) == (SpecialTokens(ADDED, eos=(3,), bos=3), WORDS)


@pytest.mark.parametrize(
    ("special", "message"),
    [
        (SpecialTokens(eos=(0, 1, 2, 3)), "4 EOS ids, but a .gguf file holds only 3"),
        (SpecialTokens(before=(1, 2), bos=1), r"puts the ids \[1, 2\] around texts"),
        (SpecialTokens(after=(2,), eos=(1,)), r"puts the ids \[2\] around texts"),
    ],
)
def test_what_a_file_cannot_say_is_refused(written, special, message):
    with pytest.raises(CheckpointError, match=message):
        written(special=special, files=WORDS)


def test_gpt2s_own_tokenizer_keeps_its_special_tokens(written):
    config = ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1)
    special = SpecialTokens((AddedToken("<|endoftext|>", 50256), AddedToken("Ġthe", 262)), eos=(262,), bos=50256)
    _, path = written(config, special=special)
    read = open_checkpoint(path)
    assert read.tokenizer_files is None
    assert set(read.special.added) == set(special.added)
    assert (read.special.eos, read.special.bos) == ((262,), 50256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.eot_token_id", -1, r"eot_token_id is -1"),
        ("tokenizer.ggml.bos_token_id", True, r"bos_token_id is True"),
        ("tokenizer.ggml.add_eos_token", True, r"add_eos_token is True, and eos_token_id is None"),
        ("tokenizer.chat_template", 3, r"tokenizer\.chat_template is 3, not a text"),
    ],
)
def test_metadata_that_cannot_be_obeyed_is_named(tmp_path, key, value, message, monkeypatch):
    def header(writer, real=gguf.GGUFWriter.write_header_to_file):
        kind = gguf.GGUFValueType.BOOL if value is True else gguf.GGUFValueType.INT32
        writer.add_key_value(key, value, kind)
        real(writer)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", header)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(model_of(tmp_path, {}))


def test_ids_that_the_model_does_not_have_are_none(tmp_path, monkeypatch):
    def header(writer, real=gguf.GGUFWriter.write_header_to_file):
        writer.add_eos_token_id(50256)
        writer.add_bos_token_id(50256)
        real(writer)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", header)
    assert open_checkpoint(model_of(tmp_path, {})).special == SpecialTokens()
