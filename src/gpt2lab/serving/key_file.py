"""The file of API keys: a key on each line, and its limits.

This module knows nothing of HTTP, and imports nothing that the extra ``serve`` brings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gpt2lab.errors import UsageError

_LIMIT = re.compile(r"(requests|tokens_per_minute)=([1-9]\d{0,11})")


class KeyLimits(NamedTuple):
    """The limits of one key; None: none."""

    requests: int | None = None
    """The most requests with a body at the same time."""
    tokens_per_minute: int | None = None
    """The most tokens, of prompts and drawn, that are used in a minute in the long run."""


def read_key_file(file: str) -> dict[str, KeyLimits]:
    """Return the keys in ``file`` and their limits: on each line a key, and ``requests=N``, ``tokens_per_minute=N``.

    ``#`` begins a comment. Raises :class:`~gpt2lab.errors.UsageError` if the file has no key, or cannot be read.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read API keys from {file}: {getattr(error, 'strerror', None) or error}") from None
    keys = {}
    for number, line in enumerate(lines, 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()  # a key may contain a #
        if words:
            place = f"{file}, line {number}"
            if words[0] in keys:
                raise UsageError(f"{place}: this key is on an earlier line too: give each key once")
            if _LIMIT.fullmatch(words[0]):
                raise UsageError(f"{place}: the key is missing before its limits")
            keys[words[0]] = _limits(words[1:], place)
    return dict(zip(check_keys(list(keys), file), keys.values(), strict=True))


def check_keys(keys: list[str], source: str) -> list[str]:
    """Return ``keys``. Raises :class:`~gpt2lab.errors.UsageError` if there are none, or a header cannot hold one."""
    if not keys:  # a server that was meant to need a key must not be open to everyone
        raise UsageError(f"there is no API key in {source}: add one, or omit {source} to accept requests without a key")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise UsageError(f"an API key in {source} cannot be sent in a header: use printable ASCII without spaces")
    return keys


def _limits(words: list[str], place: str) -> KeyLimits:
    """Return the limits that follow a key; errors do not show the line, which holds a secret."""
    found = [_LIMIT.fullmatch(word) for word in words]
    limits = {match[1]: int(match[2]) for match in found if match}
    if len(limits) < len(words):
        raise UsageError(f"{place}: only requests=N and tokens_per_minute=N may follow a key, each once, N at least 1")
    return KeyLimits(**limits)
