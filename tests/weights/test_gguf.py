import re
import struct

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import TokenizerFiles, convert, open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of
from gpt2lab.weights.gguf_file import packed_strings, read_gguf_file, write_gguf_file
from gpt2lab.weights.gguf_writing import write_gguf
from gpt2lab.weights.precisions import PRECISIONS
from gpt2lab.weights.quantization import decode, encode
from gpt2lab.weights.vocabulary import gpt2_vocabulary
from gpt2lab.weights.writing import NewTensor

OWN = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])


@pytest.fixture
def written(tmp_path, make_checkpoint):
    def write(precision="float32", **made):
        checkpoint = make_checkpoint(**made)
        write_gguf(checkpoint, tmp_path / "m.gguf", precision=precision, overwrite=True)
        return checkpoint, tmp_path / "m.gguf"

    return write


def rewrite(path, change):
    """Write a file again after ``change(metadata, tensors)``."""
    file = read_gguf_file(path, {})
    metadata = {
        key: file.strings(key) if key.endswith(("tokens", "merges")) else value
        for key, value in file.metadata.items()
        if not key.endswith("token_type")
    }
    tensors = {
        name: NewTensor(name, tensor.shape, tensor.precision, lambda tensor=tensor: file.items(tensor).copy())
        for name, tensor in file.tensors.items()
    }
    change(metadata, tensors)
    other = path.with_name("changed.gguf")
    with other.open("wb") as out:
        write_gguf_file(out, metadata, list(tensors.values()))
    return other


def test_float32_round_trip_is_exact(written, same):
    made, path = written()
    read = open_checkpoint(path)
    same(read, made)
    assert (read.format, read.precision) == ("gguf", "float32")


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "q8_0", "q4_0"])
def test_other_precisions_round_matrices_and_keep_the_rest(written, precision):
    made, path = written(precision)
    read = open_checkpoint(path)
    assert read.precision == precision
    for name, tensor in made.tensors.items():
        if tensor.ndim == 1 or name == "wpe.weight":
            expected = tensor
        else:  # blocks run along the input, the second axis of a matrix in GGUF
            rows = tensor if name == "wte.weight" else tensor.T.copy()
            expected = decode(encode(rows, PRECISIONS[precision]), PRECISIONS[precision], rows.shape)
            expected = expected if name == "wte.weight" else expected.T
        np.testing.assert_array_equal(read.tensors[name], expected, err_msg=name)


def test_rows_that_are_no_whole_blocks_fall_back_to_float16(written):
    config = ModelConfig(n_vocab=23, n_ctx=7, n_embd=60, n_head=4, n_layer=1)
    made, path = written("q8_0", config=config)
    np.testing.assert_array_equal(
        open_checkpoint(path).tensors["wte.weight"], made.tensors["wte.weight"].astype(np.float16).astype(np.float32)
    )


def test_the_gguf_package_reads_what_llama_cpp_expects(written):
    gguf = needs.package("gguf")
    made, path = written("q8_0", tokenizer_files=OWN)
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()  # noqa: E731
    assert field("general.architecture") == "gpt2"
    assert field("general.file_type") == gguf.LlamaFileType.MOSTLY_Q8_0
    for key, value in (
        (gguf.Keys.LLM.CONTEXT_LENGTH, 7),
        (gguf.Keys.LLM.EMBEDDING_LENGTH, 64),
        (gguf.Keys.LLM.FEED_FORWARD_LENGTH, 256),
        (gguf.Keys.LLM.BLOCK_COUNT, 2),
        (gguf.Keys.Attention.HEAD_COUNT, 4),
        (gguf.Keys.Attention.LAYERNORM_EPS, pytest.approx(1e-5)),
    ):
        assert field(key.format(arch="gpt2")) == value
    assert field("tokenizer.ggml.model") == "gpt2"
    assert field("tokenizer.ggml.pre") == "gpt-2"
    assert field("tokenizer.ggml.tokens") == ["a", "b", "ab", "<|endoftext|>", *(f"[PAD{n}]" for n in range(4, 23))]
    assert field("tokenizer.ggml.token_type") == [1, 1, 1, 3] + [5] * 19
    assert field("tokenizer.ggml.merges") == ["a b"]
    assert field("tokenizer.ggml.eos_token_id") == 3
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    expected = {names.get_name(f"transformer.{name}", (".weight", ".bias")) for name in made.tensors}
    assert {tensor.name for tensor in reader.tensors} == expected
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors["blk.0.attn_qkv.weight"].shape.tolist() == [64, 192]
    assert tensors["blk.0.attn_qkv.weight"].tensor_type == gguf.GGMLQuantizationType.Q8_0
    assert tensors["position_embd.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    theirs = gguf.quants.quantize(made.tensors["h.0.attn.c_attn.weight"].T.copy(), gguf.GGMLQuantizationType.Q8_0)
    assert tensors["blk.0.attn_qkv.weight"].data.tobytes() == theirs.tobytes()


def test_a_file_by_the_gguf_package_is_read(tmp_path, make_checkpoint, same):
    gguf = needs.package("gguf")
    made = make_checkpoint(tokenizer_files=TokenizerFiles({chr(97 + n): n for n in range(23)}, ["a b"]))
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "gpt2")
    writer.add_block_count(2)
    writer.add_context_length(7)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(made.tokenizer_files.encoder))
    writer.add_token_types([1] * 23)
    writer.add_token_merges(made.tokenizer_files.merges)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    for name, tensor in made.tensors.items():
        stored = tensor.T.copy() if tensor.ndim == 2 and name.startswith("h.") else tensor
        writer.add_tensor(names.get_name(f"transformer.{name}", (".weight", ".bias")), stored)
    writer.add_tensor("output.weight", made.tensors["wte.weight"])  # as llama.cpp's converter did until 2024
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    same(open_checkpoint(tmp_path / "theirs.gguf"), made)


def test_gpt2s_own_tokenizer_is_recognised_and_not_parsed(written, monkeypatch):
    config = ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1)
    _, path = written(config=config)
    assert packed_strings(gpt2_vocabulary().merges) in path.read_bytes()
    monkeypatch.setattr("gpt2lab.weights.gguf_file.GgufFile.strings", None)
    assert open_checkpoint(path).tokenizer_files is None


def test_own_tokenizer_comes_back(written):
    _, path = written(tokenizer_files=OWN)
    assert open_checkpoint(path).tokenizer_files == OWN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "llama"}, "architecture 'llama'"),
        ({"gpt2.attention.layer_norm_epsilon": 0.0}, r"got 0\.0 \(gpt2\.attention\.layer_norm_epsilon\)"),
        ({"gpt2.feed_forward_length": 100}, "c_fc.weight has shape"),
        ({"gpt2.activation_function": "quick_gelu"}, "gpt2.activation_function is 'quick_gelu'; only gelu_new"),
        ({"gpt2.attention.scale": 0.125}, r"gpt2\.attention\.scale is 0\.125; only 0\.25"),
        ({"gpt2.block_count": 10**9}, "too few"),
        ({"gpt2.attention.head_count": 7}, "multiple"),
        ({"gpt2.context_length": "seven"}, r"n_ctx .* got 'seven' \(gpt2\.context_length\)"),
        ({"tokenizer.ggml.tokens": ["a"]}, "1 tokens"),
        ({"tokenizer.ggml.tokens": ["a"] * 23}, "occurs twice"),
        ({"tokenizer.ggml.merges": ["ab"]}, "two tokens"),
        ({"general.alignment": 0}, "alignment"),
    ],
)
def test_what_is_no_gpt2_is_refused(written, changes, message):
    _, path = written(tokenizer_files=OWN)
    changed = rewrite(path, lambda metadata, tensors: metadata.update(changes))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(changed)


def test_a_tensor_of_an_unknown_type_is_named(written):
    _, path = written()
    data = path.read_bytes()
    name = b"output_norm.bias" + struct.pack("<IQ", 1, 64)
    assert data.count(name + struct.pack("<I", 0)) == 1
    path.write_bytes(data.replace(name + struct.pack("<I", 0), name + struct.pack("<I", 31)))
    with pytest.raises(
        CheckpointError, match=r"output_norm\.bias has GGML type 31, which is unknown or no longer in use"
    ):
        open_checkpoint(path)


def test_a_string_that_is_not_utf_8_is_reported_with_the_byte_where_it_begins(tmp_path):
    path = tmp_path / "m.gguf"
    with path.open("wb") as out:
        write_gguf_file(out, {"key": "text"}, [])
    start = 24 + 8 + len("key") + 4  # after the header, the key, and the type of its value
    data = path.read_bytes()
    assert data[start:].startswith(struct.pack("<Q", 4) + b"text")
    path.write_bytes(data.replace(b"text", b"te\xfft"))
    with pytest.raises(CheckpointError, match=f"a string at byte {start} is not UTF-8"):
        read_gguf_file(path, {})


def test_nan_is_refused_when_quantised_and_nothing_is_left(tmp_path, make_checkpoint):
    made = make_checkpoint()
    made.tensors["h.1.mlp.c_fc.weight"][3, 3] = np.nan
    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight"):
        write_gguf(made, tmp_path / "m.gguf", precision="q8_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"tokenizer.ggml.model": "llama"}, "'llama' .*splits 'gpt-2'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "'gpt2' .*splits 'qwen2'"),
        ({"tokenizer.ggml.pre": "default"}, "'gpt2' .*splits 'default'"),
    ],
)
def test_another_tokenizer_is_named_and_leaves_the_model_to_token_ids(written, changes, found, caplog):
    _, path = written(tokenizer_files=OWN)
    read = open_checkpoint(rewrite(path, lambda metadata, tensors: metadata.update(changes)))
    assert tokenizer_of(read) is None
    assert re.search(rf"its tokenizer is {found} \(tokenizer\.ggml\.pre\); give the model's Hugging Face", caplog.text)


def test_a_file_without_an_epsilon_is_refused_as_in_llama_cpp(written):
    _, path = written()
    changed = rewrite(path, lambda metadata, tensors: metadata.pop("gpt2.attention.layer_norm_epsilon"))
    with pytest.raises(CheckpointError, match=r"got None \(gpt2\.attention\.layer_norm_epsilon\)"):
        open_checkpoint(changed)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"model": {"vocab": 3}}', '{"model": {"vocab": [[1, 2, 3]]}}'])
def test_a_malformed_tokenizer_json_is_refused_by_convert(written, tmp_path, text):
    _, path = written()
    changes = {"tokenizer.ggml.model": "none", "tokenizer.huggingface.json": text}
    changed = rewrite(path, lambda metadata, tensors: metadata.update(changes))
    with pytest.raises(CheckpointError, match=r"the text of its tokenizer\.json is malformed"):
        convert(open_checkpoint(changed), tmp_path / "hf")


@pytest.mark.parametrize("key", ["tokenizer.ggml.add_space_prefix", "tokenizer.ggml.normalizer.lowercase"])
def test_a_tokenizer_that_changes_texts_is_another_one(written, key):
    _, path = written(tokenizer_files=OWN)
    read = open_checkpoint(rewrite(path, lambda metadata, tensors: metadata.update({key: True})))
    assert read.other_tokenizer.why == f"{read.path}: {key} is True"


def test_gpt2s_vocabulary_is_not_assumed_where_the_end_of_a_text_is_another_id(written):
    _, path = written(config=ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1))
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.model", "tokenizer.ggml.pre")

    def change(metadata, tensors, end):
        for key in keys:
            del metadata[key]
        metadata["tokenizer.ggml.eos_token_id"] = end

    read = open_checkpoint(rewrite(path, lambda *parts: change(*parts, 2)))
    assert read.other_tokenizer.why.endswith(
        "eos_token_id is 2, so the vocabulary is not GPT-2's, and the file holds none"
    )
    assert open_checkpoint(rewrite(path, lambda *parts: change(*parts, 50256))).other_tokenizer is None


def test_a_padded_vocabulary_of_gpt2_is_gpt2s(written):
    config = ModelConfig(n_vocab=50304, n_ctx=4, n_embd=4, n_head=1, n_layer=1)
    _, path = written(config=config)
    assert open_checkpoint(path).tokenizer_files is None


def test_a_claimed_billion_tokens_takes_no_memory(written):
    _, path = written(tokenizer_files=OWN)
    data = path.read_bytes()
    key = b"tokenizer.ggml.tokens" + struct.pack("<II", 9, 8)
    at = data.index(key) + len(key)
    path.write_bytes(data[:at] + struct.pack("<Q", 1 << 30) + data[at + 8 :])
    with pytest.raises(CheckpointError, match="longer than the file"):
        open_checkpoint(path)


def test_a_file_that_names_no_splitting_has_gpt2s(written):
    _, path = written(tokenizer_files=OWN)
    read = open_checkpoint(rewrite(path, lambda metadata, tensors: metadata.pop("tokenizer.ggml.pre")))
    assert read.other_tokenizer is None
    assert read.tokenizer_files.merges == OWN.merges
