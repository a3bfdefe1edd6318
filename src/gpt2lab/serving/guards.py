"""The middleware that checks every request before a route sees it, and records it afterwards.

:class:`Record` counts and logs; :class:`Guard` checks the key, and reads the body.
Both are plain ASGI: nothing stands between a stream and its socket.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from gpt2lab.serving.bodies import Bodies, Gone
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.keys import ACCOUNT, Keys

if TYPE_CHECKING:
    from gpt2lab.serving.metrics import Metrics
    from gpt2lab.serving.settings import Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = "X-Request-Id"
"""Header with the name of a request: the client's, or one that the server makes."""

RECORD = "gpt2lab.record"
"""Key of the scope under which routes leave facts for the log line."""

OPEN_TO_ALL = ("/health", "/", "/docs", "/openapi.json", "/watch")
"""Paths that need no key."""

PAGE = "/page/"
"""Prefix of the paths of the page's own files. These hold no private data; the page itself asks for the key."""

_LOGGABLE = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)

log = logging.getLogger("gpt2lab.serving")


def is_open(path: str) -> bool:
    """Return whether ``path`` needs no key: it costs nothing and shows no data of the models."""
    return (path.rstrip("/") or "/") in OPEN_TO_ALL or path.startswith(PAGE)


class Record:
    """Middleware that counts every request and logs one line about it: its cost, never its content."""

    def __init__(self, app: App, metrics: Metrics, routes: Iterable[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record its outcome."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        id = _request_id(Headers(scope=scope))
        record: dict[str, Any] = {"request": id}
        scope[RECORD] = record
        status = 499  # the client left before it was answered

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (REQUEST_ID.lower().encode(), id.encode())
                message = {**message, "headers": [*message.get("headers", ()), named]}
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except BaseException:
            status = status if status != 499 else 500
            raise
        finally:
            self._write(scope, status, time.perf_counter() - began, record)

    def _write(self, scope: Scope, status: int, seconds: float, record: dict[str, Any]) -> None:
        path = scope["path"]
        path = path if path in self._routes else f"{PAGE}…" if path.startswith(PAGE) else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        if record.get("gone"):
            self._metrics.disconnects.inc()
        if log.isEnabledFor(logging.INFO) and not (path == f"{PAGE}…" and status < 400):  # a page is dozens of files
            client = (scope.get("client") or ["-"])[0]
            more = "".join(f" {name}={value}" for name, value in record.items())
            log.info("%s %s %s %d %.3fs%s", client, scope["method"], path, status, seconds, more)


def _request_id(headers: Headers) -> str:
    """Return the client's name of a request, if it is short and can stand in a log line, or a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _LOGGABLE.fullmatch(given) else f"req-{secrets.token_hex(12)}"


class Guard:
    """Middleware that refuses a request without a key or beyond its limits, and a body too long, late or not JSON."""

    def __init__(self, app: App, settings: Settings, keys: Keys) -> None:
        self._app = app
        self._keys = keys
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body and pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._bodies.one() as body, ExitStack() as held:
            try:
                headers = Headers(scope=scope)
                account = None if is_open(scope["path"]) else self._keys.account(headers.get("authorization", ""))
                if scope["method"] == "POST":
                    if account:
                        scope[ACCOUNT] = account
                        held.enter_context(account.request())
                    _check_type(headers)
                    receive = _replayed(await body.read(headers, receive), receive)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
            except Gone:
                scope.get(RECORD, {})["gone"] = True
                return
            await self._app(scope, receive, send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that gives ``body`` first, then the messages of ``receive``."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _check_type(headers: Headers) -> None:
    """Refuse bodies that are not JSON: a page of another origin may send a form or plain text without asking first."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = (
            f"send the header Content-Type: application/json; the body's content type is {kind[:100] or 'missing'}"
        )
        raise ApiError(415, message)
