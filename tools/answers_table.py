"""Write the table of public answers in docs/verify.md, from the answers file of the package.

    python tools/answers_table.py

The table stands between ``<!-- made: answers -->`` and ``<!-- end -->``. A test checks that it is current.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "verify.md"
MADE = re.compile(r"(<!-- made: answers -->\n).*?(?=<!-- end -->)", re.S)


def table() -> str:
    """Return a row for each answer, and its tolerance."""
    models = json.loads((ROOT / "src" / "gpt2lab" / "assets" / "answers.json").read_text(encoding="utf-8"))["models"]
    rows = ["| model | answer | within | source |", "|---|---|---|---|"]
    for size, answers in models.items():
        rows += (f"| {size} | {each['name']} | {_within(each)} | {each['source']} |" for each in answers)
    return "\n".join(rows) + "\n"


def _within(answer: dict[str, object]) -> str:
    if "tolerance" not in answer:
        return "equal"
    of_part = ", plus 4 standard errors of a part" if answer["kind"] == "benchmark" else ""
    return f"{answer['tolerance']:g}{of_part}"


def made(page: str) -> str:
    """Return the text of the page with its table rewritten."""
    return MADE.sub(lambda found: found[1] + table(), page)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
