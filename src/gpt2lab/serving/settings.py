"""What a server may be told, in one place: the command line draws its options from here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.errors import UsageError
from gpt2lab.generation.scheduler import MAX_BATCH

KEYS_VARIABLE = "GPT2LAB_API_KEYS"
"""Environment variable: API keys, separated by commas."""


@dataclass(frozen=True)
class Settings:
    """Limits and manners of a server. Raises :class:`~gpt2lab.errors.UsageError` for a limit that is none."""

    max_batch: int = MAX_BATCH
    """Samples of a model that run together."""
    max_waiting: int = 256
    """Samples of a model that may wait for their turn; what comes beyond them is answered with 429."""
    max_samples: int = 128
    """Samples that one request may ask for: prompts times the larger of n and best_of."""
    max_tokens: int | None = None
    """Tokens that a request may ask for in each sample; None: as many as the model's context has."""
    max_prompt_bytes: int = 1 << 16
    """Bytes of UTF-8 of one prompt."""
    max_body_bytes: int = 2 << 20
    """Bytes of a request's body, which is not parsed beyond them."""
    body_seconds: float = 30.0
    """Time in which a request must have come: its head on a connection, and then its body."""
    stall_seconds: float = 60.0
    """Time after which a client that reads nothing of its stream is cut off."""
    drain_seconds: float = 30.0
    """Time that running requests have to finish after SIGTERM."""
    api_keys: tuple[str, ...] = ()
    """Keys of which requests must bring one; none: anybody may ask."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may ask; ``*`` is any."""

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_waiting", "max_samples", "max_tokens", "max_prompt_bytes", "max_body_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        for name in ("body_seconds", "stall_seconds", "drain_seconds"):
            if not 0 < getattr(self, name) < 1e9:
                raise UsageError(f"{name} must be positive, got {getattr(self, name)}")
        if self.max_samples > self.capacity:
            raise UsageError(
                f"max_samples of {self.max_samples} would never fit max_batch + max_waiting of {self.capacity}: "
                "lower it or raise one of those"
            )

    @property
    def capacity(self) -> int:
        """Samples of a model that may run or wait at a time."""
        return self.max_batch + self.max_waiting


def read_api_keys(file: str | None) -> tuple[str, ...]:
    """Keys from ``file`` (one a line, ``#`` begins a comment) and from :data:`KEYS_VARIABLE`.

    Raises :class:`~gpt2lab.errors.UsageError` if the file cannot be read, or if either is there and has no key.
    """
    keys: list[str] = []
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read API keys from {file}: {getattr(error, 'strerror', None) or error}") from None
        keys += _checked([line for line in map(str.strip, lines) if line and not line.startswith("#")], file)
    if (variable := os.environ.get(KEYS_VARIABLE)) is not None:
        keys += _checked([key.strip() for key in variable.split(",") if key.strip()], KEYS_VARIABLE)
    return tuple(dict.fromkeys(keys))


def _checked(keys: list[str], source: str) -> list[str]:
    if not keys:  # a server that was meant to be closed is not to be open to all
        raise UsageError(f"there is no API key in {source}: write one a line, or leave it out to let anybody ask")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise UsageError(f"an API key in {source} cannot be sent in a header: use printable ASCII without spaces")
    return keys
