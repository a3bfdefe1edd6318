"""Where things are kept that can be made or fetched again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "GPT2LAB_CACHE"
"""Environment variable: the folder of all caches, or one of :data:`OFF` for none."""

OFF = ("off", "none", "0")
"""What turns caches off, in upper case or lower."""


def turned_off() -> bool:
    """Whether the environment wants nothing to be kept."""
    return os.environ.get(VARIABLE, "").strip().lower() in OFF


def cache_folder(name: str, *, even_if_off: bool = False) -> Path | None:
    """The folder ``name`` among the caches, there or not; None if they are off or no home folder is known.

    ``even_if_off`` is for what has to be kept somewhere.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
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


def _platform_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
