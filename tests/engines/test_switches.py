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
        "float32": "a0d5e40c5c6cabc750bf5c09a7e7fbc903b85c404af5b3e1e55bc9f12a463975",
        "int8": "59d4150a7e20ff75452f7f6b1ae845415fd75464aee294816c50d7ffefab746d",
        "int4": "195834dd780a1f4ab96b0ee9429a895ebc62538dde7a7d41f5713575ec7862f3",
    },
    "relu": {
        "float32": "90ebc3d73273896eb3e1aca59f8aafd431eb77cfe6d7e6aecbe974749de80ffd",
        "int8": "16a5b804301238638f4cf3589cb22b1f0a8bcabac46ae3996bf7c709131ebb1e",
        "int4": "484f18d17460a5ebc959007bcd571b37e190895a6833b06b58f77a815fec1255",
    },
    "silu": {
        "float32": "75b1aed53265521cf40925a81b528de1473e3e3c71af4017f05ce910f0657549",
        "int8": "b15a2b18c12ce7a706934d86bad85cc37024c65334e626f236322c38f42c0798",
        "int4": "8f99180fc1926014b7c928263fe51f5abb7a3854173532adf2c732dd0af2a810",
    },
    "wide": {
        "float32": "c3d91169136e59847bf0b68f76880691aa1237adfb722ed87cd511e998b14477",
        "int8": "adb166d8249f798fb1275b566cfc3ad3a5bde35c7d1715ecc02ab8279afe466d",
        "int4": "c7c4284317c3d4e64fb21657b42212c54275676c4dc8649620163e24a2c12f10",
    },
    "narrow": {
        "float32": "3ab1f3f368205e572c073e444014125c1828b55fcb88a1e0f98f4b978fb8767c",
        "int8": "c340d4ec3b9ed18cc2a5fa29be540c52710e4ba023d5c6f7f65640049604ba2f",
        "int4": "0d83b751a4a0f070db231fd9283cd158a56e22496e596c18bb0258fcf3b37298",
    },
    "epsilon": {
        "float32": "04227b42017c4b3e9ebe05dcb2e16b2f368a1ec6db48423784a135a7f1c30aeb",
        "int8": "a603dd33649d997f27fd589297a1376ca61bf707a9fb584b9c00206f404f6366",
        "int4": "ecce855d1e306245a3b5124c5501bcc755a6e78306c2bd1b700d46a1469b21fd",
    },
    "unscaled": {
        "float32": "7ddd2265ee25a87ff9ca82d7f902f57b1c698a06f4a9013d3aab05ebe7312d2f",
        "int8": "85ebb27aca1bad487ad7743e0ff36222e2c9373d7b52400dcff23ef70f5d4876",
        "int4": "8c52c7e81ff583d1142d6913a17f8a2bacfb820c45003aa21e19407977737681",
    },
    "scaled by layer": {
        "float32": "d74b2f8b0ab96b4fd39804f4d5a7a96e9bcdc9f082aee9198149ab05cbc8d1eb",
        "int8": "85b7e2d467ee1ad895f2c6a9d8e8d5d3356822b4dda021ac4b9ab44e308b73de",
        "int4": "76020783b178f63f7adca817aa38ef90cc6945cf1e03cd4744b57d592ff1d4d7",
    },
    "untied": {
        "float32": "a8ad31e4e8b949651bc34f3aaad42258784feda34ce1cce01d9534b9cf893ab8",
        "int8": "1d0d3e04f17df2e2e21f0c2c478aac6a68b68f9cf5719edcaa7bb5d209c3e32d",
        "int4": "7caa9339136555cc4328ac71675a863a55400bd039574c948b069e3fff872d23",
    },
    "all": {
        "float32": "066ce79d7643f46f9c8fda51551ec721de0fb75433811c5eb3bbd9392dc6823e",
        "int8": "76d5f5e862ad5572cd7453c17c617c7620abaa33c7355cef71c61ec4860639e3",
        "int4": "5c94578e2e0df366a806e3b05231d64fc132500a6fc1327cae5cb06279c9cca8",
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
