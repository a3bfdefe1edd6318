"""Bodies of requests within bounds: of size, of the time they may take to arrive, and of all of them together.

A body counts until its request has been answered. If large bodies together exceed their bound, the one that began to
arrive first is refused, so bodies that never end cannot keep others out. This module knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.settings import DISCARDED_BYTES, LARGE_BODY_BYTES

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Receive

    from gpt2lab.serving.settings import Settings

_CLOSE = {"Connection": "close"}


class Gone(Exception):
    """The error raised when a client leaves before its body has arrived."""


class Bodies:
    """The bodies that a server holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._large: dict[Body, None] = {}

    @contextmanager
    def one(self) -> Iterator[Body]:
        """Yield a body, to be read within the block; its bytes count until the block ends."""
        body = Body(self, self._settings)
        try:
            yield body
        finally:
            self._large.pop(body, None)

    def count(self, body: Body) -> None:
        """Count ``body``, which has changed its size. Raises :class:`ApiError` if there is no room for it."""
        if body.size <= LARGE_BODY_BYTES:
            self._large.pop(body, None)
            return
        self._large[body] = None
        while sum(each.size for each in self._large) > self._settings.bodies_bytes:
            first = next((each for each in self._large if each.refuse()), None)
            if first is None or first is body:
                raise _too_many()
            del self._large[first]


class Body:
    """The body of one request."""

    def __init__(self, bodies: Bodies, settings: Settings) -> None:
        self.size = 0
        """Number of its bytes in memory."""
        self._bodies = bodies
        self._settings = settings
        self._reading: asyncio.Future[bytes | None] | None = None

    def refuse(self) -> bool:
        """Stop reading it; return False if it has arrived."""
        return self._reading is not None and self._reading.cancel()

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """Return the whole body. Raises :class:`ApiError` for one that is too long or too slow, else :class:`Gone`."""
        limit = self._settings.max_body_bytes
        claimed = headers.get("content-length", "0")
        if not claimed.isdecimal() or len(claimed) > 18 or int(claimed) > DISCARDED_BYTES:
            raise _too_long(limit)
        self._reading = asyncio.ensure_future(self._read(receive, limit))
        try:
            # Its result is in no local variable: an error would refer to this frame, and the frame to the error, and
            # all that the request holds would wait for the garbage collector.
            await asyncio.wait({self._reading}, timeout=self._settings.body_seconds)
            if not self._reading.done():
                raise ApiError(408, "the body did not arrive in time", headers=_CLOSE)
            if self._reading.cancelled():
                raise _too_many()
            body = self._reading.result()
        finally:
            self._reading.cancel()
            self._reading = None
        if body is None:
            raise _too_long(limit)
        return body

    async def _read(self, receive: Receive, limit: int) -> bytes | None:
        """Return the body; None if it is longer than ``limit``, at its end or after :data:`DISCARDED_BYTES`."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            if size <= limit:
                parts.append(part)
            else:
                parts.clear()
            self.size = size if parts else 0
            self._bodies.count(self)
            if not message.get("more_body", False) or size > DISCARDED_BYTES:
                return b"".join(parts) if size <= limit else None


def _too_long(limit: int) -> ApiError:
    return ApiError(413, f"the body is longer than this server's limit of {limit} bytes", headers=_CLOSE)


def _too_many() -> ApiError:
    message = "the server holds too many large bodies: try again in a moment"
    return ApiError(503, message, code="too_many_bodies", headers={**_CLOSE, "Retry-After": "1"})
