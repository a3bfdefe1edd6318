"""Connections within bounds: how many are open, how long a head may be, how long a client may send or read nothing.

uvicorn bounds none of these. Its protocol is extended here: :class:`Connection` counts what arrives, and
:class:`Connections` looks at all connections once a second. This module knows nothing of the routes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.guards import RECORD
from gpt2lab.serving.settings import DISCARDED_BYTES, MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, MAX_UNREAD_BYTES

if TYPE_CHECKING:
    from gpt2lab.serving.settings import Settings

FREED_AT_ONCE = 16
"""Number of connections that are closed if the process has no file descriptor left."""

_ON_THE_WIRE = 2 * DISCARDED_BYTES  # the most bytes of a body with the heads of its chunks

log = logging.getLogger("gpt2lab.serving")


class Connection(HttpToolsProtocol):
    """One connection, which may be closed to make room for others in ``everyone``."""

    def __init__(self, *args: Any, everyone: Connections, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unread = 0
        """Bytes of answers that the client had not read at the last look."""
        self.unread_since = time.monotonic()
        """When the client last read, as far as looks can tell, or had nothing to read."""
        self.waits_since = self.unread_since
        """When the connection began to wait for its client."""
        self._everyone = everyone
        self._unanswered: deque[RequestResponseCycle] = deque()  # with requests that were sent ahead, if there are any
        self._in_head = True
        self._received = 0  # bytes since the head or the body began
        self._head_bytes = 0
        self._too_long = False

    @property
    def answering(self) -> bool:
        """Whether a request has not been answered completely."""
        return bool(self._unanswered)

    @property
    def waits(self) -> bool:
        """Whether it waits for its client: to send a request or the rest of one, or to read the end of an answer."""
        return not self.answering or self._unanswered[0].more_body

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a connection, if there is room or another can be closed."""
        super().connection_made(transport)
        if not self._everyone.take(self):
            self._refuse(ApiError(503, "too many connections are open", headers={"Retry-After": "1"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell all of its requests: uvicorn tells only the latest."""
        self._everyone.open.pop(self, None)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived; refuse a head or a body that does not end."""
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._too_long = True
            self.send_400_response("")
        elif self._received > _ON_THE_WIRE:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request whose head is too long, or that is none."""
        limits = f"{MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes"
        too_long = ApiError(431, f"the head of the request has more than {limits}")
        self._refuse(too_long if self._too_long else ApiError(400, "this is not a valid HTTP request"))

    def _refuse(self, error: ApiError) -> None:
        """Send ``error`` and close the connection; only close it if another answer is on its way."""
        if self.answering:
            self.transport.abort()
            return
        response = error.response()
        headers = [*response.raw_headers, (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    def look(self, now: float) -> None:
        """Notice whether the client has read since the last look.

        While the transport is full, and once an answer is complete, nothing more is written. Then what is unread
        becomes less only if the client reads.
        """
        unread = self.transport.get_write_buffer_size()
        settled = self.flow.write_paused or self.transport.is_closing() or not self.answering
        if not unread or not settled or unread < self.unread:
            self.unread_since = now
        self.unread = unread

    def cut_off(self) -> None:
        """Close the connection of a client that does not read, without waiting until it does."""
        if self.answering:
            self._unanswered[0].scope.get(RECORD, {})["stalled"] = True
        self.transport.abort()

    # ---- called by the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request, unless too many of this connection wait for their answers."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests wait")
        super().on_message_begin()
        self._in_head, self._received, self._head_bytes = True, 0, 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the first line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer of a body."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        self._head_bytes += n_bytes
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) >= MAX_HEADERS:
            self._too_long = True
            raise ValueError("the head is too long")

    def on_headers_complete(self) -> None:
        """Begin to answer; a body may follow."""
        self._in_head, self._received = False, 0
        self._wait()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        self.flow.resume_reading()  # uvicorn stops if a request was sent ahead, and would not see its client leave

    def on_message_complete(self) -> None:
        """Expect the head of another request."""
        super().on_message_complete()
        self._in_head, self._received = True, 0

    def on_response_complete(self) -> None:
        """Wait for another request."""
        self._unanswered.popleft()
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        """Begin to wait for the client."""
        self.waits_since = time.monotonic()
        self._everyone.put_last(self)


class Connections:
    """The open connections of a server, at most ``most``."""

    def __init__(self, settings: Settings, most: int) -> None:
        self.open: dict[Connection, None] = {}
        """The connections in the order in which they began to wait for their clients."""
        self._settings = settings
        self._most = most
        self._freed = 0.0

    def take(self, new: Connection) -> bool:
        """Take a new connection and, if there are too many, close another.

        Returns False if all others are being answered.
        """
        if len(self.open) >= self._most and not self._close_waiting(1):
            return False
        self.open[new] = None
        return True

    def put_last(self, connection: Connection) -> None:
        """Note that a connection has begun to wait for its client."""
        if connection in self.open:
            del self.open[connection]
            self.open[connection] = None

    def free_descriptors(self) -> None:
        """Close some connections, because the process cannot open another; at most once a second."""
        now = time.monotonic()
        if now - self._freed >= 1:
            self._freed = now
            self._close_waiting(FREED_AT_ONCE)

    def _close_waiting(self, count: int) -> int:
        """Close up to ``count`` connections that wait for their clients, and return how many.

        Those that have waited longest are first, but those whose clients still read an answer are last.
        """
        waiting = (each for each in self.open if each.waits and not each.transport.is_closing())
        reading: list[Connection] = []
        closed: list[Connection] = []
        for each in waiting:  # looks no further than it must: during a flood it runs for every new connection
            (reading if each.transport.get_write_buffer_size() else closed).append(each)
            if len(closed) == count:
                break
        closed += reading[: count - len(closed)]
        for each in closed:
            del self.open[each]
            each.transport.abort()
        if closed:
            log.warning("too many connections: closed one that had sent nothing for longest")
        return len(closed)

    def look(self) -> None:
        """Close connections whose clients have read or sent nothing for too long; called once a second.

        A body has its own time limit (:mod:`~gpt2lab.serving.bodies`).
        """
        now = time.monotonic()
        for each in [*self.open]:
            each.look(now)
            if now - each.unread_since > self._settings.stall_seconds:
                each.cut_off()
            elif not each.answering and now - each.waits_since > self._settings.body_seconds:
                each.transport.close()
        unread = sum(each.unread for each in self.open)
        for each in sorted(self.open, key=lambda each: each.unread_since):
            if unread <= MAX_UNREAD_BYTES:
                break
            if each.unread:
                unread -= each.unread
                each.cut_off()
