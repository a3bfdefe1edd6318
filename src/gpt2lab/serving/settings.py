"""The settings of a server, in one place: the command line takes its options from here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from gpt2lab.errors import UsageError
from gpt2lab.generation.scheduler import MAX_BATCH
from gpt2lab.generation.sequences import DEFAULT_BYTES
from gpt2lab.serving.key_file import check_keys, read_key_file

KEYS_VARIABLE = "GPT2LAB_API_KEYS"
"""Environment variable: API keys, separated by commas."""

_ALLOWED_HOST = re.compile(r"\*|[\w.-]+|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+")
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", re.IGNORECASE)

MAX_HEAD_BYTES = 1 << 16
"""The most bytes of a request's first line and headers."""

MAX_HEADERS = 100
"""The most headers of a request."""

MAX_PIPELINED = 8
"""The most requests that a connection may send before earlier ones are answered."""

DISCARDED_BYTES = 32 << 20
"""The most bytes of an overlong body that are still read, so that the client can read why it is refused."""

LARGE_BODY_BYTES = 1 << 16
"""Bodies up to this size do not count towards :attr:`Settings.bodies_bytes`: there is always room for them."""

MAX_BODIES_BYTES = 64 << 20
"""The most bytes of large bodies in memory, of all requests that have not been answered."""

MAX_UNREAD_BYTES = 256 << 20
"""The most bytes of answers, of all connections, that clients have not read; beyond, the longest unread are dropped."""


@dataclass(frozen=True)
class Settings:
    """The limits and other settings of a server. Raises :class:`~gpt2lab.errors.UsageError` for an invalid limit."""

    max_batch: int = MAX_BATCH
    """The most samples of a model that run together."""
    max_waiting: int = 256
    """The most samples of a model that may wait for their turn; requests beyond that are answered with 429."""
    max_samples: int = 128
    """The most samples of one request: prompts times the larger of n and best_of."""
    prompt_cache: int = DEFAULT_BYTES // 10**6
    """The most megabytes (10^6 bytes) of keys and values of earlier texts that each model keeps; 0 keeps none."""
    max_tokens: int | None = None
    """The most tokens that a request may ask for in each sample; None: as many as fit the model's context."""
    max_prompt_bytes: int = 1 << 16
    """The most bytes of UTF-8 of one prompt."""
    max_body_bytes: int = 2 << 20
    """The most bytes of a request's body; a longer one is not parsed."""
    max_connections: int = 1024
    """The most open connections; beyond, the one that has waited longest for its client is closed."""
    body_seconds: float = 30.0
    """Time in which a request must arrive: first its head on a connection, then its body."""
    stall_seconds: float = 60.0
    """Time after which a client that reads nothing of its answer is disconnected."""
    drain_seconds: float = 30.0
    """Time that running requests have to finish after SIGTERM."""
    host: str = "127.0.0.1"
    """The name or address that the server listens on."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names in the header ``Host`` that it answers to; ``*`` is any."""
    api_keys: tuple[str, ...] = ()
    """Keys, one of which each request must send; without any, here or in the file, any client may send requests."""
    api_key_file: str | None = None
    """A file of more keys, with limits: see :func:`~gpt2lab.serving.key_file.read_key_file`. SIGHUP rereads it."""
    ui: bool = True
    """Whether there are pages: the playground, ``/watch`` and ``/docs``."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may send requests; ``*`` is any."""

    def __post_init__(self) -> None:
        sizes = ("max_batch", "max_waiting", "max_samples", "max_tokens")
        for name in (*sizes, "max_prompt_bytes", "max_body_bytes", "max_connections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.prompt_cache < 0:
            raise UsageError(f"prompt_cache must be at least 0, got {self.prompt_cache}")
        for name in ("body_seconds", "stall_seconds"):
            if not 0 < getattr(self, name) < 1e9:
                raise UsageError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.drain_seconds < 1e9:
            raise UsageError(f"drain_seconds must be at least 0, got {self.drain_seconds}")
        if self.api_key_file is not None:
            read_key_file(self.api_key_file)
        for host in self.allowed_hosts:
            if not _ALLOWED_HOST.fullmatch(host):
                raise UsageError(f"allowed_host must be a name or an address, without scheme and port, got {host!r}")
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"cors must be an origin such as http://localhost:3000, or *, got {origin!r}")
        if self.max_samples > self.capacity:
            raise UsageError(
                f"max_samples of {self.max_samples} exceeds max_batch + max_waiting of {self.capacity}: "
                "lower it, or raise one of those"
            )

    @property
    def capacity(self) -> int:
        """The most samples of a model that may run or wait at a time."""
        return self.max_batch + self.max_waiting

    @property
    def bodies_bytes(self) -> int:
        """The most bytes of large bodies in memory: :data:`MAX_BODIES_BYTES`, or as many as two bodies may have."""
        return max(MAX_BODIES_BYTES, 2 * self.max_body_bytes)


def keys_in_environment() -> tuple[str, ...]:
    """Return the keys in :data:`KEYS_VARIABLE`. Raises :class:`~gpt2lab.errors.UsageError` if it is set to none."""
    variable = os.environ.get(KEYS_VARIABLE)
    if variable is None:
        return ()
    return tuple(check_keys([key.strip() for key in variable.split(",") if key.strip()], KEYS_VARIABLE))
