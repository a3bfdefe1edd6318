from dataclasses import replace

import numpy as np
import pytest

from gpt2lab.errors import UsageError
from gpt2lab.reference import forward
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.checkpoint import tensor_shapes
from gpt2lab.weights.growing import grown

TINY = "tests/golden/tiny"


def logits(checkpoint, tokens):
    return forward(dict(checkpoint.tensors), checkpoint.config, tokens)[0]


@pytest.fixture
def tiny(golden):
    return open_checkpoint(golden / "tiny")


def test_new_layers_add_nothing_at_first(tiny):
    larger = grown(tiny, n_layer=2 * tiny.config.n_layer + 1)
    tokens = [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(logits(larger, tokens), logits(tiny, tokens))


def test_a_longer_context_leaves_the_beginning_as_it_is(tiny):
    larger = grown(tiny, n_ctx=2 * tiny.config.n_ctx + 1)
    tokens = [1, 2, 3]
    np.testing.assert_array_equal(logits(larger, tokens), logits(tiny, tokens))
    assert np.isfinite(logits(larger, [7] * larger.config.n_ctx)).all()


def test_every_tensor_has_the_shape_of_the_larger_model(tiny):
    larger = grown(tiny, n_layer=tiny.config.n_layer + 1, n_ctx=tiny.config.n_ctx + 3)
    wanted = replace(tiny.config, n_layer=tiny.config.n_layer + 1, n_ctx=tiny.config.n_ctx + 3)
    assert {name: tensor.shape for name, tensor in larger.tensors.items()} == tensor_shapes(wanted)


@pytest.mark.parametrize("shape", [{"n_layer": 1}, {"n_ctx": 2}])
def test_a_model_does_not_shrink(tiny, shape):
    with pytest.raises(UsageError, match=f"--{next(iter(shape))} must be at least \\d+, the value of"):
        grown(tiny, **shape)
