"""The engine on NumPy: a failed call leaves the sequences unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2lab.engines.protocol import Draw
from gpt2lab.engines.reference import ReferenceEngine
from gpt2lab.errors import ContextError, SamplingError
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights import open_checkpoint

GREEDY = Draw(SamplingParams(temperature=0), 0, 0, 0)


@pytest.fixture
def engine() -> ReferenceEngine:
    return ReferenceEngine(open_checkpoint(Path(__file__).parents[1] / "golden" / "odd"))


def test_a_call_that_fails_leaves_every_sequence_as_it_was(engine: ReferenceEngine) -> None:
    first, second = engine.new_sequence(), engine.new_sequence()
    engine.forward([first, second], [[1, 2], [3]])
    too_many = [4] * engine.config.n_ctx
    none_left = Draw(SamplingParams(logit_bias=dict.fromkeys(range(engine.config.n_vocab), float("-inf"))), 0, 0, 0)
    with pytest.raises(ContextError):
        engine.forward([first, second], [[4], too_many])
    with pytest.raises(ContextError):
        engine.step([first, second], [[4], too_many], [GREEDY, GREEDY])
    with pytest.raises(SamplingError):
        engine.step([first, second], [[4], [4]], [GREEDY, none_left])
    fresh = [engine.new_sequence(), engine.new_sequence()]
    expected = engine.forward(fresh, [[1, 2, 5], [3, 5]])
    np.testing.assert_allclose(engine.forward([first, second], [[5], [5]]), expected, atol=1e-5)
