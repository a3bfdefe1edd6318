"""The thread between scheduler and event loop, with a scheduler whose steps a test lets happen one by one."""

from __future__ import annotations

import asyncio
from functools import partial
from queue import Queue
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from gpt2lab.generation.completion import Transcript
from gpt2lab.generation.requests import Event
from gpt2lab.serving.metrics import Metrics
from gpt2lab.serving.samples import Sample
from gpt2lab.serving.worker import Full, Job, Worker
from gpt2lab.tokenizer import Tokenizer


class OneByOne:
    """A scheduler that draws token 262 for every sample at each step that is allowed, and records its calls."""

    def __init__(self) -> None:
        self.allowed: Queue[None] = Queue()
        self.notes: list[str] = []
        self.samples: list[int] = []
        self.let_in: list[int] = []
        self.known: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self.samples)

    def submit(self, request: object, owner: object = None, client: object = None) -> int:
        self.samples.append(len(self.notes))
        self.notes.append("submit")
        self.let_in.append(self.samples[-1])
        return self.samples[-1]

    def remove(self, id: int) -> None:
        if id in self.samples:
            self.samples.remove(id)
            self.notes.append("remove")

    def step(self) -> list[Event]:
        self.notes.append("step")
        self.allowed.get(timeout=10)
        return [Event(id, 262, -1.0, False) for id in self.samples]

    def close(self) -> None:
        self.samples.clear()


def sample(number: int = 0, whole: bool = False) -> Sample:
    tokenizer = Tokenizer.gpt2()
    return Sample(number, Transcript(tokenizer), tokenizer, whole=whole, logprobs=False, offset=0)


def run(test, capacity=2):
    """Run ``test(worker, scheduler)`` with a worker that has started."""
    scheduler = OneByOne()

    async def main() -> None:
        model = SimpleNamespace(scheduler=lambda **_: scheduler)
        worker = Worker(model, batch_size=1, capacity=capacity, metrics=Metrics().of_model("m"), prompts=Mock())  # type: ignore[arg-type]
        worker.start()
        try:
            await asyncio.wait_for(test(worker, scheduler), 20)
        finally:
            for _ in range(3):
                scheduler.allowed.put(None)
            worker.stop()

    asyncio.run(main())


def test_what_is_drawn_comes_step_by_step():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        job = Job([(object(), sample())])  # type: ignore[list-item]
        worker.submit(job)
        for _ in range(3):
            scheduler.allowed.put(None)
            assert [delta.text for delta in await job.take()] == [" the"]
        worker.cancel(job)

    run(check)


def test_a_cancelled_job_is_gone_before_the_next_step():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        job = Job([(object(), sample())])  # type: ignore[list-item]
        worker.submit(job)
        scheduler.allowed.put(None)
        await job.take()
        worker.cancel(job)
        assert worker.outstanding == 0 and await job.take() == []
        scheduler.allowed.put(None)  # the step that was under way
        while scheduler.busy:
            await asyncio.sleep(0.001)
        assert scheduler.notes[-1] == "remove" and scheduler.notes.count("step") <= 2

    run(check)


def test_a_job_that_leaves_before_it_began_never_runs():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        first, second = Job([(object(), sample())]), Job([(object(), sample())])  # type: ignore[list-item]
        worker.submit(first)
        while "step" not in scheduler.notes:
            await asyncio.sleep(0.001)
        worker.submit(second)
        worker.cancel(second)
        scheduler.allowed.put(None)
        await first.take()
        worker.cancel(first)
        assert second.deltas == first.deltas

    run(check)


def test_a_job_that_cannot_begin_ends_and_the_next_one_runs():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        submit = scheduler.submit

        def fail(request: object, owner: object = None, client: object = None) -> int:
            scheduler.submit = submit  # type: ignore[method-assign]
            raise MemoryError("no memory left")

        scheduler.submit = fail  # type: ignore[method-assign]
        first, second = Job([(object(), sample())]), Job([(object(), sample())])  # type: ignore[list-item]
        worker.submit(first)
        with pytest.raises(MemoryError):
            await first.take()
        worker.submit(second)
        scheduler.allowed.put(None)
        assert [delta.text for delta in await second.take()] == [" the"]
        worker.cancel(second)

    run(check)


def test_a_client_that_left_before_a_failure_takes_no_other_sample_with_it():
    first, second = Job([(object(), sample())]), Job([(object(), sample())])  # type: ignore[list-item]
    model = SimpleNamespace(scheduler=lambda **_: OneByOne())
    worker = Worker(model, batch_size=1, capacity=2, metrics=Metrics().of_model("m"), prompts=Mock())  # type: ignore[arg-type]
    worker._open_scheduler()
    worker._submit(first)
    worker._open_scheduler()  # after a failed step: numbers begin again
    worker._submit(second)
    assert first.ids == second.ids
    worker._drop(first)
    assert worker._running.takers.keys() == set(second.ids)


def test_no_more_samples_wait_than_may():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        worker.submit(job := Job([(object(), sample()), (object(), sample(1))]))  # type: ignore[list-item]
        with pytest.raises(Full):
            worker.submit(Job([(object(), sample())]))  # type: ignore[list-item]
        worker.cancel(job)
        worker.submit(again := Job([(object(), sample())]))  # type: ignore[list-item]
        worker.cancel(again)
        assert worker.outstanding == 0

    run(check)


def test_samples_without_a_token_to_draw_end_at_once():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        worker.submit(job := Job([None]))
        assert [delta.finish for delta in await job.take()] == ["length"]
        assert await job.take() == [] and scheduler.notes == []

    run(check)


def test_jobs_that_read_prompts_take_turns_after_each_prompt():
    async def check(worker: Worker, scheduler: OneByOne) -> None:
        read: list[str] = []

        def reading(name: str):
            for piece in range(2):
                read.append(f"{name}.{piece}")
                yield
            return name

        jobs = [
            Job([None], [partial(reading, name) for name in names]) for names in (["a1", "a2", "a3"], ["b1"], ["c1"])
        ]
        for job in jobs:
            worker.submit(job)
        for job in jobs:
            await job.take()
        begun = [each.removesuffix(".0") for each in read if each.endswith(".0")]
        assert begun.index("a2") > begun.index("b1") and begun.index("a2") > begun.index("c1")
        assert all(f"{name}.1" == read[read.index(f"{name}.0") + 1] for name in begun), "two prompts were held at once"
        assert [job.found for job in jobs] == [["a1", "a2", "a3"], ["b1"], ["c1"]]

    run(check, capacity=3)


def test_a_whole_sample_is_told_once():
    one = sample(whole=True)
    assert one.push(Event(0, 262, -1.0, False)) is None
    delta = one.push(Event(0, 262, -2.0, True))
    assert delta and delta.text == " the the" and delta.finish == "length"
    assert (delta.n_tokens, delta.mean_logprob) == (2, -1.5)
