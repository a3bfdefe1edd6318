"""Kept prompts: the same tokens and log-probabilities, to the bit; fewer tokens fed; bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt2lab
from gpt2lab.engines.protocol import Engine
from gpt2lab.errors import UsageError
from gpt2lab.generation import kept as module
from gpt2lab.generation.kept import IDLE_SECONDS, KeptPrompts, n_common
from gpt2lab.generation.requests import Request
from gpt2lab.generation.run import in_order
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.sampling import SamplingParams

from .test_scheduler import ToyEngine, by_hand, request
from .test_speculation import Eager

TINY = Path(__file__).parents[1] / "golden" / "tiny"
MUCH = 1 << 40


class Toy(ToyEngine):
    """A toy engine whose forks share blocks of 4 tokens; it lacks memory once, at the call ``short_at``."""

    kv_block_tokens = 4

    def __init__(self, n_ctx: int = 2000) -> None:
        super().__init__(n_ctx)
        self.released = 0
        self.short_at: int | None = None

    @property
    def n_fed(self) -> int:
        return sum(len(ids) for call in self.calls for ids in call)

    def release_memory(self) -> None:
        self.released += 1

    def step(self, sequences, tokens, draws):
        if len(self.calls) == self.short_at:
            self.short_at = None
            raise MemoryError
        return super().step(sequences, tokens, draws)


Result = list[tuple[int, float]]


def results(
    engine: Engine, requests: Sequence[Request], kept: KeptPrompts | None = None, batch_size: int | None = None, **more
) -> list[Result]:
    """Run requests together, each with a client; return what each draws.

    ``stops``: request number → number of tokens after which it is removed, as at a stop string.
    """
    clients, guess, stops = more.get("clients", [None] * len(requests)), more.get("guess"), more.get("stops", {})
    drawn: dict[int, Result] = {n: [] for n in range(len(requests))}
    speculation = guess(engine.config) if guess else None
    with Scheduler(engine, batch_size=batch_size, speculation=speculation, sequences=kept) as scheduler:
        for wanted, client in zip(requests, clients, strict=True):
            scheduler.submit(wanted, client=client)
        while scheduler.busy:
            for event in scheduler.step():
                if len(drawn[event.request]) < stops.get(event.request, MUCH):
                    drawn[event.request].append((event.token, event.logprob))
                if len(drawn[event.request]) == stops.get(event.request):
                    scheduler.remove(event.request)
    return list(drawn.values())


def fed_by(engine: Toy, wanted: Request, kept: KeptPrompts, client: object = None) -> int:
    """Return how many tokens the engine is fed for a request, whose result is checked."""
    before = engine.n_fed
    assert [token for token, _ in results(engine, [wanted], kept, clients=[client])[0]] == by_hand(
        wanted, engine.config.n_ctx
    )
    return engine.n_fed - before


# ---- the same to the bit --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Iterator[Engine]:
    """Provide a native engine in float32, and see that nothing is left in it."""
    engine = gpt2lab.load(TINY, precision="float32", threads=1).engine
    yield engine
    assert engine.kv_cache_bytes == 0


@st.composite
def histories(draw) -> list[list[tuple[Request, int, int]]]:
    """Return rounds of requests, each with a client and the number of tokens after which it stops.

    Their prompts begin like earlier prompts and their completions.
    """
    texts: list[tuple[int, ...]] = [(5, 6, 7) * 30]
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        together = []
        for _ in range(draw(st.integers(1, 5))):
            cut = draw(st.integers(0, 80))
            prompt = (*draw(st.sampled_from(texts))[:cut], *draw(st.lists(st.integers(5, 7), max_size=3))) or (5,)
            params = draw(st.sampled_from([SamplingParams(top_k=2), SamplingParams(temperature=0)]))
            wanted = Request(prompt, params, 1, draw(st.integers(0, 2)), draw(st.integers(1, 30)), slide=True)
            together.append((wanted, draw(st.integers(0, 1)), draw(st.integers(1, 40))))
            texts.append(prompt)
        rounds.append(together)
        texts += [(*wanted.prompt, *COLD.of(wanted)) for wanted, _, _ in together]
    return rounds


class Cold:
    """What requests draw on a fresh engine without kept prompts, one by one."""

    def __init__(self) -> None:
        self._engine = gpt2lab.load(TINY, precision="float32", threads=1).engine
        self._known: dict[Request, Result] = {}

    def of(self, wanted: Request) -> list[int]:
        return [token for token, _ in self.result(wanted)]

    def result(self, wanted: Request) -> Result:
        key = wanted._replace(params=wanted.params.temperature)  # type: ignore[arg-type]
        if key not in self._known:
            (self._known[key],) = results(self._engine, [wanted])
        return self._known[key]


COLD = Cold()


@settings(max_examples=60)
@given(
    rounds=histories(),
    n_blocks=st.sampled_from([0, 1, 3, 10, 1000]),
    batch_size=st.sampled_from([None, 1, 2]),
    guess=st.sampled_from([None, Speculation, Eager]),
)
def test_kept_prompts_change_no_bit_and_take_no_more_than_they_may(tiny, rounds, n_blocks, batch_size, guess) -> None:
    """Compare with cold runs: any cut, in batches, with guesses, after eviction, in full contexts, between clients."""
    n_bytes = n_blocks * tiny.kv_block_tokens * tiny.kv_cache_bytes_per_token
    kept = KeptPrompts(tiny, n_bytes)
    try:
        for together in rounds:
            requests, clients, stops = zip(*together, strict=True)
            drawn = results(
                tiny, requests, kept, batch_size, clients=clients, guess=guess, stops=dict(enumerate(stops))
            )
            assert drawn == [COLD.result(wanted)[:n] for wanted, _, n in together]
            assert kept.held_bytes == tiny.kv_cache_bytes <= n_bytes
    finally:
        kept.clear()


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix_is_counted(a: list[int], b: list[int]) -> None:
    n = n_common(a, b)
    assert (a[:n] == b[:n] and a[: n + 1] != b[: n + 1]) or n == len(a) or n == len(b)


# ---- what is fed ----------------------------------------------------------------------------------------------------


def test_a_second_request_is_fed_only_what_is_new() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    long = list(range(40)) * 22
    assert fed_by(engine, request(long, limit=10), kept) == 880 + 9
    answer = by_hand(request(long, limit=10))
    assert fed_by(engine, request(long, 1, limit=10), kept) == 1 + 9  # the same prompt
    assert fed_by(engine, request([*long, *answer[:9], 3, 4], limit=1), kept) == 2  # it goes on with drawn tokens
    assert fed_by(engine, request([*long[:400], 1], limit=1), kept) == 1  # it branches off
    assert fed_by(engine, request(long[:300], limit=1), kept) == 1  # it is a part


def test_a_prompt_is_known_while_the_first_request_still_draws() -> None:
    engine = Toy()
    with Scheduler(engine, sequences=KeptPrompts(engine, MUCH)) as scheduler:
        scheduler.submit(request(range(40), limit=50))
        while not scheduler.step():
            pass
        second = scheduler.submit(request([*range(40), 1, 2]))
        fed = engine.n_fed
        scheduler.step()
        assert engine.n_fed - fed == 1 + 2 and scheduler.known == {second: 40}


def test_requests_that_came_together_find_what_the_first_of_them_was_fed() -> None:
    engine = Toy()
    prompts = [[*[4] * 600, n] for n in range(5)]
    drawn = results(engine, [request(prompt) for prompt in prompts], KeptPrompts(engine, MUCH))
    assert [[token for token, _ in row] for row in drawn] == [by_hand(request(prompt)) for prompt in prompts]
    assert engine.n_fed < 2 * 600 + 5 * 10


def test_the_prompt_of_a_text_that_slid_is_kept_and_so_is_its_last_window() -> None:
    engine = Toy(n_ctx=20)
    kept = KeptPrompts(engine, MUCH)
    long = request(range(12), limit=60, slide=True)
    fed_by(engine, long, kept)
    assert fed_by(engine, request(range(12), 1, limit=2, slide=True), kept) == 2
    whole = [*range(12), *by_hand(long, 20)]
    assert fed_by(engine, request(whole, limit=1, slide=True), kept) == 1


def test_the_scheduler_reports_how_much_of_each_prompt_was_known() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    for _ in range(2):
        with Scheduler(engine, sequences=kept) as scheduler:
            one = scheduler.submit(request(range(9), limit=1))
            other = scheduler.submit(request(range(9), 1, limit=1))
            known = {}
            while scheduler.busy:
                scheduler.step()
                known |= scheduler.known
    assert known == {one: 8, other: 8}


def test_clients_find_only_their_own() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    prompt = list(range(30))
    assert fed_by(engine, request(prompt, limit=1), kept, "a") == 30
    assert fed_by(engine, request(prompt, limit=1), kept, "b") == 30
    assert fed_by(engine, request(prompt, limit=1), kept, "a") == 1
    two = [request([9] * 30, limit=1), request([9] * 30, limit=1)]
    before = engine.n_fed
    results(engine, two, kept, clients=["a", "b"])  # nor do they share a prompt that both wait for
    assert engine.n_fed - before == 60


# ---- memory ---------------------------------------------------------------------------------------------------------


def kept_texts(kept: KeptPrompts) -> list[tuple[int, ...]]:
    return [text for _, text in kept._entries]


def test_the_least_recently_used_goes_first() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, 3 * 8)  # three texts of 8 tokens
    for first in (1, 2, 3, 1, 4):
        fed_by(engine, request([first] * 8, limit=1), kept)
    assert sorted(kept_texts(kept)) == [(1,) * 8, (3,) * 8, (4,) * 8]
    assert kept.held_bytes == 24


def test_a_text_that_another_begins_with_is_not_kept_twice() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    for length in (5, 9, 7):
        fed_by(engine, request([1] * length, limit=1), kept)
    assert kept_texts(kept) == [(1,) * 9]
    assert len(engine.sequences) == 1


def test_wrong_guesses_at_the_end_of_a_sequence_are_not_kept() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    sequence = engine.new_sequence()
    engine.step([sequence], [[1, 2, 3, 4, 5, 6]], [None])
    kept.end(sequence, [1, 2, 3])
    assert engine.sequences == {sequence: [1, 2, 3]} and kept.held_bytes == 4


def test_texts_that_share_blocks_are_counted_once() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    results(engine, [request([1] * 17, n, limit=4) for n in range(5)], kept)  # 16 tokens fed once for all
    assert len(kept_texts(kept)) == 5
    assert kept.held_bytes == 16 + 5 * 4


def test_a_text_larger_than_the_bound_is_not_kept() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, 10)
    fed_by(engine, request([1] * 40, limit=1), kept)
    assert kept.held_bytes == 0 and engine.sequences == {}


def test_kept_prompts_take_only_a_share_of_the_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 100)
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    for first in range(8):
        fed_by(engine, request([first] * 8, limit=1), kept)
    assert kept.held_bytes == 32  # a quarter of 100 and of what they hold


def test_a_step_that_lacks_memory_gets_that_of_kept_prompts_and_draws_the_same() -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH)
    fed_by(engine, request([1] * 8), kept)
    engine.short_at = len(engine.calls) + 2
    fed_by(engine, request([2] * 8), kept)
    assert engine.short_at is None and engine.released == 1
    assert (1,) * 8 not in {text[:8] for text in kept_texts(kept)}


def test_a_step_that_lacks_memory_fails_if_nothing_is_kept() -> None:
    engine = Toy()
    engine.short_at = 0
    with pytest.raises(MemoryError):
        results(engine, [request()], KeptPrompts(engine, MUCH))
    assert engine.sequences == {}


class Clock:
    """A clock that stands still until a test moves it, with the timers that wait for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting: list[Timer] = []

    def __call__(self) -> float:
        return self.now

    def ring(self) -> None:
        """Move on to the time of the only timer, and let it call its function."""
        (timer,) = self.waiting
        self.waiting.clear()
        self.now = timer.due
        timer.call()


class Timer:
    """A timer of a clock."""

    def __init__(self, clock: Clock, seconds: float, function: Callable[..., None], arguments: list[object]) -> None:
        self.due = clock.now + seconds
        self.call = partial(function, *arguments)
        self.start = partial(clock.waiting.append, self)
        self.is_alive = lambda: self in clock.waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "Timer", partial(Timer, clock))
    return clock


def test_what_was_not_used_for_a_while_is_released(clock: Clock) -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH, clock)
    fed_by(engine, request([1] * 8, limit=1), kept)
    clock.now += IDLE_SECONDS / 2
    fed_by(engine, request([2] * 8, limit=1), kept)
    clock.ring()
    assert kept_texts(kept) == [(2,) * 8] and engine.released == 1
    clock.ring()
    assert kept_texts(kept) == [] and engine.sequences == {} and engine.released == 2
    assert clock.waiting == []


def test_what_is_used_again_stays(clock: Clock) -> None:
    engine = Toy()
    kept = KeptPrompts(engine, MUCH, clock)
    fed_by(engine, request([1] * 8, limit=1), kept)
    clock.now += IDLE_SECONDS / 2
    fed_by(engine, request([1] * 8, limit=1), kept)
    clock.ring()
    assert kept_texts(kept) == [(1,) * 8] and engine.released == 0


# ---- through the model ----------------------------------------------------------------------------------------------


def test_a_model_with_a_prompt_cache_generates_the_same_and_keeps_it_within_bounds() -> None:
    cold = gpt2lab.load(TINY, precision="float32", threads=1)
    model = gpt2lab.load(TINY, precision="float32", threads=1, prompt_cache=1 << 20)
    text = "Once upon a time"
    for turn in range(4):
        expected = cold.generate(text, length=8, seed=turn, logprobs=True)
        assert model.generate(text, length=8, seed=turn, logprobs=True) == expected
        text += expected.text
    assert 0 < model.engine.kv_cache_bytes <= 1 << 20  # type: ignore[attr-defined]
    assert cold.engine.kv_cache_bytes == 0  # type: ignore[attr-defined]


def test_custom_stages_and_a_draft_model_draw_the_same_from_a_kept_prompt() -> None:
    def fails_at_nine(logits: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        if len(tokens) == 9:
            raise ValueError
        return logits * 2

    how = {"precision": "float32", "threads": 1}
    cold = gpt2lab.load(TINY, draft=TINY, **how)  # type: ignore[arg-type]
    warm = gpt2lab.load(TINY, draft=TINY, prompt_cache=1 << 20, **how)  # type: ignore[arg-type]
    for _ in range(2):
        for prompt in ([5, 6, 7, 8], [5, 6, 7, 9], [5, 6, 7, 8] * 5):
            for stages in ((), (fails_at_nine,)):
                expected, found = (
                    [*in_order(model.pieces(prompt, n=2, length=8, seed=1, stages=stages))] for model in (cold, warm)
                )
                assert [str(each) for each in found] == [str(each) for each in expected]
    assert warm.engine.kv_cache_bytes == warm.sequences.held_bytes > 0  # type: ignore[attr-defined]


def test_threads_share_a_model_s_prompt_cache() -> None:
    cold = gpt2lab.load(TINY, precision="float32", threads=1)
    model = gpt2lab.load(TINY, precision="float32", threads=1, prompt_cache=100_000)
    prompts = [[5] * n for n in range(1, 40)]
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        found[number] = [model.generate(prompt, n=1, length=5, seed=1) for prompt in prompts[number::2] * 2]

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [cold.generate(prompt, n=1, length=5, seed=1) for prompt in prompts]
    assert found == {number: alone[number::2] * 2 for number in range(4)}
    assert model.engine.kv_cache_bytes == model.sequences.held_bytes <= 100_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [-1, 1.5, "much"])
def test_a_prompt_cache_of_no_size_is_refused(size) -> None:
    with pytest.raises(UsageError, match="prompt_cache must be"):
        gpt2lab.load(TINY, prompt_cache=size)
