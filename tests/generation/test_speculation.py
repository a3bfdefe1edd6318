"""Guessing ahead changes only the number of steps: whatever is guessed, the same tokens are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt2lab
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.protocol import Draw, Engine
from gpt2lab.engines.reference import ReferenceEngine
from gpt2lab.errors import SamplingError, UsageError
from gpt2lab.generation.options import make_options
from gpt2lab.generation.plan import make_plan
from gpt2lab.generation.requests import Request
from gpt2lab.generation.run import generate_pieces, in_order
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import MAX_TEMPERATURE, NGrams, Speculation, Wish
from gpt2lab.generation.step_times import MAX_ROWS, StepTimes
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes
from gpt2lab.weights.openai import read_openai

GOLDEN = Path(__file__).parent.parent / "golden"
N_VOCAB, N_CTX = 23, 24


def engine_of(seed: int, n_ctx: int = N_CTX, n_vocab: int = N_VOCAB, scale: float = 0.6) -> ReferenceEngine:
    """Make a model of random weights, large enough that some tokens are likely; its greedy text soon repeats itself."""
    config = ModelConfig(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=8, n_head=2, n_layer=1)
    rng = np.random.default_rng(seed)
    tensors = {
        name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in tensor_shapes(config).items()
    }
    return ReferenceEngine(Checkpoint(config, tensors, None, "openai", "float32", Path("random")))


ENGINE = engine_of(0)
DRAFTS = {
    "none": None,
    "the model itself": ENGINE,
    "another": engine_of(1),
    "a short context": engine_of(2, n_ctx=7),
    "a long context": engine_of(3, n_ctx=60),
}


class Eager(Speculation):
    """Speculation that guesses wherever it can, as if rows cost nothing."""

    def __init__(self, config: ModelConfig, draft: Engine | None = None) -> None:
        super().__init__(config, draft)
        self._times = Free()


class Free(StepTimes):
    def table(self) -> list[float]:
        return [1 + row / 1000 for row in range(MAX_ROWS + 1)]


def run(
    requests: Iterable[Request], speculation: Speculation | None, batch_size: int | None = None, engine: Engine = ENGINE
) -> list[list[tuple[int, float]]]:
    """Return the tokens of each request with their log-probabilities."""
    drawn: dict[int, list[tuple[int, float]]] = {}
    with Scheduler(engine, batch_size=batch_size, speculation=speculation) as scheduler:
        for request in requests:
            drawn[scheduler.submit(request)] = []
        while scheduler.busy:
            for number, token, logprob, *_ in scheduler.step():
                drawn[number].append((token, logprob))
    return list(drawn.values())


params_of = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 0, 0.1, 0.7, 1, 3]),
    top_k=st.sampled_from([0, 1, 4]),
    top_p=st.sampled_from([1, 0.8]),
    min_p=st.sampled_from([0, 0.1]),
    repetition_penalty=st.sampled_from([1, 1, 1.3]),
    presence_penalty=st.sampled_from([0, 0, 0.5]),
    frequency_penalty=st.sampled_from([0, 0, 0.2]),
    logit_bias=st.dictionaries(st.integers(0, N_VOCAB - 1), st.sampled_from([-np.inf, -1.0, 2.0]), max_size=3),
)


@st.composite
def requests_of(draw: st.DrawFn) -> Request:
    motif = draw(st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=5))
    prompt = tuple((motif * 24)[: draw(st.integers(1, 40))])
    slide = draw(st.booleans())
    if not slide:
        prompt = prompt[: N_CTX // 2]
    limit = draw(st.integers(1, 40 if slide else N_CTX + 1 - len(prompt)))
    return Request(prompt, draw(params_of), 5, draw(st.integers(0, 3)), limit, slide, draw(st.integers(0, 1)))


@settings(max_examples=60)
@given(
    st.lists(requests_of(), min_size=1, max_size=5),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(sorted(DRAFTS)),
    st.sampled_from([Speculation, Eager]),
)
def test_the_same_tokens_are_drawn_with_speculation_on_and_off(requests, batch_size, draft, kind) -> None:
    alone = [run([request], None)[0] for request in requests]
    speculation = kind(ENGINE.config, DRAFTS[draft])
    together = run(requests, speculation, batch_size)
    assert [[token for token, _ in row] for row in together] == [[token for token, _ in row] for row in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose([p for _, p in one], [p for _, p in other], atol=1e-4)
    assert speculation.n_accepted <= speculation.n_guessed
    assert not any(engine.n_sequences for engine in DRAFTS.values() if engine)


@pytest.mark.parametrize("draft", [False, True])
def test_64_mixed_requests_at_once_draw_what_each_alone_would_draw(draft: bool) -> None:
    engine = NativeEngine(read_openai(GOLDEN / "odd"), threads=1)
    rng = random.Random(1)
    prompts = [tuple(rng.randrange(engine.config.n_vocab) for _ in range(n)) for n in (1, 2, 9, 30, 40, 300)]
    kinds = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.5, top_k=9),
        SamplingParams(top_p=0.8, repetition_penalty=1.4),
        SamplingParams(min_p=0.1, frequency_penalty=0.4, logit_bias=dict.fromkeys(range(5), 3.0)),
    ]
    requests = [
        Request(rng.choice(prompts), rng.choice(kinds), 7, n, rng.randrange(1, 60), slide=True) for n in range(64)
    ]
    alone = [run([request], None, engine=engine)[0] for request in requests]
    for batch_size in (None, 5):
        speculation = Speculation(engine.config, engine if draft else None)
        assert run(requests, speculation, batch_size, engine) == alone
    assert engine.kv_cache_bytes == 0


def test_guesses_from_a_text_that_repeats_itself_are_accepted() -> None:
    speculation = Speculation(ENGINE.config)
    request = Request((1, 2, 3), SamplingParams(temperature=0), 1, 0, limit=200, slide=True)
    text = [token for token, _ in run([request], speculation)[0]]
    assert len(set(zip(text[-60:], text[-59:], text[-58:], strict=False))) < 30  # it does repeat itself
    assert speculation.n_accepted > 50


@pytest.mark.parametrize("temperature", [0, 1, 3])
def test_a_draft_that_is_the_model_itself_is_always_right(temperature: float) -> None:
    speculation = Eager(ENGINE.config, ENGINE)
    params = SamplingParams(temperature=temperature, frequency_penalty=0.3)
    run([Request((1, 2, 3), params, 1, n, limit=60, slide=True) for n in range(3)], speculation)
    from_text = 0.3 * speculation.n_guessed  # n-grams may be wrong
    assert speculation.n_accepted >= speculation.n_guessed - from_text
    assert speculation.n_accepted > 60


def test_nothing_is_guessed_where_many_samples_fill_the_step() -> None:
    speculation = Eager(ENGINE.config)
    run([Request((n % N_VOCAB,), SamplingParams(temperature=0), 1, n, limit=20) for n in range(MAX_ROWS)], speculation)
    assert speculation.n_guessed == 0


def test_no_n_gram_is_looked_for_at_a_high_temperature() -> None:
    speculation = Eager(ENGINE.config)
    params = SamplingParams(temperature=MAX_TEMPERATURE + 0.1, top_k=1)
    run([Request((1, 2, 1, 2, 1, 2), params, 1, 0, limit=15)], speculation)
    assert speculation.n_guessed == 0


def test_guesses_that_are_wrong_again_and_again_become_rare_but_are_tried_again() -> None:
    speculation, rng = Speculation(ENGINE.config), random.Random(1)
    text = [rng.randrange(4) for _ in range(20)]
    guesser = speculation.start(text)
    made = []
    for _ in range(600):
        draw = Draw(SamplingParams(), 1, 0, len(text))
        (guesses,) = speculation.guess([Wish(guesser, draw, 30)], rows=1)
        made.append(len(guesses))
        if guesses:
            speculation.learn(guesser, len(guesses), 0)
        speculation.observe(1 + len(guesses), 1 + 0.3 * len(guesses))
        text.append(rng.randrange(4))
    assert sum(map(bool, made[:50])) > 5
    assert 0 < sum(map(bool, made[100:])) < 100


def test_a_row_that_costs_a_whole_step_is_not_worth_a_doubtful_guess() -> None:
    def guessed(row: float) -> int:
        speculation = Speculation(ENGINE.config)
        for n in range(400):
            speculation.observe(1 + n % 9, 1 + row * (n % 9))
        wish = Wish(speculation.start([1, 2, 3, 4] * 9), Draw(SamplingParams(temperature=0), 1, 0, 36), 30)
        return len(speculation.guess([wish], rows=1)[0])

    assert guessed(0.02) > guessed(0.2) > guessed(1) == 0


def test_times_of_steps_that_were_never_made_lie_between_those_that_were() -> None:
    times = StepTimes()
    assert times.table()[1] == 1
    for rows, seconds in ((1, 1.0), (9, 2.0)) * 100:
        times.observe(rows, seconds)
    table = times.table()
    assert table[1] == pytest.approx(1)
    assert table[9] == pytest.approx(2, rel=0.05)
    assert table[5] == pytest.approx(1.5, rel=0.05)
    assert table[32] > table[10] > table[9]


def test_a_step_that_met_a_busy_machine_counts_for_little() -> None:
    times = StepTimes()
    for _ in range(50):
        times.observe(1, 1.0)
    times.observe(1, 100.0)
    assert times.table()[1] < 1.2


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 50))
def test_the_longest_n_gram_that_occurred_before_is_found_where_it_occurred_last(text: list[int], n: int) -> None:
    grown: list[int] = []
    ngrams = NGrams(grown)
    found = (0, 0)
    for token in text:
        grown.append(token)
        found = ngrams.match()
    ends = {
        length: [end for end in range(length, len(text)) if text[end - length : end] == text[-length:]]
        for length in (2, 3, 4)
    }
    length = max((length for length, places in ends.items() if places), default=0)
    assert found == ((length, ends[length][-1]) if length else (0, 0))
    if length:
        copy, period = ngrams.copy(found[1], n), len(text) - found[1]
        assert copy == [text[found[1] + i % period] for i in range(n)]


def test_text_ends_at_the_same_stop_string_with_guesses_beyond_it() -> None:
    model = gpt2lab.load("tales")
    prompt = "I have a daughter, and a daughter, and a daughter, and"
    off, on = (
        model.generate(prompt, length=60, temperature=0, seed=1, stop="ghter, and a daughter", speculation=kind)
        for kind in ("off", "auto")
    )
    assert off.finish_reason == "stop"
    assert on == off


def test_pieces_beyond_the_end_of_a_text_are_dropped() -> None:
    options = make_options(temperature=0, length=20, logit_bias={7: 100.0}, overflow="slide")
    plans = [make_plan([7] * n, options, ENGINE.config, None) for n in (3, 9)]
    completions = list(in_order(generate_pieces(ENGINE, None, plans, 2, options)))
    assert [completion.tokens for completion in completions] == [[7] * 20] * 4


class Failing(ReferenceEngine):
    """A draft model that cannot draw after a few steps."""

    def __init__(self) -> None:
        checkpoint_like = engine_of(4)
        self.__dict__.update(checkpoint_like.__dict__)
        self.calls = 0

    def step(self, sequences, tokens, draws):
        self.calls += 1
        if self.calls % 5 == 0:
            raise SamplingError("no token is left")
        return super().step(sequences, tokens, draws)


def test_a_draft_model_that_fails_is_done_without() -> None:
    draft, request = Failing(), Request((1, 2, 3), SamplingParams(), 1, 0, limit=40, slide=True)
    assert [t for t, _ in run([request], Eager(ENGINE.config, draft))[0]] == [t for t, _ in run([request], None)[0]]
    assert draft.n_sequences == 0


def test_a_draft_model_with_another_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="vocabulary of 307, the model itself one of 50257"):
        gpt2lab.load(GOLDEN / "tiny", draft=GOLDEN / "odd")


def test_a_draft_model_by_name_or_loaded_changes_no_token() -> None:
    plain = gpt2lab.load(GOLDEN / "odd")
    options = {"n": 3, "length": 30, "seed": 4}
    for draft in (GOLDEN / "odd", plain):
        drafted = gpt2lab.load(GOLDEN / "odd", draft=draft)
        assert drafted.generate([1, 2, 3], **options) == plain.generate([1, 2, 3], **options)


def test_a_draft_model_that_may_not_guess_is_not_opened() -> None:
    model = gpt2lab.load(GOLDEN / "odd", draft=GOLDEN / "odd")
    model.generate([1, 2, 3], length=3, speculation="off")
    assert model._draft.opened == []
    model.generate([1, 2, 3], length=3)
    assert len(model._draft.opened) == 1


@pytest.mark.parametrize("speculation", ["auto", "off"])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_the_likeliest_ids_come_with_every_token_on_request(device: str, speculation: str) -> None:
    model = gpt2lab.load(GOLDEN / "odd", device=device, precision="float32")
    options = {"length": 20, "temperature": 0, "logprobs": True, "seed": 1, "speculation": speculation}
    completion = model.generate([1, 2, 3], top_logprobs=3, **options)
    assert model.generate([1, 2, 3], **options).tokens == completion.tokens
    assert [top[0][0] for top in completion.top_logprobs] == completion.tokens
    assert [top[0][1] for top in completion.top_logprobs] == pytest.approx(completion.logprobs, abs=1e-5)
    assert all(len(top) == 3 and top[0][1] >= top[1][1] >= top[2][1] for top in completion.top_logprobs)
    with pytest.raises(UsageError, match="top_logprobs must be at most the vocabulary's 307, got 308"):
        model.generate([1], top_logprobs=308)


def test_an_unknown_kind_of_speculation_is_refused() -> None:
    with pytest.raises(UsageError, match="speculation must be one of auto, off, got 'on'"):
        make_options(speculation="on")
