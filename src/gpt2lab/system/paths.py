"""Paths as users write and read them: ``~`` for the home folder, and names that are not UTF-8."""

from __future__ import annotations

import os


def expanded(path: str | os.PathLike[str]) -> str:
    """Return ``path`` with ``~`` or ``~USER`` at its start replaced by the home folder, where that is known.

    The shell does this only for a word that begins with ``~``: not in ``--model=~/x`` or in a settings file.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 (Path.expanduser raises where no home is known)


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return ``path`` as text that UTF-8 can encode: a byte that is not UTF-8 becomes ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
