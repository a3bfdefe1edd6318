"""API keys and their limits: check the key of a request, and count each key's running requests and tokens.

The file of keys can be read again while the server runs. For keys that stay, running requests and used tokens still
count. :mod:`~gpt2lab.serving.key_file` reads the file.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.key_file import KeyLimits, read_key_file

if TYPE_CHECKING:
    from gpt2lab.serving.settings import Settings

ACCOUNT = "gpt2lab.account"
"""Key of the ASGI scope; its value is the :class:`Account` of a request that has a body."""


UNLIMITED = KeyLimits()


class Account:
    """The running requests and remaining tokens of one key. Use it only from the event loop."""

    def __init__(self, limits: KeyLimits = UNLIMITED) -> None:
        self._limits = limits
        self._running = 0
        self._tokens = float(limits.tokens_per_minute or 0)  # left now; negative after a large request
        self._counted_at = time.monotonic()

    def change(self, limits: KeyLimits) -> Account:
        """Give the account other limits, and return it.

        Tokens that were used still count. Under a lower limit they are scaled down, so that no wait becomes longer.
        """
        self._refill()
        before, most = self._limits.tokens_per_minute, limits.tokens_per_minute
        if most is not None:
            used = 0 if before is None else (before - self._tokens) * min(1, most / before)
            self._tokens = most - used
        self._limits = limits
        return self

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while the block runs. Raises :class:`ApiError` 429 if the key's limit is reached."""
        most = self._limits.requests
        if most is not None and self._running >= most:
            raise _too_much(f"this API key may have {most} requests at the same time: wait for one to end", 1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def reserve(self, n_tokens: int) -> Reservation:
        """Set aside the most tokens that a request may use. Raises :class:`ApiError` 429 if too few are left now.

        A request for more than a minute's tokens is accepted once a whole minute's are left. Later requests are then
        refused until the rest has refilled.
        """
        if (most := self._limits.tokens_per_minute) is not None:
            self._refill()
            lacking = min(n_tokens, most) - self._tokens
            if lacking > 0:
                message = f"this API key may use {most} tokens a minute, and too few are left for these {n_tokens}"
                raise _too_much(message, math.ceil(lacking * 60 / most))
            self._tokens -= n_tokens
        return Reservation(self, n_tokens)

    def give_back(self, n_tokens: int) -> None:
        """Return tokens that were set aside and not used."""
        if self._limits.tokens_per_minute is not None:
            self._tokens += n_tokens

    def _refill(self) -> None:
        """Add the tokens for the time since the last call, up to a minute's."""
        now = time.monotonic()
        if (most := self._limits.tokens_per_minute) is not None:
            self._tokens = min(most, self._tokens + (now - self._counted_at) * most / 60)
        self._counted_at = now


class Reservation(NamedTuple):
    """The tokens set aside for a request."""

    account: Account
    n_tokens: int

    def settle(self, n_used: int) -> None:
        """Return the tokens that the request did not use; call this when it has ended."""
        self.account.give_back(self.n_tokens - n_used)


class Keys:
    """The accounts of all keys in the settings. Raises :class:`~gpt2lab.errors.UsageError` if the file is invalid."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts: dict[str, Account] = {}
        self._nobody = Account()
        self.reread()

    def __len__(self) -> int:
        return len(self._accounts)

    def reread(self) -> None:
        """Read the file again.

        Raises :class:`~gpt2lab.errors.UsageError` if it is invalid; the earlier keys then remain.
        """
        limits = dict.fromkeys(self._settings.api_keys, UNLIMITED)
        if self._settings.api_key_file is not None:
            limits |= read_key_file(self._settings.api_key_file)
        before = self._accounts
        self._accounts = {
            key: before[key].change(each) if key in before else Account(each) for key, each in limits.items()
        }

    def account(self, authorization: str) -> Account:
        """Return the account of the key in a header ``Authorization``, or one without limits if no key is needed.

        Raises :class:`ApiError` 401 if a key is needed and the header has no valid one.
        """
        if not self._accounts:
            return self._nobody
        scheme, _, given = authorization.partition(" ")
        key = given.strip().encode("latin-1", "replace")
        # Compare with all keys, each in constant time: the time taken reveals nothing about any of them.
        found = [account for known, account in self._accounts.items() if hmac.compare_digest(key, known.encode())]
        if scheme.lower() != "bearer" or not found:
            what = "no API key was given" if not given else "this server does not accept the API key"
            message = f"{what}: send the header 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return found[0]


def _too_much(message: str, seconds: int) -> ApiError:
    return ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(seconds)})
