"""JSON of long lists, encoded in pieces: while the encoder works in one call, no other thread runs.

The event loop would otherwise wait for the whole answer of one client, even if a thread encodes it.
"""

from __future__ import annotations

import json
from typing import Any

PIECE = 64
"""The most items of a list that are encoded in one call."""


def dumps(value: Any) -> str:
    """Return what :func:`json.dumps` returns for ``value``; lists in it, and in its objects, are encoded in pieces.

    Keys are text. Raises ValueError for NaN and infinity.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {dumps(each)}" for key, each in value.items()) + "}"
    if not isinstance(value, list):
        return json.dumps(value, allow_nan=False)
    if value and isinstance(value[0], list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    starts = range(0, len(value), PIECE)
    return "[" + ", ".join(json.dumps(value[at : at + PIECE], allow_nan=False)[1:-1] for at in starts) + "]"
