"""Makes the permissions of files bind root, too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

VERSION_3 = 0x20080522  # of Linux's capget and capset
OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def binding() -> Iterator[None]:
    """Give up root's right to ignore permissions, on this thread of Linux. Does nothing for other users."""
    if os.geteuid() != 0:
        yield
        return
    header, data = Header(VERSION_3, 0), (Data * 2)()
    _call("capget", header, data)
    before = data[0].effective
    data[0].effective = before & ~OVERRIDES
    _call("capset", header, data)
    try:
        yield
    finally:
        data[0].effective = before
        _call("capset", header, data)


def _call(name: str, header: Header, data: ctypes.Array[Data]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(header), data) != 0:
        raise OSError(ctypes.get_errno(), name)
