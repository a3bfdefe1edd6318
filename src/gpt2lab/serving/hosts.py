"""Middleware that checks the headers ``Host`` and ``Origin``, so that pages of other sites cannot use the server.

A browser lets every page send requests to this machine. With DNS rebinding, the page can even read the answers: when
the name in the page's own address is looked up again, it resolves to 127.0.0.1. The header ``Host`` still holds that
name, so a server that only this machine can reach accepts only names that it knows. ``Origin`` names the page that
sends a request. This module knows nothing of keys; :mod:`~gpt2lab.serving.settings` checks the values of
``--allowed_host`` and ``--cors``.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.guards import App, Receive, Scope, Send, is_open

if TYPE_CHECKING:
    from gpt2lab.serving.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, which every server accepts."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d*)?", re.ASCII)

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class HostCheck:
    """Middleware that answers 403 to a foreign ``Host``, and to a foreign ``Origin`` on paths that need a key.

    A malformed ``Host`` gets 400.

    On a loopback address, the known hosts are :data:`LOOPBACK` and the settings' ``host`` and ``allowed_hosts``. On
    other addresses every host is accepted unless there are ``allowed_hosts``; an IP address is always accepted, because
    rebinding needs a name. An origin is known if its host and port are those of ``Host``, or if the settings name it.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._named = frozenset(map(bare, settings.allowed_hosts))
        self._hosts = self._named | {*LOOPBACK, bare(settings.host)}
        self._origins = frozenset(map(usual_origin, settings.cors))
        self._on_loopback = is_loopback(settings.host)
        self._any_host = "*" in self._named or not (self._on_loopback or self._named)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) > 1 or (not hosts and scope.get("http_version") != "1.0"):
            raise ApiError(400, "a request needs exactly one 'Host' header")
        host = hosts[0].lower() if hosts else ""  # HTTP/1.0 has none, but no browser speaks it
        name = name_in(host)
        if host and not name:
            raise ApiError(400, f"the header 'Host' must be a name or an address and perhaps a port, got {host!r}")
        if host and not self._knows(name):
            message = (
                f"this server does not accept the host {host}: if that is its name, start it with --allowed_host {name}"
            )
            raise ApiError(403, message, code="host_not_allowed")
        origin = headers.get("origin")
        # A preflight request costs nothing, and browsers need its answer.
        if origin and scope["method"] != "OPTIONS" and not is_open(scope["path"]) and not self._trusts(origin, host):
            message = f"pages of {origin} may not use this server: allow them with --cors {origin}"
            raise ApiError(403, message, code="origin_not_allowed")

    def _knows(self, name: str) -> bool:
        return self._any_host or name in self._hosts or (not self._on_loopback and _address(name) is not None)

    def _trusts(self, origin: str, host: str) -> bool:
        origin = usual_origin(origin)
        if "*" in self._origins or origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        return bool(place) and (origin == usual_origin(f"{scheme}://{host}") or name_in(place) in self._named)


def usual_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, and without the port that its scheme stands for."""
    origin = origin.lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))


def bare(host: str) -> str:
    """Return a host's name in lower case without a final dot, or its address in its shortest form, without brackets."""
    name = host.strip("[]").lower().removesuffix(".")
    address = _address(name)
    return name if address is None else str(address)


def name_in(host: str) -> str:
    """Return the name or address in ``host[:port]``; empty if it is malformed."""
    match = _HOST.fullmatch(host)
    return bare(match[1]) if match else ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on ``host``."""
    address = _address(bare(host))
    if address is None:
        try:
            address = _address(str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]))
        except (OSError, UnicodeError):
            return False
    return address is not None and address.is_loopback


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that ``name`` spells, None if it is a name; IPv4 in IPv6 (``::ffff:…``) is IPv4."""
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
