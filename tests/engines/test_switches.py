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
        "float32": "72ef5238ee5bf3adf4208687575187c46f95c44ae927f84440a71724fddbe2f8",
        "int8": "59d4150a7e20ff75452f7f6b1ae845415fd75464aee294816c50d7ffefab746d",
        "int4": "195834dd780a1f4ab96b0ee9429a895ebc62538dde7a7d41f5713575ec7862f3",
    },
    "relu": {
        "float32": "90ebc3d73273896eb3e1aca59f8aafd431eb77cfe6d7e6aecbe974749de80ffd",
        "int8": "16a5b804301238638f4cf3589cb22b1f0a8bcabac46ae3996bf7c709131ebb1e",
        "int4": "484f18d17460a5ebc959007bcd571b37e190895a6833b06b58f77a815fec1255",
    },
    "silu": {
        "float32": "cde386a94796e62e643224ff457978c6d7c7f1e3c9aae00d4fc21f20047139ab",
        "int8": "c7c9e7ec14a714b65e227c27df6f6d94d331300b3a31b29b4f47d8fd542eddfb",
        "int4": "b9796e1de9978f9be2bd2bf4833d91c4354ae8b54fb33bf4806b9da4c85c4c49",
    },
    "wide": {
        "float32": "5b522ffc38c4edbb00091eb6e3ab05cd317ad7fc6364352718728168a4f93a06",
        "int8": "665c2ed414cf09f444703ef0da85d3e7e0a5efb7c6844ccdf304e3542fbe9793",
        "int4": "6a8b84efde814f848af0685929cafe31a27ecc254e7ec18ad5510342468dcfd0",
    },
    "narrow": {
        "float32": "00aa4ba1d8771c768b78cc8f9c1a747b2f48251f2da6a4d98d3ccc4eeb44461d",
        "int8": "0889f162ed20a7d85a9a365afb881b58bb2b74f113d5be266fbab5512911f570",
        "int4": "3e349cc04200f53ef4b5ad68e470f8866288047e1b9f428977c37f5b17612e4d",
    },
    "epsilon": {
        "float32": "3b85c7a44dae90ce4ebefafd89db648b5be7b6dac38834f9cc3bbbc1862a883a",
        "int8": "417347e381a4278e3bde21f2f3c3d2fbfedc2bc9cabcd75b8553b0897db7d4d5",
        "int4": "e027a28427d40a8af7c3994662b6f068162d8ce919d92163715c88833e8df949",
    },
    "unscaled": {
        "float32": "c52e7a1c1d5d1ba8778b78a0af5a49c856d9e7f75f099142e3ccbafce09eb9d7",
        "int8": "fc13d23a2f9336bdfbb1c656c3d722e4877a692b92a8f75b32ab9a1a1f904803",
        "int4": "ae5d1353c8c29753eb17552235dcbbee86a923a2c6e6cc40926f5901d46f0f43",
    },
    "scaled by layer": {
        "float32": "a45b43acb702ec41c0d9a3984760e61de889f175fdafb07be14216b359d25c17",
        "int8": "195c296f930ba98ef748b34032dd96015f9c6cb3b869eae8a1d44d88b8010b32",
        "int4": "3e4c249906aedbdc09c2a4779e30c959d49de324d8c1a4f285173febe120fef8",
    },
    "untied": {
        "float32": "b6de7c3ff82f016d3d5069fca807eb3e91b1348353b03b1e736b2d81421a0d17",
        "int8": "6f30355064a9ad0e002bd406bdfcb5dec431da0c235fd2eb6d9f211ffd2c1189",
        "int4": "9979405c3b022457f50e4e6f3d53e9676aacfd804e8dad2789d29d89885ce40c",
    },
    "all": {
        "float32": "3d67ebf12e42af5d940ce4b915009edc300132b56086bbd7bda9fd6cb343db69",
        "int8": "76d5f5e862ad5572cd7453c17c617c7620abaa33c7355cef71c61ec4860639e3",
        "int4": "5245c9284fa74365b84f8ebdf0cb49572a2ea47fdda643d171f458e3c7151db4",
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
