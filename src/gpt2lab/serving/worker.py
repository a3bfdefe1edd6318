"""The thread that owns a model's scheduler: jobs come in through a queue, drawn tokens go out to an event loop.

Between two steps the thread takes commands: to begin new jobs, and to drop jobs whose client has gone, so that they
hold nothing when the next step begins. The event loop is woken once per step, with everything that the step drew. A
client that reads slowly does no harm: only the rest of its own result is buffered. This module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Generator, Hashable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2lab.errors import ContextError, Gpt2LabError, UsageError
from gpt2lab.generation.run import Running
from gpt2lab.serving.samples import Delta, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt2lab.engines.hooks import Edit
    from gpt2lab.generation.kept import KeptPrompts
    from gpt2lab.generation.requests import Event, Request
    from gpt2lab.model import LanguageModel
    from gpt2lab.serving.metrics import ModelMetrics

log = logging.getLogger("gpt2lab.serving")

Reading = Generator[None, None, Any]
"""A generator that reads a prompt piece by piece, while other samples run in between, and returns its result."""

REST_SECONDS = 60.0
"""Idle time after which memory that nothing uses is returned to the system."""


class Full(Exception):
    """The error raised for a job whose samples exceed the worker's capacity."""


class Refused(Exception):
    """The end of a job that asks for what the model cannot do."""


@dataclass
class Times:
    """The times of a job's events, as read from :func:`time.perf_counter`; written by the worker's thread."""

    submitted: float = field(default_factory=time.perf_counter)
    began: float | None = None
    """When the first piece of its prompts was about to be read."""
    first: float | None = None
    """When the first token had been drawn."""
    last: float | None = None
    """When the latest token had been drawn."""

    def spent(self) -> dict[str, float]:
        """Return the seconds until the job began, from then to the first token, and from then to the last one."""
        began = self.submitted if self.began is None else self.began
        first = began if self.first is None else self.first
        last = first if self.last is None else self.last
        parts = {"queued": began - self.submitted, "prompt": first - began, "drawing": last - first}
        return {name: round(seconds, 6) for name, seconds in parts.items()}


@dataclass(eq=False)
class Job:
    """The work of one HTTP request on a model. Fields belong to the event loop unless another owner is named."""

    samples: Sequence[tuple[Request, Sample] | None]
    """Requests to the scheduler, each with the sample that takes its tokens; None if no token is to be drawn."""
    readings: Sequence[Callable[[], Reading]] = ()
    """Prompts to read before any sample starts."""
    found: list[Any] = field(default_factory=list)
    """The results of ``readings``."""
    edits: Callable[[], Reading] | None = None
    """Reads last, and returns the edits of all its samples."""
    times: Times = field(default_factory=Times)
    unfinished: int = 0
    """The number of samples that have not ended."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    deltas: deque[Delta] = field(default_factory=deque)
    error: Exception | None = None
    client: Hashable = None
    """The client; only its own earlier texts are reused."""
    known: dict[int, int] = field(default_factory=dict)
    """Number of a sample that has drawn → number of its prompt's tokens that were kept; written by the thread."""
    ids: list[int] = field(default_factory=list)
    """The scheduler's numbers of the samples; owned by the thread."""
    gone: bool = False
    """Whether its client has left."""

    async def take(self) -> list[Delta]:
        """Wait for deltas and return all since the last call, at least one; empty once every sample has ended.

        Raises the error that the model failed with.
        """
        while not self.deltas:
            if self.error:
                raise self.error
            if not self.unfinished:
                return []
            self.arrived.clear()
            await self.arrived.wait()
        deltas = list(self.deltas)
        self.deltas.clear()
        return deltas


class _Taker(NamedTuple):
    """A running sample and its job."""

    job: Job
    sample: Sample

    @property
    def ended(self) -> bool:
        return self.sample.ended

    def push(self, event: Event) -> Delta | None:
        return self.sample.push(event)


class Worker:
    """A thread that runs jobs on ``model``. Only the event loop that called :meth:`start` may submit and cancel."""

    def __init__(
        self, model: LanguageModel, *, batch_size: int, capacity: int, metrics: ModelMetrics, prompts: KeptPrompts
    ) -> None:
        self._model = model
        self._capacity = capacity
        self._metrics = metrics
        self._prompts = prompts
        self._make_scheduler = partial(model.scheduler, batch_size=batch_size, sequences=prompts)
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="gpt2lab engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.at_rest: Callable[[], None] = lambda: None
        """Function that the thread calls when it has been idle for :data:`REST_SECONDS`."""
        self._jobs: set[Job] = set()
        self._outstanding = 0
        # Owned by the thread:
        self._readings: deque[tuple[Job, Generator[bool, None, None]]] = deque()

    @property
    def outstanding(self) -> int:
        """The number of samples that run or wait."""
        return self._outstanding

    @property
    def jobs(self) -> frozenset[Job]:
        """The jobs that have not ended."""
        return frozenset(self._jobs)

    def start(self) -> None:
        """Start the thread for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Drop all jobs and end the thread; may take as long as a step."""
        self._commands.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Run ``job``. Raises :class:`Full` if the samples that run or wait would exceed the capacity."""
        n = len(job.samples)
        if self._outstanding + n > self._capacity:
            raise Full
        job.unfinished = n
        self._outstanding += n
        self._jobs.add(job)
        self._metrics.outstanding.set(self._outstanding)
        self._commands.put(partial(self._begin, job))

    def cancel(self, job: Job, error: Exception | None = None) -> None:
        """Free what ``job`` holds before the next step; do nothing if it has ended."""
        if job in self._jobs:
            self._commands.put(partial(self._drop, job))
            self._end(job, error)

    # ---- the event loop's side --------------------------------------------------------------------------------------

    def _deliver(self, deltas: list[tuple[Job, Delta]]) -> None:
        for job, delta in deltas:
            if job.gone:
                continue
            job.deltas.append(delta)
            job.arrived.set()
            if delta.finish:
                job.unfinished -= 1
                self._outstanding -= 1
                if not job.unfinished:
                    self._jobs.discard(job)
        self._metrics.outstanding.set(self._outstanding)

    def _end(self, job: Job, error: Exception | None) -> None:
        if job not in self._jobs:
            return
        self._jobs.discard(job)
        self._outstanding -= job.unfinished
        self._metrics.outstanding.set(self._outstanding)
        job.gone, job.unfinished, job.error = True, 0, error
        job.arrived.set()

    # ---- the thread's side ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._open_scheduler()
        try:
            while True:
                try:
                    if not self._obey():
                        break
                    self._work()
                except Exception as error:
                    self._fail(error)
        finally:
            self._scheduler.close()
            self.at_rest()

    def _open_scheduler(self) -> None:
        self._scheduler = self._make_scheduler()
        self._running: Running[_Taker] = Running(self._scheduler)

    def _obey(self) -> bool:
        """Carry out waiting commands, and wait for one if there is no work. Returns False to end the thread."""
        idle = not (self._scheduler.busy or self._readings)
        try:
            while True:
                command = self._commands.get(block=idle, timeout=REST_SECONDS)
                if command is None:
                    return False
                command()
                idle = idle and not (self._scheduler.busy or self._readings)
        except Empty:
            if idle:
                self.at_rest()
        return True

    def _work(self) -> None:
        """Read one piece of a prompt, and run one step."""
        began = time.perf_counter()
        if self._readings:
            job, reading = self._readings[0]
            job.times.began = job.times.began or began
            try:
                if next(reading):
                    self._readings.rotate(-1)
            except StopIteration:
                self._readings.popleft()
            except (ContextError, UsageError) as error:  # what this job asks for is at fault: the others go on
                self._readings.popleft()
                self._tell(partial(self._end, job, Refused(str(error))))
        if not self._scheduler.busy:
            return
        began = time.perf_counter()
        events = self._scheduler.step()
        self._note_times(began, events)
        for taker, known in ((self._running.takers[id], n) for id, n in self._scheduler.known.items()):
            taker.job.known[taker.sample.number] = known
        deltas = [(taker.job, delta) for taker, delta in self._running.push(events) if delta]
        self._metrics.step(len(events))
        if deltas:
            self._tell(partial(self._deliver, deltas))

    def _note_times(self, began: float, events: list[Event]) -> None:
        """Record the times of the jobs that a step, which began at ``began``, admitted or drew for."""
        for id in self._scheduler.let_in:
            times = self._running.takers[id].job.times
            times.began = times.began or began
        now = time.perf_counter()
        for event in events:
            if taker := self._running.takers.get(event.request):
                times = taker.job.times
                times.first = times.first or now
                times.last = now

    def _begin(self, job: Job) -> None:
        try:
            if job.readings or job.edits:
                self._readings.append((job, self._read(job)))
            else:
                self._submit(job)
        except Exception as error:  # some of its samples may not run yet: _fail() would not find it
            self._tell(partial(self._end, job, error))
            raise

    def _read(self, job: Job) -> Generator[bool, None, None]:
        """Read the job's prompts, then submit its samples.

        Yields after each piece: False, or True before another prompt, when it is another job's turn. So jobs take
        turns, and only one prompt at a time holds keys and values.
        """
        found: list[Any] = []
        for reading in job.readings:
            if found:
                yield True
            found.append((yield from _pieces(reading)))
        job.found = found  # set before the first delta arrives
        edits = tuple((yield from _pieces(job.edits))) if job.edits else ()
        self._submit(job, edits)

    def _submit(self, job: Job, edits: tuple[Edit, ...] = ()) -> None:
        empty: list[tuple[Job, Delta]] = []
        for number, wanted in enumerate(job.samples):
            if wanted is None:
                empty.append((job, Delta(number, "", finish="length")))
                continue
            request, sample = wanted
            if edits:
                request = request._replace(edits=edits)
            job.ids.append(self._running.submit(request, _Taker(job, sample), job, job.client))
        if empty:
            self._tell(partial(self._deliver, empty))

    def _drop(self, job: Job) -> None:
        for id in job.ids:
            taker = self._running.takers.get(id)
            if taker is not None and taker.job is job:  # after a failure, numbers begin again
                self._running.remove(id)
        for waiting, reading in [*self._readings]:
            if waiting is job:
                reading.close()
                self._readings.remove((waiting, reading))

    def _fail(self, error: Exception) -> None:
        """Handle an error in a step: end every job, running or waiting, and continue with a new scheduler."""
        if not isinstance(error, Gpt2LabError | MemoryError):
            log.exception("the model failed")
        else:
            log.error("the model failed: %s", error)
        jobs = {taker.job for taker in self._running.takers.values()} | {job for job, _ in self._readings}
        for _, reading in self._readings:
            reading.close()
        self._readings.clear()
        self._scheduler.close()
        self._prompts.clear()
        self._open_scheduler()
        self._metrics.failures.inc()
        for job in jobs:
            self._tell(partial(self._end, job, error))

    def _tell(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call)


def _pieces(reading: Callable[[], Reading]) -> Generator[bool, None, Any]:
    """Yield False after each piece of a reading; return its result."""
    with closing(reading()) as pieces:
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return end.value
            yield False
