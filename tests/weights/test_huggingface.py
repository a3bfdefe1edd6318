import json

import numpy as np
import pytest
import safetensors.numpy

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import TokenizerFiles, open_checkpoint
from gpt2lab.weights.huggingface import write_huggingface
from gpt2lab.weights.vocabulary import check_merges, gpt2_vocabulary

CONFIG = {"model_type": "gpt2", "vocab_size": 23, "n_positions": 7, "n_embd": 64, "n_head": 4, "n_layer": 2}
GPT2_SHAPE = ModelConfig(n_vocab=50257, n_ctx=16, n_embd=8, n_head=2, n_layer=1)


@pytest.fixture
def folder(tmp_path):
    """Make a folder from a config, tensors by file, and other files."""

    def make(weights, config=None, **files):
        path = tmp_path / "hf"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
        for name, tensors in weights.items():
            safetensors.numpy.save_file(dict(tensors), path / name)
        for name, content in files.items():
            (path / name.replace("__", ".")).write_text(json.dumps(content))
        return path

    return make


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_round_trip(tmp_path, make_checkpoint, same, precision):
    made = make_checkpoint()
    write_huggingface(made, tmp_path / "hf", precision=precision)
    read = open_checkpoint(tmp_path / "hf")
    assert (read.format, read.precision) == ("huggingface", precision)
    if precision == "float32":
        same(read, made)
    else:
        for name, tensor in made.tensors.items():
            np.testing.assert_allclose(read.tensors[name], tensor, rtol=2**-8)


def test_the_safetensors_package_reads_what_is_written(tmp_path, make_checkpoint):
    made = make_checkpoint()
    write_huggingface(made, tmp_path / "hf", precision="float32")
    tensors = safetensors.numpy.load_file(tmp_path / "hf" / "model.safetensors")
    assert set(tensors) == {f"transformer.{name}" for name in made.tensors}
    np.testing.assert_array_equal(tensors["transformer.wpe.weight"], made.tensors["wpe.weight"])


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_names_with_and_without_prefix_and_old_buffers(folder, make_checkpoint, same, prefix):
    made = make_checkpoint()
    tensors = {prefix + name: tensor for name, tensor in made.tensors.items()}
    tensors[f"{prefix}h.0.attn.bias"] = np.ones((1, 1, 7, 7), np.uint8)
    tensors[f"{prefix}h.0.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = made.tensors["wte.weight"]
    same(open_checkpoint(folder({"model.safetensors": tensors})), made)


def test_shards_are_joined(folder, make_checkpoint, same):
    made = make_checkpoint()
    names = list(made.tensors)
    files = {f"model-{n}.safetensors": {name: made.tensors[name] for name in names[n::2]} for n in range(2)}
    index = {"weight_map": {name: file for file, tensors in files.items() for name in tensors}}
    path = folder(files, model__safetensors__index__json=index)
    read = open_checkpoint(path)
    same(read, made)
    assert {file.name for file in read.files} == {"model.safetensors.index.json", *files}


@pytest.mark.parametrize(
    "file",
    ["../model-0.safetensors", "/etc/passwd", "model.safetensors.index.json", "C:\\x.safetensors", "no.safetensors"],
)
def test_a_shard_index_that_leads_elsewhere_is_refused(folder, make_checkpoint, file):
    made = make_checkpoint()
    index = {"weight_map": dict.fromkeys(made.tensors, file)}
    with pytest.raises(CheckpointError):
        open_checkpoint(folder({"model-0.safetensors": made.tensors}, model__safetensors__index__json=index))


def test_an_index_that_promises_a_tensor_which_is_not_there(folder, make_checkpoint):
    made = make_checkpoint()
    index = {"weight_map": {**dict.fromkeys(made.tensors, "a.safetensors"), "h.9.ln_1.bias": "a.safetensors"}}
    with pytest.raises(CheckpointError, match=r"h\.9\.ln_1\.bias is not in a\.safetensors"):
        open_checkpoint(folder({"a.safetensors": made.tensors}, model__safetensors__index__json=index))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"activation_function": "relu6"}, "activation_function is 'relu6'"),
        ({"scale_attn_weights": 1}, "scale_attn_weights"),
        ({"scale_attn_by_inverse_layer_idx": "yes"}, "inverse_layer"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"n_inner": 100}, "c_fc.weight has shape"),
        ({"layer_norm_epsilon": 2.0}, "layer_norm_epsilon"),
        ({"n_layer": 10**9}, "too few"),
        ({"n_head": 5}, "multiple"),
        ({"vocab_size": None}, "n_vocab"),
        ({"n_layer": 1}, None),
        ({"n_inner": 256, "activation_function": "gelu_pytorch_tanh"}, None),
    ],
)
def test_configurations_that_are_computed_otherwise_are_refused(folder, make_checkpoint, changes, message):
    path = folder({"model.safetensors": make_checkpoint().tensors}, config=changes)
    if message is None:
        open_checkpoint(path)
        return
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("h.1.ln_2.bias"), r"h\.1\.ln_2\.bias is missing"),
        (lambda t: t.update({"wpe.weight": t["wpe.weight"].T.copy()}), r"wpe\.weight has shape \[64, 7\]"),
        (lambda t: t.update({"wpe.weight": t["wpe.weight"].astype(np.int64)}), "dtype I64"),
        (lambda t: t.update({"transformer.wte.weight": t["wte.weight"] + 1}), "occurs twice"),
        (lambda t: t.update({"lm_head.weight": t["wte.weight"] + 1}), "lm_head"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, make_checkpoint, change, message):
    tensors = dict(make_checkpoint().tensors)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder({"model.safetensors": tensors}))


def test_a_folder_without_weights_says_so(folder):
    with pytest.raises(CheckpointError, match="no weights"):
        open_checkpoint(folder({}))


def test_precisions_of_gguf_files_are_refused(tmp_path, make_checkpoint):
    with pytest.raises(CheckpointError, match=r"for q8_0, write a \.gguf file"):
        write_huggingface(make_checkpoint(), tmp_path / "hf", precision="q8_0")


def test_bin_files_are_read_with_torch(folder, make_checkpoint, same):
    torch = needs.package("torch")
    made = make_checkpoint()
    path = folder({})
    torch.save({f"transformer.{n}": torch.from_numpy(t) for n, t in made.tensors.items()}, path / "pytorch_model.bin")
    same(open_checkpoint(path), made)
    torch.save({n: torch.from_numpy(t).half() for n, t in made.tensors.items()}, path / "pytorch_model.bin")
    assert open_checkpoint(path).precision == "float16"


def test_bin_files_without_torch_say_what_to_do(folder, monkeypatch):
    path = folder({})
    (path / "pytorch_model.bin").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(CheckpointError, match="needs PyTorch"):
        open_checkpoint(path)


def test_a_pickle_that_would_run_code_is_refused(folder):
    torch = needs.package("torch")

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    path = folder({})
    torch.save({"wte.weight": Evil()}, path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="PyTorch cannot load it"):
        open_checkpoint(path)


def test_gpt2s_vocabulary_is_written_as_published_and_recognised(tmp_path, make_checkpoint):
    import hashlib

    from gpt2lab.weights.vocabulary import GPT2_ENCODER_SHA256, GPT2_MERGES_SHA256

    write_huggingface(make_checkpoint(GPT2_SHAPE), tmp_path / "hf", precision="float32")
    digest = {
        name: hashlib.sha256((tmp_path / "hf" / name).read_bytes()).hexdigest() for name in ("vocab.json", "merges.txt")
    }
    assert digest == {"vocab.json": GPT2_ENCODER_SHA256, "merges.txt": GPT2_MERGES_SHA256}
    assert open_checkpoint(tmp_path / "hf").tokenizer_files is None
    (tmp_path / "hf" / "vocab.json").unlink()
    assert open_checkpoint(tmp_path / "hf").tokenizer_files is None  # read from tokenizer.json


def test_own_vocabulary_round_trip_by_either_file(tmp_path, make_checkpoint):
    own = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])
    write_huggingface(make_checkpoint(tokenizer_files=own), tmp_path / "hf", precision="float32")
    assert open_checkpoint(tmp_path / "hf").tokenizer_files == own
    (tmp_path / "hf" / "merges.txt").unlink()
    assert open_checkpoint(tmp_path / "hf").tokenizer_files == own


def test_tokens_added_in_fine_tuning_join_gpt2s(folder, make_checkpoint):
    made = make_checkpoint(ModelConfig(n_vocab=50258, n_ctx=4, n_embd=4, n_head=1, n_layer=1))
    path = folder(
        {"model.safetensors": made.tensors},
        config={"vocab_size": 50258, "n_positions": 4, "n_embd": 4, "n_head": 1, "n_layer": 1},
        vocab__json=gpt2_vocabulary().encoder,
        added_tokens__json={"<|pad|>": 50257},
    )
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(gpt2_vocabulary().merges) + "\n")
    assert open_checkpoint(path).tokenizer_files.encoder["<|pad|>"] == 50257


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {"type": "WordPiece"}},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}},
        {"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}},
        {"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}},
        {
            "pre_tokenizer": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": [], "merges": []},
            "added_tokens": [1],
        },
    ],
)
def test_malformed_tokenizer_json_is_refused(folder, make_checkpoint, content):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: "):
        open_checkpoint(folder({"model.safetensors": make_checkpoint().tensors}, tokenizer__json=content))


def test_a_byte_order_mark_is_no_part_of_the_merges(tmp_path):
    assert check_merges(tmp_path, b"\xef\xbb\xbf#version: 0.2\na b\n") == ["a b"]
