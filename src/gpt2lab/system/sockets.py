"""What systems allow a server: addresses that were just in use, and a number of open files, connections included."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

_MACOS_OPEN_FILES = 10_240  # OPEN_MAX: no process can raise its limit beyond this, whatever its hard limit says


def take_over_address(unbound: socket.socket) -> None:
    """Let a socket use an address whose last connections are still closing, but none on which another one listens.

    Windows always allows the former; the option would allow the latter there.
    """
    if sys.platform != "win32":
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def allow_open_files(wanted: int) -> int:
    """Raise this process's limit of open files to ``wanted``, as far as it may; return how many it may open now.

    Returns at most ``wanted``, and that much on Windows, which has no such limit.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    for limit in (allowed, min(allowed, _MACOS_OPEN_FILES)):
        if soft < limit:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                soft = limit
    return min(wanted, soft)
