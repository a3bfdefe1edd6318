"""``/watch``: a page that shows training runs, the events that keep it up to date, and samples.

While any client watches, one task for all of them looks at the runs once a second. Each client is sent what it does not
have yet, so a client that reads slowly only misses intermediate states.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from gpt2lab.serving.errors import ApiError, stopping
from gpt2lab.serving.guards import RECORD
from gpt2lab.serving.long_json import dumps
from gpt2lab.serving.page_files import file_response
from gpt2lab.serving.streams import EventStream
from gpt2lab.serving.watch.run import Cursor, Run

if TYPE_CHECKING:
    from gpt2lab.serving.service import Service

PAGE = "/watch"
EVENTS, SAMPLES = "/watch/events", "/watch/samples"
ROUTES = (PAGE, EVENTS, SAMPLES)

LOOK_SECONDS = 1.0
"""Time between two looks at the runs."""
REST_SECONDS = 0.2
"""The least time between two rounds of events to one client, however much is new."""
BEAT_SECONDS = 15.0
"""Time after which an event is sent even if nothing is new, so that both sides notice a dead connection."""
MOST_WATCHERS = 64
THREADS = 4
"""The number of threads that read files: a network disk that does not answer holds up only clients that watch."""

Result = TypeVar("Result")

log = logging.getLogger("gpt2lab.serving")


def add_watching(app: FastAPI, service: Service) -> None:
    """Add the routes to ``app``."""
    watch = Watch(service.runs)

    async def page(request: Request) -> Response:
        return await run_in_threadpool(file_response, request, "watch.html")

    async def events(request: Request) -> Response:
        """Stream the state of every run, then its changes, as server-sent events."""
        if service.draining:
            raise stopping()
        if watch.watchers >= MOST_WATCHERS:
            raise ApiError(429, f"{MOST_WATCHERS} pages are watching already: close one", headers={"Retry-After": "10"})
        watch.enter()

        def left() -> None:
            watch.leave()
            request.scope[RECORD].pop("gone", None)  # the stream has no end, so no client leaves it early

        return EventStream(watch.events(lambda: service.draining), left)

    async def samples(run: str, step: int) -> Response:
        """Return the samples of a run after ``step`` updates."""
        if run not in watch.runs:
            raise ApiError(404, f"this server does not watch a run {run!r}", param="run")
        found = await watch.in_thread(watch.runs[run].samples, step)
        if found is None:
            raise ApiError(404, f"{run} has no samples of step {step}", param="step")
        return JSONResponse({"run": run, "step": step, "texts": found.texts, "cut": found.cut})

    app.add_api_route(PAGE, page, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route(EVENTS, events, methods=["GET"], include_in_schema=False)
    app.add_api_route(SAMPLES, samples, methods=["GET"], include_in_schema=False)


class Watch:
    """The runs of a server, and the number of clients that watch. Belongs to the event loop."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs: Mapping[str, Run] = {run.name: run for run in runs}
        self.watchers = 0
        self._looked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._fresh = False  # whether that task has finished one look
        self._threads = anyio.CapacityLimiter(THREADS)

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run ``function(*arguments)`` in one of the few threads that read files."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def enter(self) -> None:
        """Count one more client that watches, and start looking at the runs."""
        self.watchers += 1
        if self._looking is None or self._looking.done():
            self._fresh = False
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def leave(self) -> None:
        """Count one client fewer."""
        self.watchers -= 1

    async def events(self, ending: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events until ``ending()``: ``runs`` with all names, then a ``run`` for each with news."""
        yield _event("runs", {"runs": list(self.runs), "now": time.time()})
        cursors = {name: Cursor() for name in self.runs}
        spoke = time.monotonic()
        if not self._fresh:
            await self._looked.wait()
        while not ending():
            looked = self._looked
            for name, run in self.runs.items():
                if event := await self.in_thread(_news, run, cursors[name]):
                    yield event
                    spoke = time.monotonic()
            if time.monotonic() - spoke > BEAT_SECONDS:
                yield _event("beat", {"now": time.time()})
                spoke = time.monotonic()
            await asyncio.sleep(REST_SECONDS)
            await looked.wait()

    async def _look(self) -> None:
        """Look at all runs, again and again while any client watches."""
        while self.watchers:
            more = False
            for run in self.runs.values():
                try:
                    more = await self.in_thread(run.look) or more
                except Exception:
                    log.exception("watching %s", run.name)
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            self._fresh = True
            await asyncio.sleep(0 if more else LOOK_SECONDS)


def _news(run: Run, cursor: Cursor) -> bytes | None:
    """Return an event with what is new since ``cursor``; None if nothing is."""
    news = run.news(cursor)
    return _event("run", news) if news else None


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {dumps(data)}\n\n".encode()
