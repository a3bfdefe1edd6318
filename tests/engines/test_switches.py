"""The switches of GPT-2's family in the native engine: against transformers, and to the bit against the contract."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from formula import CONFIG, TOKENS, formula_checkpoint
from precision_cases import EXACT, ISAS, make, random_checkpoint

import family
from gpt2lab import contract
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.weights import open_checkpoint

SWITCHES = {
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "wide": {"n_inner": 330},
    "narrow": {"n_inner": 7},
    "epsilon": {"layer_norm_epsilon": 1e-6},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False},
    "all": {
        **{"activation": "gelu", "n_inner": 100, "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False},
        "scale_attn_by_inverse_layer_idx": True,
    },
}
LOGITS = {
    "gelu": {
        "float32": "135ddfdb8aaef14b79dd19a0306e443650a1f5cdcf117b233683407c73833cdf",
        "int8": "b3294e49060f9194f01ecb146d1c888d2a61b4ccd0f39cb7740effe27ecc4c62",
        "int4": "459ea746ea576bd0d7d7475d74f0c0de37df9fb088986a58375918fe1b11b55a",
    },
    "relu": {
        "float32": "c14053af45ad6f1f3d415190d8b505123a038beaa825d281547d8a215ad371df",
        "int8": "bb5b9572f293ecfa3308f7f2709de8de6f6b66a2befed7324fc325638067b93d",
        "int4": "08099f1c0d58fb04e8527739c7cc26fb9805a2dd25a813abf00c83d506eb3fc2",
    },
    "silu": {
        "float32": "93c7bc6732b08ba981d4e43ef7d33a464a800603a207b6b9acae06b7703f0ec2",
        "int8": "1d310f7928725d933f178c1c2f306a71e857fee2edf507835629705b02451a22",
        "int4": "b37a3bf72b30a203d9aab12728db870f4e3e4f5eef1c25d32a843b60b66d105a",
    },
    "wide": {
        "float32": "8abcbeef76e966cbd8e1f8a3914a739abf2f245cc55e2505449c3cd0d00c5ec5",
        "int8": "3ef98e2f4957fa8fd98d0f9d438707552ef68c838b6f7939b26bdbfff1d563cd",
        "int4": "36c1d272fe298c4cf2e4cabdd231483465066141b47d6894132cbbb18e594af6",
    },
    "narrow": {
        "float32": "fb0f4e4cc3795cb2d2e99f32c5ad5bbee08034d6a4b2d375be7ca7d373773ca9",
        "int8": "b6d24ec7f2aed03f313212d73913da738dc668bc968de1ba438dcad6a14207ea",
        "int4": "7396616cb0a4df27a7892fe6e7bf0a51fad17e1b4bf4276e941a1ff53012a8e0",
    },
    "epsilon": {
        "float32": "d660ee598b8e1b9ee5bbc3204f23641fb3fbe6322216bc3e69ca7d70c882cfd2",
        "int8": "ca16df35bce94b31b0a86ec8c9beefa59f7d9fd7aebb59f8ccfcc0d4d00aa5b6",
        "int4": "e8b6d70259666009e08a007560dcada8e2857b375b1a950d0e19dc2003ef8571",
    },
    "unscaled": {
        "float32": "b347dd790b95089c0f1da01d60157a88e97c472679ebe2dddf2449aac497de21",
        "int8": "d46e7f63acd3b85e31f936f5224fdcf37c9fa5b6fe663ee99187bd8c011e633d",
        "int4": "0bbaed0113af32269db701755db72526ff3fc0279e51b084e10bf6bbba8c53dd",
    },
    "scaled by layer": {
        "float32": "9c64de01b548dea3f62c4a94f0e8d1b974f2f9fa4d987264caf18514816fde04",
        "int8": "d985983e96e05446fe1cd680b92c86a38718b7835c6c109278b0fd63a6018355",
        "int4": "d7d52188d21017ffeb39e3209e310958619de810ab33a3ada73fbc842090f5b2",
    },
    "untied": {
        "float32": "885987674826adef8f80b6cccb46d8b126367581adbdf237b032ccf721c0f34c",
        "int8": "52d330da87e56b14c1a8f2b192a6e1b7d98d4434669e207742d59b3680b7aee7",
        "int4": "34e59052e811c94f766494a313046fcd8b5566287c27e9f6b260b541de7596dd",
    },
    "all": {
        "float32": "7a3fc72a484ec29fa49c18487345206d0d6e696458cb81c2f28bb2c7b38388da",
        "int8": "e973ec5343dd8a0d4d4fac541e15b55b0bb1238d3d587341a0c842eaf9e5b8e8",
        "int4": "7c615634eaf0b80ba8098f8165f1c5dc898599b36d61af8faab8c87b39aa3db0",
    },
}
"""The SHA-256 of the logits after each of the formula model's tokens, with each switch, on every processor."""


@family.EACH
def test_logits_are_transformers(switch, tmp_path):
    model = family.save(switch, tmp_path)
    engine = NativeEngine(open_checkpoint(tmp_path), precision="float32", threads=2)
    found = engine.forward([engine.new_sequence()], [family.tokens()], "all")
    np.testing.assert_allclose(found, family.logits(model, family.tokens()), atol=1e-4, rtol=0)


@functools.cache
def formula(switch: str, precision: str):
    """Return a model of numbers made from integers, with this switch, and the contract's logits of some tokens."""
    checkpoint = formula_checkpoint(replace(CONFIG, **SWITCHES[switch]))
    tokens = TOKENS[:40]
    return checkpoint, tokens, contract.forward(checkpoint.tensors, checkpoint.config, tokens, precision=precision)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("switch", SWITCHES)
def test_logits_are_the_contracts_however_they_are_fed(switch, precision, isa):
    checkpoint, tokens, expected = formula(switch, precision)
    engine = make(checkpoint, isa, precision, "float32", threads=2)
    together = engine.forward([engine.new_sequence()], [tokens], "all")
    alone = engine.new_sequence()
    one_by_one = np.concatenate([engine.forward([alone], [[token]], "all") for token in tokens])
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(one_by_one, expected)


@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("switch", SWITCHES)
def test_the_contracts_logits_have_not_changed(switch, precision):
    _, _, logits = formula(switch, precision)
    assert hashlib.sha256(logits.tobytes()).hexdigest() == LOGITS[switch][precision]


@pytest.mark.parametrize("activation", contract.ACTIVATIONS)
def test_activations_are_exact_to_a_few_units_in_the_last_place(activation):
    from gpt2lab import reference

    x = np.arange(-16, 16, 0.001).astype(np.float32)
    exact = reference.ACTIVATIONS[activation](x.astype(np.float64))
    np.testing.assert_allclose(contract.ACTIVATIONS[activation](x), exact, rtol=2e-7, atol=2.5e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_wide_inner_layer_runs_in_every_precision(precision, isa):
    """Its width needs more blocks of inputs than four times the width of the residual stream."""
    checkpoint = random_checkpoint(ModelConfig(n_vocab=50, n_ctx=20, n_embd=16, n_head=2, n_layer=1, n_inner=900))
    engine, exact = make(checkpoint, isa, precision), make(checkpoint, isa, "float32")
    tokens = list(range(20))
    found = engine.forward([engine.new_sequence()], [tokens], "all")
    expected = exact.forward([exact.new_sequence()], [tokens], "all")
    np.testing.assert_allclose(found, expected, atol=0.1)
