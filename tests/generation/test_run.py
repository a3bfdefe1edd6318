"""Events reach the takers of their samples, and samples leave the scheduler as soon as they end."""

from __future__ import annotations

from itertools import count

import pytest

from gpt2lab.generation.requests import Event, Request
from gpt2lab.generation.run import Running
from gpt2lab.sampling import SamplingParams

REQUEST = Request((1,), SamplingParams(), seed=0, stream=0, limit=9)


class Scheduler:
    def __init__(self) -> None:
        self._ids = count(7)
        self.removed: list[int] = []

    def submit(self, request: Request, owner: object = None, client: object = None) -> int:
        return next(self._ids)

    def remove(self, id: int) -> None:
        self.removed.append(id)


class Taker:
    """A taker that ends with token 0."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False

    def push(self, event: Event) -> str:
        self.ended = event.token == 0
        return f"{self.name}{event.token}"


@pytest.fixture
def running() -> Running[Taker]:
    running: Running[Taker] = Running(Scheduler())  # type: ignore[arg-type]
    for name in "ab":
        running.submit(REQUEST, Taker(name))
    return running


def told(running: Running[Taker], *tokens: tuple[int, int]) -> list[str]:
    return [what for _, what in running.push(Event(id, token, -1.0, False) for id, token in tokens)]


def test_tokens_reach_the_taker_of_their_sample(running: Running[Taker]) -> None:
    assert told(running, (8, 3), (7, 4), (8, 5)) == ["b3", "a4", "b5"]
    assert running._scheduler.removed == []


def test_what_ends_leaves_the_scheduler_and_takes_nothing_more(running: Running[Taker]) -> None:
    assert told(running, (7, 0), (7, 1), (8, 1)) == ["a0", "b1"]
    assert running._scheduler.removed == [7]
    assert list(running.takers) == [8]


def test_a_sample_that_is_taken_away_takes_nothing_more(running: Running[Taker]) -> None:
    for _ in range(2):
        running.remove(8)
    assert told(running, (8, 1), (7, 1)) == ["a1"]
    assert running._scheduler.removed == [8]
