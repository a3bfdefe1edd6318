"""``gpt2lab explore attend``: the attention of every head, and each layer's prediction."""

from __future__ import annotations

from dataclasses import asdict, fields

import click

from gpt2lab.cli.explore.shared import HTML, JSON, write_result
from gpt2lab.cli.options import ACTIVATION, TEXT, GroupedCommand, Integer, option
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import hint_at_space, prompt_argument


@click.command(
    cls=GroupedCommand,
    short_help="Show the token each layer would predict and, with --html, the attention of every head.",
)
@click.argument("prompt", type=TEXT)
@option("Output", "--top", type=Integer(1, 100), default=3, help="Guesses kept for each layer and token.")
@JSON
@HTML
@option("Model", "--model_name", "--model", default="tales", metavar="NAME", help="As in gpt2lab generate.")
@option("Model", "--activation", **ACTIVATION)
def command(prompt: str, top: int, as_json: bool, html: str | None, model_name: str, activation: str | None) -> None:
    """Show the logit lens of PROMPT (- reads standard input): what each layer would predict next.

    --html adds attention for every layer and head. The numbers are those of the engine, in float32.
    """
    from gpt2lab.exploring.attend import attend
    from gpt2lab.model import load

    prompt = prompt_argument(prompt)
    result = attend(load(model_name, activation=activation), prompt, top)
    hint_at_space([prompt])
    if as_json:
        record = {field.name: getattr(result, field.name) for field in fields(result)}
        lens = [[[asdict(guess) for guess in place] for place in layer] for layer in result.lens]
        print_json({**record, "lens": lens, "weights": result.weights.round(5).tolist()})
    else:
        from gpt2lab.exploring.terminal import show_lens

        show_lens(result)
    if html:
        from gpt2lab.exploring.attend_page import attend_page

        write_result(html, attend_page(result, model_name))
