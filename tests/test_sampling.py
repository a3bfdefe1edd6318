"""The rules of sampling: golden masks, properties of the stages, and draws that follow the distribution."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__

from gpt2lab.errors import SamplingError
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import distribution, draw, logprob, philox4x32, sample, stages, uniform

GOLDEN = Path(__file__).parent / "golden"
TEMPERATURES = [0, 1e-300, 1e-30, 0.5, 1, 1.1, 1.2, 1.3, 2, 100, 1e30, 1e300]

logit_rows = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40).map(np.array)
with_ties_and_gaps = st.lists(st.sampled_from([-math.inf, -2.0, 0.0, 0.5, 3.0]), min_size=1, max_size=40).map(np.array)
rows = logit_rows | with_ties_and_gaps.filter(lambda row: bool(np.isfinite(row).any()))
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from(TEMPERATURES) | st.floats(0, 10),
    top_k=st.integers(0, 60),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
)


def softmax(logits: Any, temperature: float = 1.0) -> np.ndarray:
    z = np.asarray(logits, dtype=np.float64) / temperature
    e = np.exp(z - z.max())
    return e / e.sum()


def kept(logits: Any, **arguments: Any) -> list[int]:
    return np.flatnonzero(distribution(logits, SamplingParams(**arguments))).tolist()


# ---- golden masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny", "odd"])
@pytest.mark.parametrize("name", ["top_k_1", "top_k_5", "top_k_40", "top_p_0.1", "top_p_0.5", "top_p_0.9"])
def test_filters_keep_what_the_original_keeps(model: str, name: str) -> None:
    parameter, value = name.rsplit("_", 1)
    chosen = SamplingParams(**{parameter: float(value) if parameter == "top_p" else int(value)})
    with np.load(GOLDEN / model / "golden.npz") as golden:
        for logits, mask in zip(golden["filter_in"], golden[name], strict=True):
            np.testing.assert_array_equal(distribution(logits, chosen) > 0, mask)
            np.testing.assert_array_equal(stages(logits, chosen)[-1].logits > -np.inf, mask)


# ---- each stage -----------------------------------------------------------------------------------------------------


@given(rows, params, st.data())
def test_any_parameters_give_a_distribution(logits: np.ndarray, chosen: SamplingParams, data: st.DataObject) -> None:
    history = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=20))
    probabilities = distribution(logits, chosen, history)
    assert probabilities.dtype == np.float64 and probabilities.shape == logits.shape
    assert np.isfinite(probabilities).all() and (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities[np.isneginf(logits)] == 0).all()


@given(rows)
def test_the_defaults_are_the_models_own_distribution(logits: np.ndarray) -> None:
    assert [stage.name for stage in stages(logits, SamplingParams())] == ["model"]
    np.testing.assert_allclose(distribution(logits, SamplingParams()), softmax(logits), rtol=1e-12)


@given(logit_rows, st.sampled_from([0.5, 1, 1.1, 1.2, 1.3, 2, 100]))
def test_temperature_is_softmax_of_the_quotient(logits: np.ndarray, temperature: float) -> None:
    actual = distribution(logits, SamplingParams(temperature=temperature))
    np.testing.assert_allclose(actual, softmax(logits, temperature), rtol=1e-9)


@given(rows, params)
def test_temperature_0_takes_the_most_likely_token_and_the_lowest_id_on_ties(
    logits: np.ndarray, chosen: SamplingParams
) -> None:
    greedy = SamplingParams(temperature=0, top_k=chosen.top_k, top_p=chosen.top_p, min_p=chosen.min_p)
    expected = np.zeros(len(logits))
    expected[np.argmax(logits)] = 1
    np.testing.assert_array_equal(distribution(logits, greedy), expected)


@pytest.mark.parametrize("logits", [[0.0, 700.0, -700.0, 3.4e38, -3.4e38, 3.3e38], [1e308, -1e308, 0.0]])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.filterwarnings("error")
def test_extreme_temperatures_and_logits_neither_overflow_nor_warn(logits: list[float], temperature: float) -> None:
    probabilities = distribution(logits, SamplingParams(temperature=temperature))
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[np.argmax(logits)] == probabilities.max()


def test_a_tiny_temperature_leaves_the_ties_of_the_maximum() -> None:
    probabilities = distribution([1.0, 5.0, 5.0, 4.999], SamplingParams(temperature=1e-30))
    assert probabilities.tolist() == [0, 0.5, 0.5, 0]


def test_a_huge_temperature_makes_all_tokens_alike_but_those_ruled_out() -> None:
    probabilities = distribution([1.0, -math.inf, 5.0, 0.0], SamplingParams(temperature=1e30))
    np.testing.assert_allclose(probabilities, [1 / 3, 0, 1 / 3, 1 / 3])


@given(rows, st.integers(1, 60))
def test_top_k_keeps_k_tokens_and_the_ties_of_the_kth(logits: np.ndarray, k: int) -> None:
    survivors = set(kept(logits, top_k=k))
    possible = set(np.flatnonzero(softmax(logits)).tolist())
    threshold = np.sort(logits)[::-1][min(k, len(logits)) - 1]
    assert survivors == {token for token in possible if logits[token] >= threshold}


def test_top_k_1_keeps_ties_where_temperature_0_does_not() -> None:
    assert kept([1.0, 3.0, 3.0], top_k=1) == [1, 2]
    assert kept([1.0, 3.0, 3.0], temperature=0) == [1]


@given(rows, st.integers(0, 5))
def test_top_k_of_0_or_beyond_the_vocabulary_is_off(logits: np.ndarray, beyond: int) -> None:
    for k in (0, len(logits) + beyond, 10**9):
        assert [stage.name for stage in stages(logits, SamplingParams(top_k=k))] == ["model"]


@given(rows, st.floats(0, 1, exclude_max=True))
def test_top_p_is_the_smallest_set_of_most_likely_tokens_that_reaches_p(logits: np.ndarray, p: float) -> None:
    probabilities = softmax(logits)
    survivors = kept(logits, top_p=p)
    total = probabilities[survivors].sum()
    assert total >= p - 1e-12
    last = min(survivors, key=lambda token: (logits[token], -token))
    assert total - probabilities[last] < p + 1e-12 or len(survivors) == 1
    dropped = set(range(len(logits))) - set(survivors)
    assert all((logits[token], -token) < (logits[last], -last) for token in dropped)


@given(rows, st.sampled_from([0, 5e-324, 1e-9]))
def test_top_p_towards_0_keeps_the_one_most_likely_token(logits: np.ndarray, p: float) -> None:
    assert kept(logits, top_p=p) == [int(np.argmax(logits))]


@given(rows)
def test_top_p_1_is_off(logits: np.ndarray) -> None:
    assert [stage.name for stage in stages(logits, SamplingParams(top_p=1))] == ["model"]


def test_top_p_keeps_the_token_that_crosses_p_and_stops_where_p_is_met_exactly() -> None:
    logits = np.log([0.5, 0.25, 0.125, 0.125])
    assert kept(logits, top_p=0.6) == [0, 1]
    assert kept([0.0, 0.0, 0.0, 0.0], top_p=0.5) == [0, 1]


def test_top_p_works_on_what_top_k_left_renormalised() -> None:
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    assert kept(logits, top_p=0.5) == [0, 1]
    assert kept(logits, top_k=2, top_p=0.5) == [0]  # 0.4 of 0.7 is more than half


@given(rows, st.floats(0, 1))
def test_min_p_drops_what_is_less_likely_than_that_share_of_the_maximum(logits: np.ndarray, min_p: float) -> None:
    probabilities = softmax(logits)
    share = probabilities / probabilities.max()
    assume(not np.isclose(share, min_p, rtol=1e-9, atol=0).any() or min_p in (0, 1))
    assert kept(logits, min_p=min_p) == np.flatnonzero((probabilities > 0) & (share >= min_p)).tolist()


def test_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    stage = stages([2.0, -2.0, 2.0, 0.0], SamplingParams(repetition_penalty=4), history=[0, 1, 1, 3])[-1]
    assert stage.name == "penalties"
    assert stage.logits.tolist() == [0.5, -8.0, 2.0, 0.0]


def test_presence_penalty_counts_once_and_frequency_penalty_every_time() -> None:
    chosen = SamplingParams(presence_penalty=1, frequency_penalty=0.5)
    assert stages([5.0, 5.0, 5.0], chosen, history=[1, 2, 2, 2])[-1].logits.tolist() == [5.0, 3.5, 2.5]


def test_penalties_without_a_history_change_nothing() -> None:
    chosen = SamplingParams(repetition_penalty=2, presence_penalty=1, frequency_penalty=1)
    assert stages([5.0, -5.0], chosen)[-1].logits.tolist() == [5.0, -5.0]


def test_logit_bias_adds_and_minus_infinity_rules_out() -> None:
    stage = stages([1.0, 2.0, 3.0], SamplingParams(logit_bias={0: 2.5, 2: -math.inf}))[-1]
    assert stage.logits.tolist() == [3.5, 2.0, -math.inf]
    assert stage.probabilities[2] == 0


def test_stages_come_in_the_documented_order_each_renormalised() -> None:
    chosen = SamplingParams(0.5, 4, 0.9, 0.2, 1.1, 0.1, 0.1, {1: 1.0})
    result = stages(np.linspace(0, 3, 9), chosen, history=[8])
    names = ["model", "logit_bias", "penalties", "temperature", "top_k", "top_p", "min_p"]
    assert [stage.name for stage in result] == names
    for stage in result:
        np.testing.assert_allclose(stage.probabilities, softmax(stage.logits), rtol=1e-9)


def test_stages_leave_the_logits_they_were_given_alone() -> None:
    logits = np.array([1.0, 2.0, 3.0])
    stages(logits, SamplingParams(0.5, 2, 0.9, 0.2, 1.1, 0.1, 0.1, {1: 1.0}), history=[2])
    assert logits.tolist() == [1.0, 2.0, 3.0]


def test_logprob_is_the_models_own() -> None:
    logits = np.array([1.0, -math.inf, 3.0], dtype=np.float32)
    assert logprob(logits, 2) == pytest.approx(math.log(softmax(logits)[2]))
    assert logprob(logits, 1) == -math.inf


# ---- what cannot be sampled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 .* or positive, got -0.1"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_k": -1}, "top_k must be 0 .* got -1"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"top_p": -0.1}, "top_p must be between 0 and 1 .* got -0.1"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": -1}, "repetition_penalty"),
        ({"repetition_penalty": math.inf}, "repetition_penalty"),
        ({"presence_penalty": math.nan}, "presence_penalty"),
        ({"frequency_penalty": math.inf}, "frequency_penalty"),
        ({"logit_bias": {-1: 0.0}}, "logit_bias: -1"),
        ({"logit_bias": {"a": 0.0}}, "logit_bias: 'a'"),
        ({"logit_bias": {3: math.inf}}, "logit_bias of token 3"),
        ({"logit_bias": {3: math.nan}}, "logit_bias of token 3"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        SamplingParams(**arguments)


@pytest.mark.filterwarnings("error")
def test_numpy_numbers_are_numbers() -> None:
    chosen = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(1), logit_bias={np.int32(0): np.float64(1)})
    assert kept([1.0, 2.0], top_k=chosen.top_k) == [1]


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0.0, math.nan, 1.0], "logit of token 1 is nan after model"),
        ([0.0, 1.0, math.inf], "logit of token 2 is inf after model"),
        ([-math.inf, -math.inf], "no token is left after model"),
        ([], "one row"),
        ([[1.0, 2.0]], "one row"),
    ],
)
def test_logits_without_a_distribution_are_refused(logits: Any, message: str, temperature: float) -> None:
    with pytest.raises(SamplingError, match=message):
        sample(logits, SamplingParams(temperature=temperature), seed=0, stream=0, position=0)


@pytest.mark.parametrize(
    ("arguments", "history", "message"),
    [
        ({"logit_bias": {0: -math.inf, 1: -math.inf}}, [], "no token is left after logit_bias"),
        ({"logit_bias": {2: 1.0}}, [], "token 2, but the vocabulary ends at 1"),
        ({"presence_penalty": 1.0}, [2], "history"),
        ({"presence_penalty": 1.0}, [-1], "history"),
        ({"repetition_penalty": 1e-320}, [0], "token 0 is inf after penalties"),
        ({"presence_penalty": 1e308, "frequency_penalty": -1e308}, [1] * 20, "token 1 is inf after penalties"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_parameters_that_leave_nothing_to_draw_are_refused(
    arguments: dict[str, Any], history: list[int], message: str
) -> None:
    with pytest.raises(SamplingError, match=message):
        distribution([1.0, 2.0], SamplingParams(**arguments), history)


# ---- drawing --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1) | st.just(0.0), min_size=1, max_size=30).filter(lambda p: sum(p) > 1e-300),
    st.floats(0, 1, exclude_max=True) | st.just(1 - 2**-53) | st.just(0.0),
)
def test_draw_inverts_the_cumulative_distribution(probabilities: list[float], u: float) -> None:
    token = draw(probabilities, u)
    cumulative = np.cumsum(probabilities)
    assert probabilities[token] > 0
    assert cumulative[token] > u * cumulative[-1]
    assert token == 0 or cumulative[token - 1] <= u * cumulative[-1]


@pytest.mark.parametrize("u", [-0.1, 1.0, math.nan])
def test_draw_refuses_u_outside_0_to_1(u: float) -> None:
    with pytest.raises(SamplingError, match="u must be in"):
        draw([0.5, 0.5], u)


@pytest.mark.parametrize("probabilities", [[0.0, 0.0], [math.nan, 1.0], [math.inf]])
def test_draw_refuses_what_is_no_distribution(probabilities: list[float]) -> None:
    with pytest.raises(SamplingError, match="nothing to draw from"):
        draw(probabilities, 0.5)


LOGITS = np.array([2.0, 1.5, 1.5, 0.3, 0.0, -0.5, -1.0, -math.inf, -2.0, -3.0])
FILTERS: list[tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = [
    ("none", {}, lambda p: p >= 0),
    ("top_k", {"top_k": 2}, lambda p: p >= np.sort(p)[-2]),  # the tie makes it three
    ("top_p", {"top_p": 0.8}, lambda p: np.cumsum(p) - p < 0.8),  # LOGITS are sorted but for -inf
    ("min_p", {"min_p": 0.15}, lambda p: p >= 0.15 * p.max()),
]


@pytest.mark.parametrize(("name", "arguments", "mask"), FILTERS, ids=[name for name, *_ in FILTERS])
@pytest.mark.parametrize("temperature", [0.5, 1, 1.1, 1.2, 1.3, 2, 100])
def test_draws_follow_softmax_of_logits_over_temperature_with_each_filter(
    name: str, arguments: dict[str, Any], mask: Callable[[np.ndarray], np.ndarray], temperature: float
) -> None:
    expected = softmax(LOGITS, temperature)
    expected = np.where(mask(expected), expected, 0)
    expected /= expected.sum()
    chosen = SamplingParams(temperature=temperature, **arguments)
    n = 4000
    tokens = [sample(LOGITS, chosen, seed=17, stream=i % 8, position=i // 8) for i in range(n)]
    counts = np.bincount(tokens, minlength=len(LOGITS))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert chi_square_is_ordinary(counts[possible], n * expected[possible])


def chi_square_is_ordinary(observed: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether chi-square is below its 99.99 % quantile (Wilson and Hilferty); rare classes count together."""
    rare = expected < 5
    observed, expected = (np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (observed, expected))
    degrees = len(expected) - 1
    if degrees == 0:
        return True
    statistic = float(((observed - expected) ** 2 / expected).sum())
    spread = 2 / (9 * degrees)
    return statistic < degrees * (1 - spread + 3.719 * math.sqrt(spread)) ** 3


# ---- random numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert philox4x32(counter, key) == expected


def test_uniform_puts_seed_stream_and_position_where_the_contract_says() -> None:
    seed, stream, position = 0x0123456789ABCDEF, 0xFEDCBA9876543210, 0xDEADBEEF
    x = philox4x32((position, 0, 0x76543210, 0xFEDCBA98), (0x89ABCDEF, 0x01234567))
    assert uniform(seed, stream, position) == ((x[0] >> 5) * 2**26 + (x[1] >> 6)) / 2**53


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_uniform_is_at_least_0_and_below_1(seed: int, stream: int, position: int) -> None:
    assert 0 <= uniform(seed, stream, position) < 1


def test_uniform_numbers_are_spread_evenly_over_seeds_streams_and_positions() -> None:
    for numbers in (
        [uniform(seed, 0, 0) for seed in range(4000)],
        [uniform(5, stream, 0) for stream in range(4000)],
        [uniform(5, 0, position) for position in range(4000)],
    ):
        assert len(set(numbers)) == 4000
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        assert chi_square_is_ordinary(counts, np.full(20, 200.0))


@pytest.mark.parametrize(
    ("seed", "stream", "position", "message"),
    [
        (-1, 0, 0, "seed"),
        (2**63, 0, 0, "seed"),
        (0, -1, 0, "stream"),
        (0, 2**64, 0, "stream"),
        (0, 0, -1, "position"),
        (0, 0, 2**32, "position"),
    ],
)
def test_seed_stream_and_position_out_of_range_are_refused(seed: int, stream: int, position: int, message: str) -> None:
    with pytest.raises(SamplingError, match=f"{message} must be a whole number"):
        uniform(seed, stream, position)


def test_distributions_are_the_same_whatever_numpy_finds_in_the_processor() -> None:
    script = """
import hashlib, numpy as np
from gpt2lab.sampling import SamplingParams, stages
logits = (np.random.default_rng(0).standard_normal((5, 5003)) * 4 - 9).astype(np.float32)
options = {}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.3, "min_p": 0.02}, {"top_k": 300, "top_p": 0.99}
settings = [SamplingParams(**each, frequency_penalty=0.3) for each in options]
found = b"".join(stages(row, each, [1, 2, 2])[-1].probabilities.tobytes() for row in logits for each in settings)
print(hashlib.sha256(found).hexdigest())
"""
    without = {"NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__)}
    printed = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], env={**os.environ, **more}, capture_output=True, check=True
        ).stdout
        for more in ({}, without)
    }
    assert len(printed) == 1
