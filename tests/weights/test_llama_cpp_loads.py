"""llama.cpp computes the same logits from the GGUF files that we write.

Needs llama-cpp-python, which pip builds from source.
"""

import ctypes
import json
from dataclasses import replace

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.reference import forward
from gpt2lab.tokenizer import AddedToken, SpecialTokens, Tokenizer
from gpt2lab.weights import TokenizerFiles, convert, open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of

llama_cpp = needs.package("llama_cpp")
pytestmark = pytest.mark.nightly

F32 = 0  # ggml's number; keys and values are float16 otherwise


def load(path):
    return llama_cpp.Llama(str(path), n_ctx=0, n_threads=2, logits_all=True, type_k=F32, type_v=F32, verbose=False)


def logits(model, tokens):
    model.reset()
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def difference(path, tokens):
    """Return the largest difference of the logits, in units of their standard deviation."""
    checkpoint = open_checkpoint(path)
    ours = forward(dict(checkpoint.tensors), checkpoint.config, np.array(tokens))[0]
    return np.abs(logits(load(path), tokens) - ours).max() / ours.std()


@pytest.mark.parametrize("name", ["tiny", "odd"])
@pytest.mark.parametrize(("precision", "bound"), [("float32", 0.01), ("float16", 0.02), ("bfloat16", 0.1)])
def test_its_logits_are_ours_of_the_same_file(golden, tmp_path, name, precision, bound):
    # float32 differs by llama.cpp's table of GELU in float16; the others round activations, too
    convert(open_checkpoint(golden / name), tmp_path / "m.gguf", precision=precision)
    assert difference(tmp_path / "m.gguf", np.load(golden / name / "golden.npz")["full_tokens"][0].tolist()) < bound


@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_its_logits_are_ours_of_the_same_quantised_file(tmp_path, make_checkpoint, precision):
    # 64 wide at least: with rows of one block, llama.cpp 0.3.36's batched kernel (AMX) contradicts its own single one
    made = make_checkpoint(ModelConfig(n_vocab=1000, n_ctx=64, n_embd=128, n_head=4, n_layer=2))
    for name, tensor in made.tensors.items():
        tensor *= 0.1
        tensor += name.endswith(".weight") and ".ln_" in f".{name}"
    convert(made, tmp_path / "m.gguf", precision=precision)
    assert difference(tmp_path / "m.gguf", list(range(0, 1000, 25))) < 0.15


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_its_greedy_tokens_are_the_originals(golden, tmp_path, name):
    convert(open_checkpoint(golden / name), tmp_path / "m.gguf")
    numbers = np.load(golden / name / "golden.npz")
    model, tokens = load(tmp_path / "m.gguf"), numbers["greedy_prompt"][0].tolist()
    while len(tokens) < numbers["greedy_tokens"].shape[1]:
        tokens.append(int(logits(model, tokens)[-1].argmax()))
    assert tokens == numbers["greedy_tokens"][0].tolist()


def test_its_tokenizer_gives_our_ids(golden, tmp_path):
    convert(open_checkpoint(golden / "tiny"), tmp_path / "m.gguf")
    model = load(tmp_path / "m.gguf")
    differ = 0
    lines = (golden / "bpe.jsonl").read_text(encoding="utf-8").splitlines()
    for text in (json.loads(line)["text"] for line in lines):
        differ += model.tokenize(text.encode(), add_bos=False) != Tokenizer.gpt2().encode(text)
    assert differ == 0
    assert model.tokenize(b"a<|endoftext|>", add_bos=False, special=True) == [64, 50256]
    assert model.token_eos() == 50256


QUANTIZED = {  # llama.cpp's numbers of file types
    **{"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12},
    **{"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32},
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_weights_that_it_quantised_are_decoded_as_it_decodes_them(tmp_path, make_checkpoint, name):
    needs.package("gguf")
    made = make_checkpoint(ModelConfig(n_vocab=300, n_ctx=8, n_embd=256, n_head=4, n_layer=4))
    convert(made, tmp_path / "f32.gguf")
    for number, path in ((QUANTIZED[name], tmp_path / "m.gguf"), (0, tmp_path / "theirs.gguf")):
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype, how.nthread, how.allow_requantize = number, 1, True
        source = tmp_path / ("m.gguf" if number == 0 else "f32.gguf")
        assert llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(how)) == 0
    ours, theirs = open_checkpoint(tmp_path / "m.gguf"), open_checkpoint(tmp_path / "theirs.gguf")
    for tensor in theirs.tensors:  # decoded by llama.cpp to float32
        np.testing.assert_allclose(ours.tensors[tensor], theirs.tensors[tensor], rtol=1e-6, err_msg=tensor)
    assert theirs.precision == "float32"
    assert np.abs(ours.tensors["h.0.mlp.c_fc.weight"] - made.tensors["h.0.mlp.c_fc.weight"]).max() < 2
    assert (tmp_path / "m.gguf").stat().st_size <= 0.51 * (tmp_path / "f32.gguf").stat().st_size


def test_it_matches_our_added_tokens_and_stops_at_our_ids(tmp_path, make_checkpoint):
    vocabulary = Tokenizer.gpt2()
    tokens = ["<|user|>", "<|end|>", "tool_call"]
    files = TokenizerFiles(
        vocabulary.encoder() | {token: 50257 + n for n, token in enumerate(tokens)}, vocabulary.merges()
    )
    added = tuple(AddedToken(token, 50257 + n, token.startswith("<")) for n, token in enumerate(tokens))
    made = make_checkpoint(ModelConfig(n_vocab=50262, n_ctx=8, n_embd=32, n_head=2, n_layer=1), tokenizer_files=files)
    convert(replace(made, special=SpecialTokens(added, eos=(50258, 50257), bos=50256)), tmp_path / "m.gguf")
    model = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
    ours = tokenizer_of(open_checkpoint(tmp_path / "m.gguf"))
    for text in (
        "Hello, world",
        "<|user|>Hi<|end|>",
        "a<|endoftext|>b",
        "a tool_call b",
        "tool_calls, ünï 日本 \n\n x",
    ):
        for special in (False, True):
            theirs = model.tokenize(text.encode(), add_bos=False, special=special)
            assert theirs == ours.encode(text, special=special), (text, special)
    ends = {id for id in range(50262) if llama_cpp.llama_vocab_is_eog(model._model.vocab, id)}
    assert model.token_eos() == ours.eos[0] and set(ours.eos) <= ends
    assert ends - set(ours.eos) == {50256}, "it knows <|endoftext|> by its spelling"
