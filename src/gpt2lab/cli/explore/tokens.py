"""``gpt2lab explore tokens``: from bytes to ids, merge by merge."""

from __future__ import annotations

from dataclasses import asdict

import click

from gpt2lab.cli.data_options import vocabulary_of
from gpt2lab.cli.explore.shared import JSON
from gpt2lab.cli.options import TEXT, GroupedCommand, option
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import read_text


@click.command(cls=GroupedCommand, short_help="Show how bytes become ids, merge by merge.")
@click.argument("text", type=TEXT)
@option("Options", "--model_name", "--model", metavar="NAME", help="Use this model's vocabulary.  [default: GPT-2's]")
@JSON
def command(text: str, model_name: str | None, as_json: bool) -> None:
    """Show how byte-pair encoding makes the tokens of TEXT (- reads standard input): pieces, merges, ids.

    Bytes are written as in vocab.bpe, where Ġ is a space. Each merge joins the pair that comes first in the
    vocabulary's list of merges; its number is its place there.
    """
    from gpt2lab.exploring.merging import merge_steps
    from gpt2lab.exploring.terminal import show_merges

    pieces = merge_steps(read_text("-") if text == "-" else text, vocabulary_of(model_name or None))
    print_json([asdict(piece) for piece in pieces]) if as_json else show_merges(pieces)
