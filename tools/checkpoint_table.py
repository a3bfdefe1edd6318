"""Write the table of checkpoints in docs/checkpoints.md, from the registry in tests/weights/checkpoint_cases.

    python tools/checkpoint_table.py            # writes the table
    python tools/checkpoint_table.py --judge    # builds each checkpoint first, and judges it against transformers

The table stands between ``<!-- made: cases -->`` and ``<!-- end -->``. A test checks that it is current. ``--judge``
needs the packages of the extra ``compare``; a case whose packages are missing is reported as skipped. The exit status
is 1 if a checkpoint is not read or refused as the registry says.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "weights"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from _pytest.outcomes import Skipped
from checkpoint_cases import CASES
from checkpoint_cases.registry import judge

from gpt2lab.errors import CheckpointError

PAGE = Path(__file__).parents[1] / "docs" / "checkpoints.md"
MADE = re.compile(r"(<!-- made: cases -->\n).*?(?=<!-- end -->)", re.S)


def table() -> str:
    """Return a row for each kind of checkpoint."""
    rows = ["| kind | written by | outcome | note |", "|---|---|---|---|"]
    for case in CASES:
        outcome = "read" if case.refusal is None else "refused"
        rows.append(f"| {case.kind} | {case.writer} | {outcome} | {case.note} |")
    return "\n".join(rows) + "\n"


def made(page: str) -> str:
    """Return the text of the page with its table rewritten."""
    return MADE.sub(lambda found: found[1] + table(), page)


def judged() -> int:
    """Build and judge every case; return the number of those that are not as the registry says."""
    wrong = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                judge(case, Path(folder))
                outcome = "as registered"
            except Skipped as skipped:
                outcome = f"skipped: {skipped}"
            except (AssertionError, CheckpointError) as error:
                outcome, wrong = f"WRONG: {error}", wrong + 1
        print(f"{case.kind}: {outcome}")
    return wrong


if __name__ == "__main__":
    if "--judge" in sys.argv[1:] and judged():
        sys.exit(1)
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
