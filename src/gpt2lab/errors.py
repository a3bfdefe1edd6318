"""What can go wrong by a user's doing.

Every such error derives from :class:`Gpt2LabError` and carries one line: the thing, its value, what to do. The
command line prints that line and exits with 2; anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class Gpt2LabError(Exception):
    """Base of every error that a user's input, files or machine can cause."""


class ConfigError(Gpt2LabError, ValueError):
    """A model shape that no GPT-2 can have."""


class CheckpointError(Gpt2LabError):
    """A checkpoint that is absent, of no known format, corrupt, or not a GPT-2."""


class TokenizerError(Gpt2LabError, ValueError):
    """A vocabulary that cannot be used, or ids and text that it cannot take."""


class SamplingError(Gpt2LabError, ValueError):
    """Sampling parameters out of range, or logits that no distribution can be made of."""


class StageError(SamplingError):
    """A custom stage that raised something, its ``__cause__``, or that returned no logits."""


class ContextError(Gpt2LabError, ValueError):
    """More tokens than the model's context holds."""


class DownloadError(Gpt2LabError):
    """A download that failed: no network, wrong size or checksum, an error page in place of a file."""


class TrainingError(Gpt2LabError):
    """Training that cannot go on: its loss is not a number any more."""


class UsageError(Gpt2LabError, ValueError):
    """Any other argument that cannot be taken."""


def first_line(error: Exception) -> str:
    """The first line of what another library's error says; empty if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
