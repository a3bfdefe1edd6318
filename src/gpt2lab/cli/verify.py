"""``gpt2lab verify``: compare a model with what others have published about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt2lab.cli.options import DEVICE, FOLDER, GroupedCommand, option
from gpt2lab.cli.output import say
from gpt2lab.errors import escaped

if TYPE_CHECKING:
    from gpt2lab.verifying import Answer, Outcome

_EXAMPLES = """\b
    Examples:
      gpt2lab verify 124M
      gpt2lab verify models/my-gpt2 --out proof.json
    """

_WIDTHS = (44, 30, 30, 10)
_RESULTS = {True: "pass", False: "FAIL", None: "skipped"}


@click.command(cls=GroupedCommand, short_help="Check a released model against published results.", epilog=_EXAMPLES)
@click.argument("name", metavar="MODEL")
@option("Options", "--full", is_flag=True, help="Use the whole benchmark data sets, with tight tolerances.")
@option("Options", "--out", type=FOLDER, help="The JSON file to write.  [default: verify-MODEL.json]")
@option(
    "Options", "--answers", type=FOLDER, help="Use the answers in this file.  [default: those that come with gpt2lab]"
)
@option("Options", "--threads", type=int, help="Worker threads.  [default: the physical cores]")
@option("Options", "--device", **DEVICE)
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    full: bool,
    out: Path | None,
    answers: Path | None,
    threads: int | None,
    device: str,
) -> None:
    """Compare MODEL with public answers: digests, continuations, logits, surprisals, losses, benchmarks.

    MODEL is 124M, 355M, 774M or 1558M, which is downloaded if it is not on this machine, or the path of one of them.
    The table shows the expected and the computed answers; the JSON file has all numbers and the source of each. The
    exit status is 1 if any differ.
    """
    from gpt2lab.system.atomic import write_file
    from gpt2lab.verifying import PUBLISHED, verify

    found = verify(
        name, answers=answers or PUBLISHED, full=full, threads=threads, device=device, say=_say, done=_Table().show
    )
    path = out or Path(f"verify-{Path(name).name}.json")
    content = json.dumps({**_origin(), **found.record()}, indent=2, ensure_ascii=False) + "\n"
    write_file(path, content.encode(), sync=False)
    print(f"{found.count(True)} passed, {found.count(False)} failed, {found.count(None)} skipped; written to {path}")
    ctx.exit(1 if found.count(False) else 0)


def _origin() -> dict[str, object]:
    """Return what computed the answers."""
    from gpt2lab.engines.native import instruction_set
    from gpt2lab.version import CONTRACT, __version__

    return {"gpt2lab": __version__, "contract": CONTRACT, "instruction_set": instruction_set()}


def _say(line: str) -> None:
    say(f"gpt2lab: {line}")


class _Table:
    """The printed table, which begins with the first outcome."""

    def __init__(self) -> None:
        self._begun = False

    def show(self, answer: Answer, outcome: Outcome) -> None:
        """Print a row. The reason of a skipped check, or the source of one that failed, follows on its own line."""
        if not self._begun:
            _row("check", "expected", "got", "within", "result")
        self._begun = True
        got = "" if outcome.passed is None else outcome.got
        _row(answer.name, outcome.expected, got, outcome.within, _RESULTS[outcome.passed])
        if outcome.passed is None:
            print(f"    {escaped(outcome.got)}", flush=True)
        elif not outcome.passed:
            print(f"    source: {escaped(answer.source)}", flush=True)


def _row(*cells: str) -> None:
    padded = (escaped(cell).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False))
    print("  ".join((*padded, cells[-1])).rstrip(), flush=True)
