"""Functions that run around a fork of this process."""

from __future__ import annotations

import os
from collections.abc import Callable


def _nothing() -> None:
    pass


def around_forks(
    *,
    before: Callable[[], object] = _nothing,
    after_in_parent: Callable[[], object] = _nothing,
    after_in_child: Callable[[], object] = _nothing,
) -> None:
    """Call these functions at every fork from now on; do nothing on Windows, where no process can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
