import re

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import convert, open_checkpoint

torch = needs.package("torch")


def save(path, checkpoint, *, bias=True, rows=None, **changes):
    """Save a checkpoint as nanoGPT's train.py does: linear layers ``[out, in]``, wte twice, torch.compile's prefix."""
    state = {}
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(".bias") and not bias:
            continue
        linear = tensor.ndim == 2 and name.startswith("h.")
        state[f"_orig_mod.transformer.{name}"] = torch.from_numpy((tensor.T if linear else tensor).copy())
    if rows:
        wte = state["_orig_mod.transformer.wte.weight"]
        state["_orig_mod.transformer.wte.weight"] = torch.cat([wte, torch.zeros(rows - len(wte), wte.shape[1])])
    state["_orig_mod.lm_head.weight"] = state["_orig_mod.transformer.wte.weight"]
    config = checkpoint.config
    arguments = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "bias": bias}
    arguments |= {"block_size": config.n_ctx, "vocab_size": rows or config.n_vocab, "dropout": 0.0}
    content = {"model": state, "model_args": arguments, "iter_num": 5, "best_val_loss": torch.tensor(3.0)}
    torch.save({**content, **changes}, path)
    return path


def test_linear_layers_are_transposed(tmp_path, make_checkpoint, same):
    made = make_checkpoint()
    read = open_checkpoint(save(tmp_path / "ckpt.pt", made), activation="gelu_new")
    same(read, made)
    assert read.format == "nanogpt"


def test_the_exact_gelu_is_assumed_in_one_line(tmp_path, make_checkpoint, caplog):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    assert open_checkpoint(path).config.activation == "gelu"
    assert [record.getMessage() for record in caplog.records] == [
        f"gpt2lab: {path}: nanoGPT does not record the activation, so gelu is assumed, which it has used since "
        "June 2023; older models need the activation gelu_new"
    ]
    caplog.clear()
    assert open_checkpoint(path, activation="gelu_new").config.activation == "gelu_new"
    assert not caplog.records


def test_an_activation_that_contradicts_the_format_is_refused(tmp_path, make_checkpoint):
    convert(make_checkpoint(), tmp_path / "hf")
    assert open_checkpoint(tmp_path / "hf", activation="gelu_new").config.activation == "gelu_new"
    with pytest.raises(CheckpointError, match="the file records the activation gelu_new, not gelu; leave out"):
        open_checkpoint(tmp_path / "hf", activation="gelu")


def test_a_head_of_its_own_is_used(tmp_path, make_checkpoint):
    made = make_checkpoint()
    path = save(tmp_path / "ckpt.pt", made)
    content = torch.load(path)
    head = torch.randn(23, 64)
    content["model"]["_orig_mod.lm_head.weight"] = head
    torch.save(content, path)
    read = open_checkpoint(path)
    assert not read.config.tie_word_embeddings
    np.testing.assert_array_equal(read.tensors["lm_head.weight"], head.numpy())
    np.testing.assert_array_equal(read.tensors["wte.weight"], made.tensors["wte.weight"])


def test_a_copy_of_the_embedding_is_no_head_of_its_own(tmp_path, make_checkpoint):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    content = torch.load(path)
    content["model"]["_orig_mod.lm_head.weight"] = content["model"]["_orig_mod.lm_head.weight"].clone()
    torch.save(content, path)
    assert open_checkpoint(path).config.tie_word_embeddings


def test_without_biases_they_are_zero(tmp_path, make_checkpoint):
    made = make_checkpoint()
    tensors = open_checkpoint(save(tmp_path / "ckpt.pt", made, bias=False)).tensors
    np.testing.assert_array_equal(tensors["h.1.attn.c_attn.bias"], np.zeros(192))
    np.testing.assert_array_equal(tensors["ln_f.weight"], made.tensors["ln_f.weight"])


def test_padding_of_gpt2s_vocabulary_is_left_out(tmp_path, make_checkpoint, same):
    made = make_checkpoint(ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1))
    same(open_checkpoint(save(tmp_path / "ckpt.pt", made, rows=50304), activation="gelu_new"), made)


@pytest.mark.parametrize("changes", [{"model": None}, {"model_args": {}}, {"model": {"wte.weight": 3}}])
def test_other_pickles_are_refused(tmp_path, make_checkpoint, changes):
    with pytest.raises(CheckpointError):
        open_checkpoint(save(tmp_path / "ckpt.pt", make_checkpoint(), **changes))


@pytest.mark.parametrize("kind", ["sparse", "repeated", "other dtype"])
def test_a_strange_head_is_refused_or_one_of_its_own(tmp_path, make_checkpoint, kind):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    content = torch.load(path)
    state, wte = content["model"], torch.ones(23, 64)
    strange = {"sparse": wte.to_sparse(), "repeated": torch.ones(1).expand(1 << 20, 1 << 20), "other dtype": wte.half()}
    state["_orig_mod.lm_head.weight"] = strange[kind]
    if kind != "other dtype":
        state["_orig_mod.transformer.wte.weight"] = strange[kind]
    torch.save(content, path)
    if kind == "other dtype":
        assert not open_checkpoint(path).config.tie_word_embeddings
        return
    with pytest.raises(CheckpointError, match="claims more values than the file has"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "shape"), [("h.0.attn.q_norm.weight", [8]), ("h.9.ln_1.weight", [8]), ("h.0.attn.c_attn.lora_A", [2, 8])]
)
def test_a_tensor_that_gpt2_lacks_is_refused_by_name(tmp_path, make_checkpoint, name, shape):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    content = torch.load(path)
    content["model"][f"transformer.{name}"] = torch.ones(shape)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"tensor {re.escape(name)} is not part of a GPT-2 of"):
        open_checkpoint(path)


def test_an_argument_of_a_changed_nanogpt_is_refused_with_its_value(tmp_path, make_checkpoint):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    content = torch.load(path)
    content["model_args"]["rope"] = True
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="model_args has rope = True"):
        open_checkpoint(path)


def test_biases_of_a_model_without_them_are_refused(tmp_path, make_checkpoint):
    path = save(tmp_path / "ckpt.pt", make_checkpoint())
    content = torch.load(path)
    content["model_args"]["bias"] = False
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"bias is False, but tensor h\.0\.ln_1\.bias is there"):
        open_checkpoint(path)
