"""Hugging Face transformers reads the folders that we write, and we read those that it writes: same logits."""

import json

import numpy as np
import pytest

import needs
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights import convert, open_checkpoint

transformers = needs.package("transformers")
torch = needs.package("torch")


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_its_logits_on_our_folder_are_the_originals(tmp_path, golden, name):
    convert(open_checkpoint(golden / name), tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True)
    numbers = np.load(golden / name / "golden.npz")
    with torch.no_grad():
        logits = model(torch.from_numpy(numbers["full_tokens"])).logits.numpy()
    if name == "odd":
        np.testing.assert_allclose(logits, numbers["full_logits"], atol=1e-4)
    else:
        np.testing.assert_allclose(logits[:, -1], numbers["full_logits_last"], atol=1e-4)


def test_its_tokenizer_on_our_folder_gives_our_ids(tmp_path, golden):
    convert(open_checkpoint(golden / "tiny"), tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    lines = (golden / "bpe.jsonl").read_text(encoding="utf-8").splitlines()
    for text in [json.loads(line)["text"] for line in lines[:100]]:
        if "<|endoftext|>" not in text:
            assert theirs.encode(text) == Tokenizer.gpt2().encode(text)
    assert theirs.encode("a<|endoftext|>") == [64, 50256]
    assert theirs.eos_token_id == 50256


def test_a_model_it_saved_in_shards_is_read(tmp_path):
    config = transformers.GPT2Config(vocab_size=23, n_positions=7, n_embd=8, n_head=2, n_layer=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "hf", max_shard_size="3KB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file()
    read = open_checkpoint(tmp_path / "hf")
    state = model.state_dict()
    assert len(read.files) > 1
    for name, tensor in read.tensors.items():
        np.testing.assert_array_equal(tensor, state[f"transformer.{name}"].numpy())
