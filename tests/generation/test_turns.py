"""Requests of several owners take turns, and pausing a sample changes no text."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import gpt2lab
from gpt2lab.generation.admission import MANY
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import KV_CACHE_SHARE, PREFILL_CHUNK, Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.sampling import SamplingParams

from .test_scheduler import MIXED, ToyEngine, by_hand, mixed_requests, request


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return ``budget(n)``, which lets the samples of a scheduler on a toy engine reserve n tokens."""

    def set_to(n: int) -> None:
        monkeypatch.setattr("gpt2lab.generation.scheduler.available_memory", lambda: n * KV_CACHE_SHARE)

    return set_to


def rows(scheduler: Scheduler) -> list[int]:
    """Return the numbers of the samples that draw in the next step."""
    return [event.request for event in scheduler.step()]


def test_a_small_request_beside_a_large_one_draws_at_each_step() -> None:
    with Scheduler(ToyEngine(), batch_size=4) as scheduler:
        large = [scheduler.submit(request([1], n, limit=50), "large") for n in range(8)]
        assert rows(scheduler) == large[:4]
        small = scheduler.submit(request([2], limit=3), "small")
        assert [rows(scheduler) for _ in range(3)] == [[*large[:3], small]] * 3
        assert rows(scheduler) == large[:4]  # the one that paused runs again before those that have not begun


def test_two_large_requests_run_with_as_many_samples_each() -> None:
    with Scheduler(ToyEngine(), batch_size=6) as scheduler:
        first = [scheduler.submit(request([1], n, limit=50), "first") for n in range(6)]
        rows(scheduler)
        second = [scheduler.submit(request([2], n, limit=50), "second") for n in range(6)]
        assert rows(scheduler) == [*first[:3], *second[:3]]
        third = [scheduler.submit(request([3], n, limit=50), "third") for n in range(6)]
        assert sorted(rows(scheduler)) == sorted([*first[:2], *second[:2], *third[:2]])


def test_a_large_request_has_half_of_many_places_beside_a_small_one() -> None:
    with Scheduler(ToyEngine(), batch_size=MANY) as scheduler:
        large = [scheduler.submit(request([1], n, limit=50), "large") for n in range(MANY + 8)]
        assert rows(scheduler) == large[:MANY]
        small = scheduler.submit(request([2], limit=2), "small")
        assert [rows(scheduler) for _ in range(2)] == [[*large[: MANY // 2], small]] * 2
        assert rows(scheduler) == large[:MANY]


def test_the_samples_of_a_large_request_pause_in_turn() -> None:
    with Scheduler(ToyEngine(), batch_size=MANY) as scheduler:
        large = {scheduler.submit(request([1], n, limit=21), "large") for n in range(MANY)}
        while scheduler.busy:
            small = scheduler.submit(request([2], limit=1), "small")
            last = [event.request for _ in range(2) for event in scheduler.step() if event.last]
            assert set(last) - {small} in (set(), large)


def test_owners_take_turns_where_there_are_fewer_places_than_owners() -> None:
    with Scheduler(ToyEngine(), batch_size=1) as scheduler:
        large = [scheduler.submit(request([1], n, limit=1), "large") for n in range(4)]
        small = scheduler.submit(request([2], limit=1), "small")
        assert [rows(scheduler) for _ in range(5)] == [[n] for n in (large[0], small, *large[1:])]


def test_the_samples_of_one_owner_run_in_the_order_in_which_they_came() -> None:
    with Scheduler(ToyEngine(), batch_size=2) as scheduler:
        numbers = [scheduler.submit(request([1], n, limit=2), "one") for n in range(6)]
        assert [rows(scheduler) for _ in range(6)] == [numbers[n : n + 2] for n in (0, 0, 2, 2, 4, 4)]


def test_owners_that_have_as_much_as_the_others_wait_in_the_order_in_which_they_came() -> None:
    with Scheduler(ToyEngine(), batch_size=2) as scheduler:
        numbers = [scheduler.submit(request([1], n, limit=2), n) for n in range(4)]
        assert [rows(scheduler) for _ in range(4)] == [numbers[:2]] * 2 + [numbers[2:]] * 2


def test_a_small_request_takes_memory_from_a_large_one(budget) -> None:
    budget(100)
    engine = ToyEngine()
    wanted = [request([1, 2], n, limit=30) for n in range(3)]
    drawn: dict[int, list[int]] = {n: [] for n in range(4)}
    with Scheduler(engine) as scheduler:
        for each in wanted:
            scheduler.submit(each, "large")
        for _ in range(10):
            for event in scheduler.step():
                drawn[event.request].append(event.token)
        small = scheduler.submit(small_one := request([3], 9, limit=20), "small")
        assert small in rows_into(scheduler, drawn)
        assert len(engine.sequences) == 3  # two large ones and the small one: the third has been freed
        while scheduler.busy:
            rows_into(scheduler, drawn)
    assert [drawn[n] for n in range(4)] == [by_hand(each) for each in [*wanted, small_one]]
    assert engine.sequences == {}


def test_a_paused_sample_keeps_its_sequence_while_no_place_is_free(budget) -> None:
    budget(100)
    engine = ToyEngine()
    with Scheduler(engine, batch_size=2) as scheduler:
        for n in range(2):
            scheduler.submit(request([1, 2], n, limit=30), "large")
        scheduler.step()
        scheduler.submit(request([3], limit=20), "small")
        scheduler.step()
        held = set(engine.sequences)
        third = scheduler.submit(request([4], limit=30), "third")  # it fits neither the places nor the memory
        assert third not in rows(scheduler)
        assert set(engine.sequences) == held
        while scheduler.busy:
            scheduler.step()


def rows_into(scheduler: Scheduler, drawn: dict[int, list[int]]) -> list[int]:
    events = scheduler.step()
    for event in events:
        drawn[event.request].append(event.token)
    return [event.request for event in events]


@pytest.mark.parametrize("tokens", [10**6, 150, 60])
@pytest.mark.parametrize(("batch_size", "speculation"), [(1, False), (3, False), (6, False), (6, True)])
def test_what_is_drawn_does_not_depend_on_who_else_comes(
    batch_size: int, speculation: bool, tokens: int, budget
) -> None:
    budget(tokens)
    rng = random.Random(batch_size)
    engine, wanted = ToyEngine(n_ctx=40), mixed_requests(40, 40)
    drawn: dict[int, list[int]] = {n: [] for n in range(len(wanted))}
    guesses = Speculation(engine.config) if speculation else None
    with Scheduler(engine, batch_size=batch_size, speculation=guesses) as scheduler:
        for each in wanted:
            scheduler.submit(each, rng.choice("abcdef"))
            for _ in range(rng.randrange(4)):
                rows_into(scheduler, drawn)
        while scheduler.busy:
            rows_into(scheduler, drawn)
    assert drawn == {n: by_hand(each, 40) for n, each in enumerate(wanted)}
    assert engine.sequences == {}
    assert max(map(len, engine.calls)) <= batch_size


def test_a_short_prompt_does_not_wait_for_the_long_prompts_of_others() -> None:
    engine = ToyEngine()
    with Scheduler(engine) as scheduler:
        for n in range(8):
            scheduler.submit(request([n] * 1000, n), "long")
        scheduler.step()
        small = scheduler.submit(request(range(5)), "short")
        assert small in rows(scheduler) + rows(scheduler)
        assert max(sum(map(len, call)) for call in engine.calls) <= 2 * PREFILL_CHUNK + 1


@pytest.mark.parametrize("steps", [1, 5])
def test_removing_paused_samples_frees_them(steps: int, budget) -> None:
    budget(150)
    engine = ToyEngine()
    scheduler = Scheduler(engine, batch_size=2)
    numbers = [scheduler.submit(each, "large") for each in (MIXED[2], MIXED[2])]
    for _ in range(steps):
        scheduler.step()
    numbers += [scheduler.submit(request([5], 1, limit=9), "small")]
    scheduler.step()
    for number in numbers:
        scheduler.remove(number)
    assert not scheduler.busy
    assert engine.sequences == {}


def test_pausing_changes_no_bit_of_the_native_engines_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2lab.load("tales", threads=1)
    long = [Request((7454, 2402, 257), SamplingParams(), 7, n, limit=40) for n in range(4)]
    short = [Request((464, 5822), SamplingParams(), 8, n, limit=4) for n in range(6)]

    def run(tokens: int) -> dict[int, list[tuple[int, float]]]:
        """Draw the long ones together and, every two steps, a short one more."""
        memory = tokens * KV_CACHE_SHARE * model.engine.kv_cache_bytes_per_token
        monkeypatch.setattr("gpt2lab.generation.scheduler.available_memory", lambda: memory)
        drawn: dict[int, list[tuple[int, float]]] = {n: [] for n in range(10)}
        with model.scheduler(batch_size=4, speculation="off") as scheduler:
            for each in long:
                scheduler.submit(each, "long")
            waiting = list(short)
            while scheduler.busy:
                for event in scheduler.step() + scheduler.step():
                    drawn[event.request].append((event.token, event.logprob))
                if waiting:
                    scheduler.submit(waiting[0], waiting.pop(0).stream)
        return drawn

    alone = {}
    for n, each in enumerate([*long, *short]):
        with model.scheduler(speculation="off") as scheduler:
            scheduler.submit(each)
            alone[n] = [(event.token, event.logprob) for _ in range(each.limit) for event in scheduler.step()]
    assert run(10**6) == alone
    assert run(130) == alone
