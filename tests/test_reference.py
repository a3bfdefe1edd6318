"""The NumPy forward pass against the numbers of the original TensorFlow code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.errors import ContextError
from gpt2lab.reference import Weights, forward
from gpt2lab.weights import open_checkpoint

GOLDEN = Path(__file__).parent / "golden"


@dataclass
class Golden:
    config: ModelConfig
    weights: Weights
    numbers: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["tiny", "odd"])
def golden(request: pytest.FixtureRequest) -> Golden:
    checkpoint = open_checkpoint(str(GOLDEN / request.param))
    with np.load(GOLDEN / request.param / "golden.npz") as numbers:
        return Golden(checkpoint.config, dict(checkpoint.tensors), dict(numbers))


def test_logits_equal_the_originals(golden: Golden) -> None:
    for row, tokens in enumerate(golden.numbers["full_tokens"]):
        logits, _ = forward(golden.weights, golden.config, tokens)
        assert logits.dtype == np.float32 and logits.shape == (golden.config.n_ctx, golden.config.n_vocab)
        if "full_logits" in golden.numbers:
            np.testing.assert_allclose(logits, golden.numbers["full_logits"][row], rtol=0, atol=1e-4)
        else:
            np.testing.assert_allclose(logits[-1], golden.numbers["full_logits_last"][row], rtol=0, atol=1e-4)
            expected = golden.numbers["full_logits_slice"][row]
            np.testing.assert_allclose(logits[:, : expected.shape[1]], expected, rtol=0, atol=1e-4)


def test_present_equals_the_originals(golden: Golden) -> None:
    for tokens, expected in zip(golden.numbers["full_tokens"], golden.numbers["present"], strict=True):
        _, present = forward(golden.weights, golden.config, tokens[: expected.shape[-2]])
        assert present.dtype == np.float32 and present.shape == expected.shape
        np.testing.assert_allclose(present, expected, rtol=0, atol=1e-5)


def test_greedy_tokens_equal_the_originals_to_the_end_of_the_context(golden: Golden) -> None:
    tokens = golden.numbers["greedy_prompt"][0].tolist()
    logits, past = forward(golden.weights, golden.config, tokens)
    while len(tokens) < golden.config.n_ctx:
        tokens.append(int(logits[-1].argmax()))
        logits, present = forward(golden.weights, golden.config, tokens[-1:], past)
        past = np.concatenate([past, present], axis=-2)
    assert tokens == golden.numbers["greedy_tokens"][0].tolist()


@pytest.mark.parametrize("cuts", [[1], [7], [3, 4, 20], list(range(1, 30))])
def test_pieces_with_past_give_what_the_whole_gives(golden: Golden, cuts: list[int]) -> None:
    tokens = golden.numbers["full_tokens"][0][:32]
    whole, whole_present = forward(golden.weights, golden.config, tokens)
    past, pieces = None, []
    for piece in np.split(tokens, cuts):
        logits, present = forward(golden.weights, golden.config, piece, past)
        past = present if past is None else np.concatenate([past, present], axis=-2)
        pieces.append(logits)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=2e-5)
    np.testing.assert_allclose(past, whole_present, rtol=0, atol=1e-5)


def test_a_token_does_not_see_those_after_it(golden: Golden) -> None:
    first, second = (tokens.copy() for tokens in golden.numbers["full_tokens"])
    second[:10] = first[:10]
    one, _ = forward(golden.weights, golden.config, first)
    other, _ = forward(golden.weights, golden.config, second)
    np.testing.assert_allclose(one[:10], other[:10], rtol=0, atol=1e-5)
    assert np.abs(one[10:] - other[10:]).max() > 0.1


def test_more_tokens_than_the_context_are_refused(golden: Golden) -> None:
    full = golden.numbers["full_tokens"][0]
    _, past = forward(golden.weights, golden.config, full)
    with pytest.raises(ContextError, match=f"{golden.config.n_ctx + 1} tokens .* context of {golden.config.n_ctx}"):
        forward(golden.weights, golden.config, [*full, 0])
    with pytest.raises(ContextError, match="context"):
        forward(golden.weights, golden.config, [0], past)


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_that_are_no_tokens_are_refused(golden: Golden, token: int) -> None:
    with pytest.raises(ValueError, match="token ids must be"):
        forward(golden.weights, golden.config, [0, token])
