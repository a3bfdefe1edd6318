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
    chosen = os.environ.get(VARIABLE, "").strip()
    if turned_off():
        if not even_if_off:
            return None
        chosen = ""
    if chosen:
        return Path(expanded(chosen), name)
    try:
        return _platform_caches() / "gpt2lab" / name
    except RuntimeError:  # no home folder
        return None


def _platform_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
