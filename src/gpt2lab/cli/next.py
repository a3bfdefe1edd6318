"""``gpt2lab next``: the distribution of the next token, stage by stage."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import TEXT, GroupedCommand, model_loader, model_options, option, sampling_options
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import hint_at_space, prompt_argument
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.distribution import NextToken, StageView

BAR_WIDTH = 40
NUMBERS_WIDTH = 36
"""Width of a table without its bars, with the longest common words."""
MAX_ROWS = 1000
"""The most rows of a table: rich takes minutes to lay out a whole vocabulary."""


@click.command(
    cls=GroupedCommand,
    short_help="Show the likeliest next tokens after a prompt.",
    epilog="""\b
    Example:
      gpt2lab next "The king said to the" --temperature 0.7 --top_k 40 --top 5
    """,
)
@click.argument("prompt", type=TEXT)
@option("Output", "--top", type=int, default=10, help="Show the N likeliest tokens of each stage.")
@option("Output", "--json", "as_json", is_flag=True, help="One JSON object with every stage and its candidates.")
@sampling_options
@model_options("float32")
def command(prompt: str, top: int, as_json: bool, **arguments: Any) -> None:
    """Show which tokens may follow PROMPT (- reads standard input) and how probable each is.

    The first stage is the model's own distribution; every sampling option that is on adds one, in the order in which
    they are applied. Penalties apply to tokens of the prompt too.
    """
    if top > MAX_ROWS:
        raise UsageError(f"top must be at most {MAX_ROWS}, got {top}")
    prompt = prompt_argument(prompt)
    load = model_loader(arguments)
    result = load().next_token(prompt, top=top, **arguments)
    hint_at_space([prompt])
    if as_json:
        print_json(asdict(result))
    else:
        _show(result)


def _show(result: NextToken) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as tables:  # print() them below: rich would exit with status 1 if nobody reads them
        for number, stage in enumerate(result.stages):
            if number:
                console.print()
            console.print(_table(stage, bar_width=min(BAR_WIDTH, console.width - NUMBERS_WIDTH)))
    print("\n".join(line.rstrip() for line in tables.get().splitlines()))


def _table(stage: StageView, bar_width: int) -> Any:
    """Return one stage as a rich table: token, probability, and if there is room, a bar relative to the likeliest."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{stage.name}: {stage.kept:,} token{'s' * (stage.kept != 1)}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("token", no_wrap=True)
    table.add_column("id", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("", no_wrap=True, overflow="crop")
    for candidate in stage.candidates:
        width = round(max(0, bar_width) * candidate.probability / stage.candidates[0].probability)
        bar = Text("█" * width, style="cyan")
        table.add_row(Text(repr(candidate.text)), str(candidate.id), f"{candidate.probability:.2%}", bar)
    return table
