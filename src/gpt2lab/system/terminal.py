"""Keys of a terminal."""

from __future__ import annotations

import sys

END_OF_INPUT = "Ctrl-Z and Enter end" if sys.platform == "win32" else "Ctrl-D ends"
"""The keys that end standard input, with their verb."""
