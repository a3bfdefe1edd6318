"""``gpt2lab explore next``: the next token, stage by stage down to the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from gpt2lab.cli.explore.shared import JSON, SEED, ManyNumbers, loader_and_names, temperatures_option
from gpt2lab.cli.options import TEXT, Integer, model_options, option, sampling_options
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import hint_at_space, prompt_argument
from gpt2lab.sampling.declaration import SamplingParams


@click.command(
    cls=ManyNumbers,
    short_help="Show how the next token is chosen, stage by stage.",
    epilog="""\b
    Examples:
      gpt2lab explore next "The king said to the" --temperature 0.7 --top_k 40 --top_p 0.9 --seed 1
      gpt2lab explore next "The king said to the" --temperatures 0 0.5 1 2 100
    """,
)
@click.argument("prompt", type=TEXT)
@option("Output", "--top", type=Integer(1, 1000), default=10, help="Show the N likeliest tokens.")
@JSON
@SEED
@temperatures_option("that of --temperature alone")
@sampling_options
@model_options("float32, and int8 for the token that gpt2lab generate draws")
def command(
    prompt: str, temperatures: Sequence[float], seed: int | None, top: int, as_json: bool, **arguments: Any
) -> None:
    """Show what each stage of sampling does to the token after PROMPT (- reads standard input), and the draw itself.

    There is a column for each stage, in order, scaled to add up to 1 again; a dot marks a token that was cut. The draw
    is that of `gpt2lab generate` with the same seed. With --temperatures, there is a column for each temperature, with
    the final probabilities.
    """
    from gpt2lab.exploring.next import next_token
    from gpt2lab.exploring.terminal import show_next

    load, named = loader_and_names(arguments)
    params = SamplingParams(**arguments)
    text = prompt_argument(prompt)
    result = next_token(load(), text, params, temperatures=temperatures, seed=seed, top=top, options=named)
    hint_at_space([text])
    print_json(asdict(result)) if as_json else show_next(result)
