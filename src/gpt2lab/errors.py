"""Errors that a user can cause.

Each derives from :class:`Gpt2LabError` and carries one line: the thing, its value, what to do. The command line prints
that line and exits with 2; any other exception that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import re

_CONTROL = "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"  # compiled on first use: most starts need none
"""Control characters, and those that reverse the direction of text; not tabs and newlines."""

_LONGEST = 3000  # characters of a message, which may quote a file


def escaped(text: str) -> str:
    r"""Return ``text`` with control characters spelled out (``\x1b``), so that a terminal does not obey a file."""
    return re.sub(_CONTROL, lambda found: repr(found[0])[1:-1], text)


def shortened(text: object) -> str:
    """Return the Python literal of a text's beginning, for a line about it."""
    written = str(text)
    return repr(written if len(written) <= 40 else written[:39] + "…")


def one_line(message: str) -> str:
    """Return ``message`` with control characters and newlines spelled out; a very long one loses its middle."""
    line = escaped(message).replace("\n", r"\n")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST * 3 // 4]} … {line[-_LONGEST // 5 :]}"


class Gpt2LabError(Exception):
    """Base of every error that a user's input, files or machine can cause; its message is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(Gpt2LabError, ValueError):
    """A model shape that no GPT-2 can have."""


class CheckpointError(Gpt2LabError):
    """A checkpoint that is missing, in an unknown format, corrupt, or not a GPT-2."""


class TokenizerError(Gpt2LabError, ValueError):
    """A vocabulary that cannot be used, or ids or text that it cannot handle."""


class SamplingError(Gpt2LabError, ValueError):
    """Sampling parameters out of range, or logits that give no distribution."""


class StageError(SamplingError):
    """A custom stage that raised an exception (the ``__cause__``) or returned no logits."""


class ContextError(Gpt2LabError, ValueError):
    """More tokens than the model's context holds."""


class DownloadError(Gpt2LabError):
    """A download that failed: no network, wrong size or checksum, an error page in place of a file."""


class TrainingError(Gpt2LabError):
    """Training that cannot continue: its loss is no longer a number, or the memory does not suffice."""


class UsageError(Gpt2LabError, ValueError):
    """Any other invalid argument."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's error message; empty if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
