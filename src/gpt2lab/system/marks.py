"""Marks, by which gpt2lab recognises the files that it made; it deletes no others.

A mark is a small file, :data:`MARK`, in a folder of output. It lists patterns that match the names of gpt2lab's files
there. So later commands can tell them from files of the user in the same folder.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

MARK = ".gpt2lab.json"


class Deleted(NamedTuple):
    """A deleted file and its size in bytes."""

    path: Path
    size: int


def write_mark(folder: Path, patterns: Sequence[str]) -> None:
    """Mark the names in ``folder`` that match one of ``patterns`` as gpt2lab's own. Raises OSError."""
    content = {"made by": "gpt2lab", "files": list(patterns)}
    (folder / MARK).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def own_patterns(folder: Path) -> tuple[str, ...]:
    """Return the patterns of gpt2lab's own names in ``folder``; empty if the folder has no valid mark."""
    try:
        content = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return tuple(map(str, content["files"])) if content["made by"] == "gpt2lab" else ()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ()


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches one of ``patterns``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_plain(path: Path) -> bool:
    """Return whether ``path`` is a regular file, not a link or anything else."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def delete(folder: Path, names: Iterable[str]) -> list[Deleted]:
    """Delete the files ``names``, which are paths relative to ``folder``, then the subfolders that this leaves empty.

    Links are neither deleted nor followed. Returns the deleted files; a file that cannot be deleted is not among them.
    """
    deleted = []
    parents: set[Path] = set()
    for name in names:
        below = PurePath(name)
        between = [folder / parent for parent in below.parents if parent.parts]
        path = folder / below
        if below.is_absolute() or ".." in below.parts or not is_plain(path) or any(map(Path.is_symlink, between)):
            continue
        with suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            deleted.append(Deleted(path, size))
            parents.update(between)
    for parent in sorted(parents, key=lambda parent: -len(parent.parts)):
        with suppress(OSError):  # it stays if it is not empty
            parent.rmdir()
    return deleted
