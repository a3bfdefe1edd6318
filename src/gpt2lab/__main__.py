"""``python -m gpt2lab``: the same as the ``gpt2lab`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it; Ctrl-C during the import prints no traceback either."""
    try:
        from gpt2lab.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
