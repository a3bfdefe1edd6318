"""Run a pip command and show its progress: the packages it downloads and the file it compiles, with the total.

    python tools/with_progress.py python -m pip install --verbose .

A terminal shows one line that changes; other outputs get a line per step. If the command fails, its whole output
follows. The exit status is the command's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable

COMPILED = re.compile(
    r"\[(\d+)/(\d+)\] .*?([\w.-]+?)(?:\.o|\.a|\.so)?$"
)  # ninja's: [3/33] Building CXX object …/x.cpp.o
LOADED = re.compile(r" *Collecting ([\w.-]+)")


def step_of(line: str) -> str | None:
    """Return the step that a line of output reports; None if it reports none."""
    if found := COMPILED.match(line.strip()):
        return f"compiling {found[1]} of {found[2]}: {found[3]}"
    if found := LOADED.match(line):
        return f"package {found[1]}"
    return None


def show_on_terminal(step: str) -> None:
    """Replace the last step by ``step``."""
    width = shutil.get_terminal_size().columns
    sys.stderr.write(f"\r\033[K  {step}"[: width + 4])
    sys.stderr.flush()


def show_as_lines(step: str) -> None:
    """Print ``step`` below the last one."""
    print(f"  {step}", file=sys.stderr, flush=True)


def run(command: list[str], show: Callable[[str], None]) -> int:
    """Run ``command``, show its steps as they happen, and return its exit status."""
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            if step := step_of(line):
                show(step)
    if child.returncode:
        sys.stderr.write("\n" + "".join(lines))
    return child.returncode


def main() -> None:
    """Run the command line's command."""
    on_terminal = sys.stderr.isatty()
    status = run(sys.argv[1:], show_on_terminal if on_terminal else show_as_lines)
    if on_terminal and status == 0:
        sys.stderr.write("\r\033[K")
    sys.exit(status)


if __name__ == "__main__":
    main()
