"""The scheduler on a toy engine: the tokens drawn, the tokens fed together, and sequences that are freed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.errors import ContextError, UsageError
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import KV_CACHE_SHARE, PREFILL_CHUNK, Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.generation.window import window_start
from gpt2lab.sampling import rules
from gpt2lab.sampling.declaration import SamplingParams

N_VOCAB = 50


class ToyEngine:
    """An engine whose logits are a hash of all tokens of a sequence; it records every forward call."""

    def __init__(self, n_ctx: int = 2000) -> None:
        self.config = ModelConfig(n_vocab=N_VOCAB, n_ctx=n_ctx, n_embd=4, n_head=1, n_layer=1)
        self.sequences: dict[int, list[int]] = {}
        self.calls: list[list[list[int]]] = []
        self.made = 0
        self.fail_at: int | None = None
        self.kv_cache_bytes_per_token = 1
        self.device_memory: int | None = None

    def new_sequence(self) -> int:
        self.made += 1
        self.sequences[self.made] = []
        return self.made

    def fork_sequence(self, sequence: int) -> int:
        fork = self.new_sequence()
        self.sequences[fork] = list(self.sequences[sequence])
        return fork

    def free_sequence(self, sequence: int) -> None:
        del self.sequences[sequence]

    def truncate_sequence(self, sequence: int, length: int) -> None:
        del self.sequences[sequence][length:]

    def step(self, sequences, tokens, draws):
        assert len(set(sequences)) == len(sequences)
        assert all(len(ids) for ids in tokens)
        self.calls.append([list(ids) for ids in tokens])
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        rows = []
        for sequence, ids, draw in zip(sequences, tokens, draws, strict=True):
            held = self.sequences[sequence]
            held += ids
            assert len(held) <= self.config.n_ctx
            rows.append(toy_draws(held, draw) if draw else [])
        return rows


def toy_logits(tokens: list[int]) -> np.ndarray:
    return np.random.default_rng(tokens).normal(size=N_VOCAB).astype(np.float32)


def toy_draws(held: list[int], draw: Draw) -> list[Drawn]:
    """Draw token by token, as :meth:`gpt2lab.engines.protocol.Engine.step` describes it."""
    drawn: list[Drawn] = []
    for n_fed in range(len(held) - draw.count + 1, len(held) + 1):
        logits = toy_logits(held[:n_fed])
        history = [*draw.history, *(token for token, _, _ in drawn)]
        position = draw.position + len(drawn)
        id = rules.sample(logits, draw.params, seed=draw.seed, stream=draw.stream, position=position, history=history)
        drawn.append(Drawn(id, rules.logprob(logits, id)))
        if held[n_fed : n_fed + 1] != [id]:
            break
    return drawn


def request(prompt: Iterable[int] = (1, 2, 3), stream: int = 0, limit: int = 5, **more) -> Request:
    return Request(tuple(prompt), more.pop("params", SamplingParams()), 7, stream, limit, **more)


def run(
    engine: ToyEngine,
    requests: list[Request],
    batch_size: int | None = None,
    speculation: Speculation | None = None,
) -> dict[int, list[int]]:
    """Run the scheduler to its end; return request number → ids drawn."""
    drawn: dict[int, list[int]] = {n: [] for n in range(len(requests))}
    with Scheduler(engine, batch_size=batch_size, speculation=speculation) as scheduler:
        for wanted in requests:
            scheduler.submit(wanted)
        while scheduler.busy:
            for event in scheduler.step():
                drawn[event.request].append(event.token)
    return drawn


def by_hand(wanted: Request, n_ctx: int = 2000) -> list[int]:
    tokens = list(wanted.prompt)
    for _ in range(wanted.limit):
        logits = toy_logits(tokens[window_start(len(tokens), n_ctx) :])
        history = tokens[wanted.implicit :]
        tokens.append(
            rules.sample(
                logits, wanted.params, seed=wanted.seed, stream=wanted.stream, position=len(tokens), history=history
            )
        )
    return tokens[len(wanted.prompt) :]


MIXED = [
    request(limit=9),
    request([4], 1, limit=1),
    request(range(40), 2, limit=30, params=SamplingParams(temperature=0.5)),
    request(stream=3, limit=12),
    request([4], 4, limit=7, params=SamplingParams(repetition_penalty=2.0, presence_penalty=1.0), implicit=1),
    request([4] * 700, 5, limit=3, params=SamplingParams(temperature=0)),
    request([4] * 700, 6, limit=20),
]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 8])
def test_what_is_drawn_is_what_each_request_alone_would_draw(batch_size: int | None) -> None:
    assert run(ToyEngine(), MIXED, batch_size) == {n: by_hand(wanted) for n, wanted in enumerate(MIXED)}


def mixed_requests(n: int, n_ctx: int) -> list[Request]:
    """Make requests of many lengths, parameters and prompts; some share a prompt, some have a sliding window."""
    rng = random.Random(3)
    prompts = [[rng.randrange(N_VOCAB) for _ in range(length)] for length in (1, 2, 7, 20, n_ctx - 1, 700)]
    kinds = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.6, top_k=5),
        SamplingParams(top_p=0.8, frequency_penalty=0.5),
        SamplingParams(temperature=2.0, min_p=0.1, repetition_penalty=1.3, logit_bias={3: 2.0, 4: -np.inf}),
    ]
    return [
        request(rng.choice(prompts), n, rng.randrange(1, 50), params=rng.choice(kinds), slide=True) for n in range(n)
    ]


@pytest.mark.parametrize("speculation", [False, True])
def test_64_mixed_requests_at_once_draw_what_each_alone_would_draw(speculation: bool) -> None:
    engine, wanted = ToyEngine(n_ctx=40), mixed_requests(64, 40)
    guesses = Speculation(engine.config, engine) if speculation else None
    assert run(engine, wanted, speculation=guesses) == {n: by_hand(each, 40) for n, each in enumerate(wanted)}
    assert engine.sequences == {}


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_every_sequence_is_freed_at_the_end(batch_size: int | None) -> None:
    engine = ToyEngine()
    run(engine, MIXED, batch_size)
    assert engine.sequences == {}


def test_no_more_than_batch_size_samples_are_fed_together() -> None:
    engine = ToyEngine()
    run(engine, [request([n], n) for n in range(10)], batch_size=3)
    assert max(map(len, engine.calls)) == 3


def test_a_prompt_shared_by_samples_is_fed_once() -> None:
    engine = ToyEngine()
    run(engine, [request(range(10), n) for n in range(6)], batch_size=2)
    assert [ids for call in engine.calls for ids in call if len(ids) > 1] == [list(range(9))]
    assert sum(ids == [9] for call in engine.calls for ids in call) >= 6  # each sample feeds the last token itself


def test_equal_prompts_that_are_not_neighbours_are_fed_once() -> None:
    engine = ToyEngine()
    run(engine, [request(prompt, n) for n, prompt in enumerate([range(10), range(11), range(10)])], batch_size=1)
    assert Counter(len(ids) for call in engine.calls for ids in call if len(ids) > 1) == {9: 1, 11: 1}


def test_a_lone_sample_takes_its_prompts_sequence_without_a_fork() -> None:
    engine = ToyEngine()
    run(engine, [request()])
    assert engine.made == 1


def test_a_long_prompt_comes_in_chunks_while_others_decode() -> None:
    engine = ToyEngine()
    run(engine, [request(limit=20), request([5] * 1000, 1)])
    chunks = [max(map(len, call)) for call in engine.calls]
    beside = 2 * PREFILL_CHUNK - 3  # nobody drew yet: the first step also fed the three tokens of the other prompt
    assert chunks[:4] == [beside, PREFILL_CHUNK, 1000 - beside - PREFILL_CHUNK, 1]
    assert all(len(call) == 2 for call in engine.calls[:4])  # one of the two is the other sample's


def test_prompts_come_in_larger_chunks_while_nobody_decodes() -> None:
    engine = ToyEngine()
    run(engine, [request([5] * 1200, limit=1)])
    assert [len(ids) for call in engine.calls for ids in call] == [2 * PREFILL_CHUNK] * 2 + [1200 - 4 * PREFILL_CHUNK]


def test_what_one_step_reads_of_prompts_is_bounded() -> None:
    engine = ToyEngine()
    run(engine, [request([n] * 600, n) for n in range(3)] + [request([9] * 100, 3)])
    read = [sum(len(ids) for ids in call if len(ids) > 1) for call in engine.calls]
    assert max(read) <= 2 * PREFILL_CHUNK
    decoding = [any(len(ids) == 1 for ids in call) for call in engine.calls]
    assert all(n <= PREFILL_CHUNK for n, beside in zip(read, decoding, strict=True) if beside)


def test_a_sample_leaves_and_the_next_one_joins_between_steps() -> None:
    engine = ToyEngine()
    run(engine, [request([1], 0, limit=2), request([2], 1, limit=8), request([3], 2, limit=4)], batch_size=2)
    assert [len(call) for call in engine.calls] == [2, 2, 2, 2, 2, 2, 1, 1]


def test_the_kv_budget_bounds_the_samples_let_in_but_one_always_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ToyEngine()
    monkeypatch.setattr("gpt2lab.generation.scheduler.available_memory", lambda: 50 * KV_CACHE_SHARE)
    assert len(run(engine, [request([1] * 100, n) for n in range(3)])) == 3
    assert max(map(len, engine.calls)) == 1
    run(engine, [request([n] * 20, n) for n in range(4)])
    assert max(map(len, engine.calls)) == 2


def test_the_kv_budget_counts_a_shared_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ToyEngine()
    monkeypatch.setattr("gpt2lab.generation.scheduler.available_memory", lambda: 50 * KV_CACHE_SHARE)
    run(engine, [request([1] * 20, n) for n in range(8)])
    assert max(map(len, engine.calls)) == 6  # 19 + 6 · 5 tokens


def test_window_start_drops_the_older_half_when_the_context_is_full() -> None:
    assert [window_start(n, 8) for n in (1, 8, 9, 12, 13, 16, 17)] == [0, 0, 4, 4, 8, 8, 12]
    assert [window_start(n, 1) for n in (1, 2, 3)] == [0, 1, 2]
    assert all(0 < n - window_start(n, n_ctx) <= n_ctx for n_ctx in range(1, 12) for n in range(1, 60))


@pytest.mark.parametrize("n_prompt", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("batch_size", [1, None])
def test_a_sliding_sample_sees_the_window_of_its_length(n_prompt: int, batch_size: int | None) -> None:
    engine = ToyEngine(n_ctx=8)
    wanted = [request(range(n_prompt), n, limit=30, slide=True) for n in range(3)]
    assert run(engine, wanted, batch_size) == {n: by_hand(r, 8) for n, r in enumerate(wanted)}
    assert engine.sequences == {}


def test_a_request_beyond_the_context_is_refused_unless_it_may_slide() -> None:
    with Scheduler(ToyEngine(n_ctx=8)) as scheduler:
        scheduler.submit(request(range(4), limit=5))  # the last token drawn is never fed
        with pytest.raises(ContextError, match="9 tokens"):
            scheduler.submit(request(range(4), limit=6))


@pytest.mark.parametrize("wanted", [request(limit=0), request([])])
def test_a_request_without_tokens_is_refused(wanted: Request) -> None:
    with Scheduler(ToyEngine()) as scheduler, pytest.raises(UsageError):
        scheduler.submit(wanted)


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size must be at least 1, got 0"):
        Scheduler(ToyEngine(), batch_size=0)


def test_removing_samples_frees_them_wherever_they_are() -> None:
    engine = ToyEngine()
    scheduler = Scheduler(engine, batch_size=2)
    running, long_prompt, waiting, other = (scheduler.submit(r) for r in (MIXED[0], MIXED[5], MIXED[1], MIXED[6]))
    scheduler.step()
    for number in (running, long_prompt, waiting, other, other):
        scheduler.remove(number)
    assert not scheduler.busy
    assert engine.sequences == {}


def test_removing_one_of_several_leaves_the_prompt_to_the_others() -> None:
    engine = ToyEngine()
    scheduler = Scheduler(engine)
    first, second = scheduler.submit(request(stream=0)), scheduler.submit(request(stream=1))
    scheduler.remove(first)
    drawn = []
    while scheduler.busy:
        drawn += [event.token for event in scheduler.step() if event.request == second]
    assert drawn == by_hand(request(stream=1))


@pytest.mark.parametrize("call", [1, 2, 5])
def test_an_interrupt_within_the_engine_leaves_nothing_behind(call: int) -> None:
    engine = ToyEngine()
    engine.fail_at = call
    with pytest.raises(KeyboardInterrupt):
        run(engine, MIXED)
    assert engine.sequences == {}


def test_events_carry_the_log_probability_of_the_unfiltered_model() -> None:
    with Scheduler(ToyEngine()) as scheduler:
        scheduler.submit(request(params=SamplingParams(temperature=0), limit=1))
        (event,) = scheduler.step()
    logits = toy_logits([1, 2, 3]).astype(np.float64)
    assert event.last
    assert event.token == logits.argmax()
    assert event.logprob == pytest.approx(logits.max() - np.log(np.exp(logits).sum()), abs=1e-6)
