"""The folders for files that can be rebuilt or fetched again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gpt2lab.system.paths import expanded

VARIABLE = "GPT2LAB_CACHE"
"""Environment variable with the folder of all caches, or one of :data:`OFF` for none."""

OFF = ("off", "none", "0")
"""Values that turn caches off, in upper or lower case."""


def turned_off() -> bool:
    """Return whether the environment turns caches off."""
    return os.environ.get(VARIABLE, "").strip().lower() in OFF


def cache_folder(name: str, *, even_if_off: bool = False) -> Path | None:
    """Return the cache folder ``name``, which may not exist yet; None if caches are off or no home folder is known.

    ``even_if_off`` is for files that must be stored somewhere.
    """
    chosen = _from(VARIABLE)
    if turned_off():
        if not even_if_off:
            return None
        chosen = ""
    if chosen:
        return Path(chosen, name)
    try:
        return _platform_caches() / "gpt2lab" / name
    except RuntimeError:  # no home folder
        return None


def create(folder: Path) -> None:
    """Create a cache folder that only its owner may enter, and its parents. Raises OSError.

    On Windows before Python 3.12.4, it gets the permissions of any new folder, which a user's own folders restrict.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _platform_caches() -> Path:
    if sys.platform == "win32":
        return Path(_from("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(_from("XDG_CACHE_HOME") or Path.home() / ".cache")


def _from(variable: str) -> str:
    """Return the folder that an environment variable names, with ``~`` expanded; empty if it is not set."""
    return expanded(os.environ.get(variable, "").strip())
