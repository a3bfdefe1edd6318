"""Write the docs' lists of sampling stages, from their declaration in the package.

    python tools/docs_tables.py

Each list stands on its page between ``<!-- made: NAME -->`` and ``<!-- end -->``. A test checks that the pages are
current.
"""

from __future__ import annotations

import re
from pathlib import Path

from gpt2lab.sampling.declaration import PARAMETERS, STAGES

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("generate.md", "python.md", "sampling.md", "serve.md")
MADE = re.compile(r"(<!-- made: (\w+) -->\n?).*?(?=<!-- end -->)", re.S)
BIAS = "| `logit_bias` (none) | token id → number or `-inf` | Added to the token's logit; `-inf` excludes the token. |"
DRAW = "| `seed` | 0 to 2⁶³ − 1 | Draws one of the remaining tokens, according to their probabilities. |"


def stages() -> str:
    """List every stage, in order, with its parameters."""
    rows = ["| | stage | parameter (default) | range | effect |", "|---|---|---|---|---|"]
    for number, (stage, title) in enumerate(STAGES.items(), 1):
        head = f"| {number} | {title} "
        if stage == "logit_bias":
            rows.append(head + BIAS)
        for p in (p for p in PARAMETERS.values() if p.stage == stage):
            rows.append(f"{head}| `{p.name}` ({p.default:g}) | {p.allowed} | {p.help} |")
            head = "| | "
    rows.append(f"| {len(STAGES) + 1} | draw {DRAW}")
    return "\n".join(rows) + "\n"


def arguments() -> str:
    """List the arguments of the Python API."""
    rows = [f"| `{p.name}` | {p.default!r} | {p.help} |" for p in PARAMETERS.values()]
    return "\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n"


def names() -> str:
    """List the fields of a request."""
    return ", ".join(f"`{name}`" for name in PARAMETERS)


def order() -> str:
    """List the stages that have an option."""
    with_option = {p.stage for p in PARAMETERS.values()}
    return ", ".join(title for stage, title in STAGES.items() if stage in with_option)


def made(page: str) -> str:
    """Return the text of a page with its lists rewritten."""
    lists = {"stages": stages, "arguments": arguments, "names": names, "order": order}
    return MADE.sub(lambda found: found[1] + lists[found[2]](), page)


if __name__ == "__main__":
    for name in PAGES:
        path = DOCS / name
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")
