"""Answers to clients that may leave: a stream of events, and a single result.

However either ends, the worker is notified at once, so that the request holds nothing at the next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.responses import Response

from gpt2lab.serving.guards import RECORD, Receive, Scope, Send

Result = TypeVar("Result")


class EventStream(Response):
    """A response that sends ``events`` as they come, and calls ``ended`` once nothing more is sent."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self._events = events
        self._ended = ended
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client has gone."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
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
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
