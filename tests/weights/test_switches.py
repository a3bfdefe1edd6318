"""Models of GPT-2's family, as transformers writes them: read with their switches, and copied with all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import family
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.reference import forward
from gpt2lab.weights import convert, open_checkpoint

AutoModel = family.transformers.AutoModelForCausalLM


@family.EACH
def test_the_references_logits_are_transformers(switch, tmp_path):
    model = family.save(switch, tmp_path / "hf")
    checkpoint = open_checkpoint(tmp_path / "hf")
    found, _ = forward(dict(checkpoint.tensors), checkpoint.config, family.tokens())
    np.testing.assert_allclose(found, family.logits(model, family.tokens()), atol=1e-4, rtol=0)


@family.EACH
def test_each_switch_changes_logits_or_is_another_name(switch):
    """Otherwise the comparisons with transformers would show nothing."""
    plain = family.logits(family.make("gelu_pytorch_tanh"), family.tokens())
    found = family.logits(family.make(switch), family.tokens())
    same = switch in ("gelu_fast", "gelu_pytorch_tanh", "upcast")
    assert (np.abs(found - plain).max() < 1e-4) == same


@family.EACH
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_copy_keeps_the_switches(switch, precision, tmp_path):
    family.save(switch, tmp_path / "hf")
    checkpoint = open_checkpoint(tmp_path / "hf")
    convert(checkpoint, tmp_path / "copy", precision=precision)
    copy = open_checkpoint(tmp_path / "copy")
    assert copy.config == checkpoint.config
    assert list(copy.tensors) == list(checkpoint.tensors)


@family.EACH
def test_transformers_computes_the_same_from_a_copy(switch, tmp_path):
    model = family.save(switch, tmp_path / "hf")
    convert(open_checkpoint(tmp_path / "hf"), tmp_path / "copy")
    copy = AutoModel.from_pretrained(tmp_path / "copy", local_files_only=True).eval()
    np.testing.assert_allclose(
        family.logits(copy, family.tokens()), family.logits(model, family.tokens()), atol=1e-4, rtol=0
    )


def test_a_plain_models_config_json_names_no_switch(tmp_path):
    convert(open_checkpoint("tales"), tmp_path / "plain")
    written = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert not {"scale_attn_weights", "reorder_and_upcast_attn", "tie_word_embeddings"} & written.keys()
    assert ModelConfig().to_hparams() == {
        "n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12
    }  # fmt: skip


def test_an_inner_layer_of_the_usual_width_is_plain():
    assert ModelConfig(n_inner=3072) == ModelConfig()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation_function", "quick_gelu", "activation_function is 'quick_gelu'"),
        ("n_inner", 0, "n_inner must be a positive whole number below 2\\^31, got 0"),
        ("layer_norm_epsilon", 0.0, "layer_norm_epsilon must be .*, got 0.0"),
        ("scale_attn_weights", None, "scale_attn_weights must be true or false, got None"),
        ("tie_word_embeddings", "yes", "tie_word_embeddings must be true or false, got 'yes'"),
    ],
)
def test_values_that_no_gpt2_has_are_refused(key, value, message, tmp_path):
    family.save("gelu", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_an_untied_model_without_its_head_is_refused(tmp_path):
    family.save("gelu", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        open_checkpoint(tmp_path)


def test_an_activation_that_is_no_name_is_refused():
    with pytest.raises(ConfigError, match=r"activation must be one of gelu_new, .*, got 7"):
        ModelConfig(activation=7)
