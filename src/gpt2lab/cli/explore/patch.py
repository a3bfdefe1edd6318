"""``gpt2lab explore patch``: the layers and tokens at which a prompt decides its answer."""

from __future__ import annotations

from dataclasses import asdict

import click

from gpt2lab.cli.explore.shared import HTML, JSON, write_result
from gpt2lab.cli.options import ACTIVATION, TEXT, GroupedCommand, option
from gpt2lab.cli.output import print_json


@click.command(
    cls=GroupedCommand,
    short_help="Map the layers and tokens whose activations bring back a prompt's answer.",
    epilog="""\b
    Example:
      gpt2lab explore patch "The king and his queen" "The fox and his queen" --html patch.html
    """,
)
@click.argument("clean", type=TEXT)
@click.argument("corrupted", type=TEXT)
@option("Patching", "--answer", type=TEXT, help="Token to bring back.  [default: CLEAN's likeliest next token]")
@option("Patching", "--other", type=TEXT, help="Token to compare it with.  [default: CORRUPTED's likeliest next token]")
@JSON
@HTML
@option("Model", "--model_name", "--model", default="tales", metavar="NAME", help="As in gpt2lab generate.")
@option("Model", "--activation", **ACTIVATION)
def command(
    clean: str,
    corrupted: str,
    answer: str | None,
    other: str | None,
    as_json: bool,
    html: str | None,
    model_name: str,
    activation: str | None,
) -> None:
    """Run CORRUPTED with one activation of CLEAN at a time, for every layer and token (activation patching).

    Both prompts must have the same number of tokens. Each number is the share of the difference between the two
    answers that one copied activation restores. Everything is computed in float32.
    """
    from gpt2lab.exploring.patch import patch_map
    from gpt2lab.model import load

    found = patch_map(load(model_name, activation=activation), clean, corrupted, answer, other)
    if as_json:
        effects = {place: values.round(5).tolist() for place, values in found.effects.items()}
        print_json({**asdict(found), "effects": effects})
    else:
        from gpt2lab.exploring.terminal import show_patches

        show_patches(found)
    if html:
        from gpt2lab.exploring.patch_page import patch_page

        write_result(html, patch_page(found, model_name))
