"""The native engine draws the same tokens from given logits as the readable rules of gpt2lab.sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native import ISAS, random_checkpoint

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.protocol import Draw
from gpt2lab.errors import SamplingError
from gpt2lab.sampling import rules
from gpt2lab.sampling.declaration import SamplingParams

N = 77
LARGE = 5003  # more than two of the sampler's groups, but not a multiple of a group or a vector


def small_engine(n_vocab: int) -> NativeEngine:
    return NativeEngine(random_checkpoint(ModelConfig(n_vocab=n_vocab, n_ctx=8, n_embd=4, n_head=1, n_layer=1)))


@pytest.fixture(scope="module")
def by_isa():
    """Open engines of both sizes for each instruction set."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for isa in ISAS:
            patch.setenv("GPT2LAB_ISA", isa)
            made[isa] = {n: small_engine(n) for n in (N, LARGE)}
    return made


@pytest.fixture(scope="module", params=ISAS)
def by_size(request, by_isa):
    return by_isa[request.param]


@pytest.fixture
def engine(by_size):
    return by_size[N]


@st.composite
def logits_of(draw, n: int):
    """Draw rows of normally distributed logits: flat or peaked, with or without ties and excluded tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    logits = rng.standard_normal(n) * draw(st.sampled_from([0.01, 0.5, 3, 30])) + draw(st.sampled_from([0, -90, 1e4]))
    decimals = draw(st.sampled_from([None, 0, 1]))
    logits = logits if decimals is None else logits.round(decimals)
    logits[rng.random(n) < draw(st.sampled_from([0, 0, 0.5, 0.99]))] = -np.inf
    logits[rng.integers(n)] = 1.5  # at least one that is not excluded
    return logits.astype(np.float32)


TEMPERATURES = st.sampled_from([0, 5e-324, 1e-300, 1e-4, 0.3, 0.8, 1, 1 + 1e-9, 2.5, 100, 1e300]) | st.floats(0.01, 4)
SHARES = st.sampled_from([0, 1e-300, 1e-9, 0.01, 0.1, 0.5, 0.9, 0.999, 1]) | st.floats(0, 1)
PENALTIES = st.fixed_dictionaries(
    {
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-1, 1),
        "frequency_penalty": st.floats(-1, 1),
    }
)


def params_of(n: int):
    filters = {
        "temperature": TEMPERATURES,
        "top_k": st.sampled_from([0, 0, 1, 2, 5, 40, 150, 300, 2000, n - 1, n, n + 7]),
        "top_p": st.just(1) | SHARES,
        "min_p": st.just(0) | SHARES,
        "logit_bias": st.dictionaries(st.integers(0, n - 1), st.sampled_from([-np.inf, -100, 2.5]), max_size=3),
    }
    both = st.tuples(st.fixed_dictionaries(filters), st.just({}) | PENALTIES)
    return both.map(lambda parts: SamplingParams(**parts[0], **parts[1]))


CASES = {  # logits, parameters, history, seed
    n: st.tuples(logits_of(n), params_of(n), st.lists(st.integers(0, n - 1), max_size=20), st.integers(0, 2**63 - 1))
    for n in (N, LARGE)
}


def allowed(distribution, u: float) -> set[int]:
    """Return the token drawn with u, and its neighbour if u is within rounding of the boundary between them."""
    return {rules.draw(distribution, v) for v in (u, max(0, u - 1e-9), min(u + 1e-9, np.nextafter(1, 0)))}


@pytest.mark.parametrize("n", [N, LARGE])
@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_draws_equal_the_readable_reference(by_isa, n, data):
    logits, params, history, seed = data.draw(CASES[n])
    rows = 12
    draw = (np.stack([logits] * rows), [params] * rows, [seed] * rows, range(rows), [17] * rows, [history] * rows)
    try:
        distribution = rules.distribution(logits, params, history)
    except SamplingError:
        for engines in by_isa.values():
            with pytest.raises(SamplingError):
                engines[n].sample(*draw)
        return
    choices = [allowed(distribution, rules.uniform(seed, row, 17)) for row in range(rows)]
    logprobs = {id: rules.logprob(logits, id) for id in set().union(*choices)}
    for isa, engines in by_isa.items():
        for id, logprob, choice in zip(*engines[n].sample(*draw), choices, strict=True):
            assert id in choice, isa
            assert logprob == pytest.approx(logprobs[id], abs=1e-5, rel=1e-6), isa


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_likeliest_tokens_equal_a_sorted_vocabulary(by_size, data):
    n = data.draw(st.sampled_from([N, LARGE]))
    engine = by_size[n]
    top = data.draw(st.sampled_from([1, 2, 20, 77, 200, n - 1, n, n + 3]))
    ids = data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2))
    sequences = [engine.new_sequence() for _ in range(2)]
    logits = engine.forward(sequences, [[id] for id in ids])
    for sequence in sequences:
        engine.truncate_sequence(sequence, 0)
    drawn = engine.step(
        sequences, [[id] for id in ids], [Draw(SamplingParams(), 1, 2, 3, top=top), Draw(SamplingParams(), 1, 2, 3)]
    )
    for sequence in sequences:
        engine.free_sequence(sequence)
    order = np.argsort(-logits[0], kind="stable")[:top]
    assert [id for id, _ in drawn[0][0].top] == order.tolist()
    for id, logprob in drawn[0][0].top[:: max(1, top // 50)]:
        assert logprob == pytest.approx(rules.logprob(logits[0], id), abs=1e-5)
    assert drawn[1][0].top == ()


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1))
def test_random_numbers_equal_the_readable_reference(seed, stream, position):
    assert _native.philox_uniform(seed, stream, position) == rules.uniform(seed, stream, position)


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "inf")])
@pytest.mark.parametrize("at", [0, 63, 4096, LARGE - 1])
@pytest.mark.parametrize("rest", [0, -np.inf])
def test_logits_that_are_no_numbers_are_refused(by_size, bad, word, at, rest):
    logits = np.full((1, LARGE), rest, np.float32)
    logits[0, at] = bad
    with pytest.raises(SamplingError, match=word):
        by_size[LARGE].sample(logits, [SamplingParams()], [0], [0], [0], [()])


def test_no_token_left_to_draw_is_refused(engine):
    logits = np.full((1, N), -np.inf, np.float32)
    with pytest.raises(SamplingError, match="-inf"):
        engine.sample(logits, [SamplingParams()], [0], [0], [0], [()])


@pytest.mark.parametrize("params", [{}, {"temperature": 0}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}])
@pytest.mark.parametrize("keep", [0, 76, 2047, 2048, LARGE - 1])
def test_a_token_that_is_alone_is_drawn(by_size, params, keep):
    logits = np.full((1, LARGE), -np.inf, np.float32)
    logits[0, keep] = -1e30
    for bias in ({}, {keep: 3.0}):
        ids, logprobs = by_size[LARGE].sample(logits, [SamplingParams(**params, logit_bias=bias)], [0], [0], [5], [()])
        assert (ids[0], logprobs[0]) == (keep, 0)


def test_top_p_at_infinite_temperature_keeps_the_largest_logits(engine):
    logits = np.arange(N, dtype=np.float32)[None]
    params = SamplingParams(temperature=1e300, top_p=0.5)
    kept = np.flatnonzero(rules.distribution(logits[0], params))
    drawn = {int(engine.sample(logits, [params], [0], [0], [i], [()])[0][0]) for i in range(600)}
    assert drawn == set(kept.tolist()) == set(range(38, N))


def test_a_row_draws_the_same_in_every_company(by_size):
    engine = by_size[LARGE]
    logits = np.random.default_rng(0).standard_normal((9, LARGE)).astype(np.float32)
    params = [SamplingParams(top_k=k, top_p=p) for k in (0, 3, 50) for p in (1, 0.9, 0.3)]
    together = engine.sample(logits, params, [7] * 9, range(9), [4] * 9, [()] * 9)
    for row in range(9):
        alone = engine.sample(logits[row : row + 1], params[row : row + 1], [7], [row], [4], [()])
        assert (alone[0][0], alone[1][0]) == (together[0][row], together[1][row])


# ---- what has gone wrong before --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [N, 2**63, 10**400])
def test_a_top_k_beyond_the_vocabulary_keeps_everything(engine, top_k):
    logits = np.random.default_rng(0).standard_normal((1, N)).astype(np.float32)
    draws = [engine.sample(logits, [SamplingParams(top_k=k)], [1], [0], [5], [()])[0][0] for k in (0, top_k)]
    assert draws[0] == draws[1] >= 0


@pytest.mark.parametrize("raw", [{1: -5.0}, {3: 2.0}, {0: -1.0}, {2: np.nan}, {4: 0.0}, {5: np.inf}])
def test_the_core_refuses_sampling_parameters_out_of_range(engine, raw):
    numbers = np.array([1.0, 0, 1, 0, 1, 0, 0])
    for column, value in raw.items():
        numbers[column] = value
    no_ids, offsets = np.empty(0, np.int32), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="out of range"):
        engine._core.sample(
            np.zeros((1, N), np.float32),
            numbers,
            [0, 0, 0],
            [],
            [0, 0],
            no_ids,
            np.empty(0),
            offsets,
        )


def test_penalties_are_subtracted_in_the_references_order(engine):
    params = SamplingParams(temperature=0, presence_penalty=0.7, frequency_penalty=0.1, logit_bias={1: -0.1})
    logits = np.full((1, N), -10, np.float32)
    logits[0, :2] = 0
    for history in ([0, 0, 1], [0, 1, 1], [0, 0, 0, 1, 1]):
        ids, _ = engine.sample(logits, [params], [0], [0], [3], [history])
        assert ids[0] == rules.sample(logits[0], params, seed=0, stream=0, position=3, history=history)


@pytest.mark.parametrize("top_p", [0.1, 0.2, 0.29, 0.5, 0.7])
@pytest.mark.parametrize("ties", [7, 10, 77])
def test_top_p_among_equals_keeps_as_many_as_the_reference(engine, top_p, ties):
    logits = np.full((1, N), -np.inf, np.float32)
    logits[0, :ties] = 1.3
    params = SamplingParams(top_p=top_p)
    kept = np.flatnonzero(rules.distribution(logits[0], params))
    drawn = {int(engine.sample(logits, [params], [0], [0], [i], [()])[0][0]) for i in range(600)}
    assert drawn == set(kept.tolist())


@pytest.mark.parametrize("lowered", [2.0**-53, 2.0**-52, 2.0**-51, 1e-14])
def test_top_p_orders_by_scores_whose_exponentials_may_tie(by_size, lowered):
    engine, params = by_size[N], SamplingParams(temperature=2, top_p=0.1, frequency_penalty=lowered)
    logits = np.zeros((1, N), np.float32)
    kept = np.flatnonzero(rules.distribution(logits[0], params, [0]))
    drawn = {int(engine.sample(logits, [params], [0], [0], [i], [[0]])[0][0]) for i in range(200)}
    assert drawn == set(kept.tolist()) == set(range(1, 9))  # token 0 is less likely, by however little


@pytest.mark.parametrize("lowered", [2.0**-53, 2.0**-52, 2.0**-51, 1e-14])
def test_rounding_does_not_decide_how_many_equals_top_p_keeps(by_size, lowered):
    engine, params = by_size[N], SamplingParams(top_p=0.5, frequency_penalty=lowered)
    logits = np.full((1, N), -np.inf, np.float32)
    logits[0, :10] = 0
    for history in ([0], [1, 3, 5, 7, 9], list(range(10))):
        kept = np.flatnonzero(rules.distribution(logits[0], params, history))
        drawn = {int(engine.sample(logits, [params], [0], [0], [i], [history])[0][0]) for i in range(200)}
        assert drawn == set(kept.tolist())
        assert len(drawn) == 5


@pytest.mark.parametrize("lowered", [2.0**-53, 2.0**-52, 1e-14])
def test_rounding_does_not_decide_which_tokens_reach_min_p(by_size, lowered):
    engine, logits = by_size[N], np.full((1, N), -np.inf, np.float32)
    logits[0, :3] = [0, 0, np.float32(np.log(0.5))]
    bias = {2: float(np.log(0.5)) - float(logits[0, 2])}  # token 2 is half as likely as token 1, to the last bit
    for min_p, expected in ((1, {0, 1}), (0.5, {0, 1, 2})):
        params = SamplingParams(min_p=min_p, frequency_penalty=lowered, logit_bias=bias)
        kept = np.flatnonzero(rules.distribution(logits[0], params, [0]))
        drawn = {int(engine.sample(logits, [params], [0], [0], [i], [[0]])[0][0]) for i in range(100)}
        assert drawn == set(kept.tolist()) == expected


def test_top_k_at_temperature_1_does_not_take_near_ties_for_ties(engine):
    logits = np.full((1, N), -np.inf, np.float32)
    logits[0, :3] = [0.5, 1e-20, 2e-20]
    drawn = {int(engine.sample(logits, [SamplingParams(top_k=2)], [0], [0], [i], [()])[0][0]) for i in range(200)}
    assert drawn == {0, 2}


@pytest.mark.parametrize(
    ("seed", "position", "bias"), [(-1, 0, {}), (0, 2**32, {}), (0, -1, {}), (0, 0, {2**40: 1.0}), (0, 0, {99: 1.0})]
)
def test_numbers_that_the_core_cannot_hold_are_refused(engine, seed, position, bias):
    with pytest.raises(SamplingError):
        engine.sample(
            np.zeros((1, N), np.float32),
            [SamplingParams(logit_bias=bias)],
            [seed],
            [0],
            [position],
            [()],
        )
