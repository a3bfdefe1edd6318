"""The process: a socket, uvicorn on it, and an end that lets running requests finish.

After SIGTERM or Ctrl-C, ``/health`` and new requests are answered with 503 while running requests go on, for as long
as the settings allow. A second signal ends them with an error, and a third closes all connections.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from gpt2lab.errors import UsageError
from gpt2lab.serving.app import make_app
from gpt2lab.serving.connections import Connection, Connections
from gpt2lab.serving.log_limit import LogLimit
from gpt2lab.serving.service import Service
from gpt2lab.system.memory import map_blocks
from gpt2lab.system.process import on_hangup
from gpt2lab.system.sockets import allow_open_files, take_over_address

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.serving.settings import Settings
    from gpt2lab.serving.watch.run import Run

log = logging.getLogger("gpt2lab.serving")

SWITCH_SECONDS = 0.001
"""Seconds that a thread may keep the interpreter while another waits for it. With Python's default, the
engine's thread would wait up to 5 ms for the event loop after each step."""

GARBAGE_AFTER = 50_000
"""New objects after which the garbage collector looks for cycles.

With Python's default it looks hundreds of times while a large JSON body is parsed, and the event loop waits.
"""

MAPPED_BYTES = 1 << 17
"""Blocks of at least this size return to the system when they are freed.

With many large bodies and answers of all sizes, a server's heap would otherwise fragment and grow to twice its size.
"""

ACCEPTED_AT_ONCE = 8
"""Connections that the event loop accepts before it serves those it has; with more, it could not enforce the bound."""

PENDING_CONNECTIONS = 2048
"""Connections that may wait in the operating system until they are accepted."""

SPARE_DESCRIPTORS = 64
"""File descriptors that are reserved for other uses than connections."""

KEEP_ALIVE_SECONDS = 5
"""Time for a client to send its next request on an open connection."""

LINGER_SECONDS = 5
"""Time for clients to read the last bytes of answers once all work is done."""


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not listening yet, so that no client connects while models are opened.

    Raises :class:`~gpt2lab.errors.UsageError` if the address is not available.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port must be from 0 (any that is free) to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        take_over_address(bound)
        bound.bind(address)
    except UnicodeError:  # a part between dots is empty, or longer than 63 characters
        raise UsageError(f"cannot listen on {host}: this is not a host name") from None
    except OSError as error:
        hint = ": another program uses it; choose another --port" if error.errno == errno.EADDRINUSE else ""
        raise UsageError(f"cannot listen on {host} port {port} ({error.strerror or error}){hint}") from None
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL of ``bound`` on this machine."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """A uvicorn server that drains before it stops."""

    def __init__(self, service: Service, *, linger: int = LINGER_SECONDS) -> None:
        settings = service.settings
        self._connections = Connections(settings, most_connections(settings.max_connections))
        config = uvicorn.Config(
            make_app(service),
            loop="asyncio",  # not uvloop, if it is installed: how many connections it accepts at once is not known
            http=partial(Connection, everyone=self._connections),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2 * linger,  # the server has closed the connections by then
        )
        super().__init__(config)
        self._service = service
        self._deadline: float | None = None
        self._linger = linger
        self.should_exit: bool = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and print the addresses."""
        asyncio.get_running_loop().set_exception_handler(self._loop_failed)
        await super().startup(sockets)
        if self._service.settings.api_key_file is not None:
            on_hangup(asyncio.get_running_loop(), self._reread_keys)
        names = ", ".join(served.name for served in self._service.models)
        for bound in sockets or []:
            bound.listen(PENDING_CONNECTIONS)
            print(f"gpt2lab: serving {names} on {url_of(bound)}", file=sys.stderr, flush=True)
            for run in self._service.runs:
                print(f"gpt2lab: watching {run.name} on {url_of(bound)}/watch", file=sys.stderr, flush=True)

    def _reread_keys(self) -> None:
        """Read the file of API keys again; keep the earlier keys if it is faulty."""
        try:
            self._service.keys.reread()
        except UsageError as error:
            log.error("the API keys stay as they were: %s", error)
        else:
            log.info("read the API keys again: there are %d", len(self._service.keys))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, end running requests at the second, close connections at the third."""
        now = time.monotonic()
        if self._deadline is None:
            self._service.draining = True
            self._deadline = now + self._service.settings.drain_seconds
        elif not self.should_exit and now <= self._deadline:
            self._deadline = -math.inf
        else:
            self._cut_off()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs. After one has ended it, ignore others: one could kill the process."""
        with super().capture_signals():
            yield
        if self._deadline is not None:
            for each in HANDLED_SIGNALS:
                signal.signal(each, signal.SIG_IGN)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop; called ten times a second."""
        if counter % 10 == 0:
            self._connections.look()
        if self._deadline is not None and not self.should_exit:
            late = time.monotonic() > self._deadline
            if late:
                self._service.abandon()
            self.should_exit = late or not self._service.busy
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and close those of clients that have not read their answers in time.

        uvicorn would cancel their requests, which then log a traceback and answer 500.
        """
        cutting = asyncio.get_running_loop().call_later(self._linger, self._cut_off)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut_off(self) -> None:
        """Close all connections, without waiting until what was written to them has been read."""
        for connection in list(self.server_state.connections):
            if connection.transport:
                connection.transport.abort()

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Make room if no connection can be accepted; asyncio itself tries again after a second."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            log.warning("a connection cannot be accepted yet: %s", error.strerror)
            self._connections.free_descriptors()
        else:
            loop.default_exception_handler(context)


def most_connections(wanted: int) -> int:
    """Return how many connections the process may have: ``wanted``, or fewer if it may not open enough files."""
    return max(1, allow_open_files(wanted + SPARE_DESCRIPTORS) - SPARE_DESCRIPTORS)


def serve(
    models: Sequence[tuple[str, LanguageModel]], settings: Settings, bound: socket.socket, runs: Sequence[Run] = ()
) -> None:
    """Serve ``models``, and the page that watches ``runs``, on ``bound`` until a signal stops it."""
    for name in ("uvicorn.error", "asyncio", "gpt2lab.serving"):
        logging.getLogger(name).addFilter(LogLimit())
    map_blocks(MAPPED_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(GARBAGE_AFTER)
    Server(Service(models, settings, runs)).run(sockets=[bound])
