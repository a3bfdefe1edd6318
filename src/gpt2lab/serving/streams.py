"""Answers to clients that may leave: a stream of events, and a single result.

However either ends, the worker is notified at once, so that the request holds nothing at the next step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.responses import Response

from gpt2lab.serving.guards import RECORD, Receive, Scope, Send

Result = TypeVar("Result")


class EventStream(Response):
    """A response that sends ``events`` as they come, and calls ``ended`` once nothing more is sent.

    A client that reads nothing for ``stall_seconds`` is disconnected.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], ended: Callable[[], None], stall_seconds: float) -> None:
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self._events = events
        self._ended = ended
        self._stall_seconds = stall_seconds
        self._sending_since: float | None = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client has gone."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await self._wait({sending, leaving}, scope)
            if not sending.done():
                scope.get(RECORD, {})["gone"] = True
        finally:
            self._ended()
            await _cancel(leaving)
            await _cancel(sending)
        if sending.done() and not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            self._sending_since = time.monotonic()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self._sending_since = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, tasks: set[asyncio.Future[None]], scope: Scope) -> None:
        """Wait until one of ``tasks`` is done, or the client has read nothing for too long.

        The time is checked periodically: a timer for every event would cost as much as sending it.
        """
        while True:
            done, _ = await asyncio.wait(tasks, timeout=self._stall_seconds / 4, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            if self._sending_since is not None and time.monotonic() - self._sending_since > self._stall_seconds:
                scope.get(RECORD, {})["stalled"] = True
                _abort(scope)
                return


def _abort(scope: Scope) -> None:
    """Close a connection without waiting for its buffer to empty, since its client does not read."""
    if abort := scope.get("gpt2lab.abort"):
        abort()


async def unless_left(receive: Receive, work: Awaitable[Result]) -> Result | None:
    """Return the result of ``work``, None if the client leaves first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _cancel(leaving)
        await _cancel(working)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
