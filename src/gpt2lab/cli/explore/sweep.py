"""``gpt2lab explore sweep``: samples at several temperatures, with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from gpt2lab.cli.explore.shared import (
    HTML,
    JSON,
    SEED,
    ManyNumbers,
    file_option,
    loader_and_names,
    model_name,
    temperatures_option,
    write_result,
)
from gpt2lab.cli.options import PATH, TEXT, Integer, model_options, option, sampling_options
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import hint_at_space, prompt_argument
from gpt2lab.sampling.declaration import SamplingParams


@click.command(
    cls=ManyNumbers,
    short_help="Compare samples and their statistics at several temperatures.",
    epilog="""\b
    Example:
      gpt2lab explore sweep "Once upon a time" --temperatures 0 0.5 1 1.5 --seed 1 --html sweep.html
    """,
)
@click.argument("prompt", type=TEXT)
@option("Samples", "--nsamples", type=Integer(min=1), default=3, help="Samples at each temperature.")
@option("Samples", "--length", type=Integer(min=1), default=60, help="Maximum number of tokens in a sample.")
@SEED
@option("Samples", "--ignore_eos", is_flag=True, help="Continue after <|endoftext|>, as the original did.")
@temperatures_option("0 0.5 1 1.1 1.2 1.3 2 100")
@partial(sampling_options, without="temperature")
@option(
    "Figures",
    "--against",
    type=PATH,
    metavar="FILE",
    help="The training text (or a folder of .txt files): report the longest run of words copied from it.",
)
@option(
    "Figures",
    "--words",
    type=PATH,
    metavar="FILE",
    help="A word list or any text: report the share of the samples' words that it lacks.  "
    "[default: the text of --against]",
)
@JSON
@HTML
@file_option("--png", "Write the charts as a PNG picture; needs matplotlib.")
@file_option("--svg", "Write the charts as an SVG picture; needs matplotlib.")
@model_options("int8; float32 for the figures")
def command(
    prompt: str,
    temperatures: Sequence[float],
    nsamples: int,
    length: int,
    seed: int | None,
    ignore_eos: bool,
    against: str | None,
    words: str | None,
    as_json: bool,
    html: str | None,
    png: str | None,
    svg: str | None,
    **arguments: Any,
) -> None:
    """Continue PROMPT (- reads standard input, "" means none) at several temperatures with the same random numbers.

    Every sample is shown with the command that reproduces it. docs/temperature.md explains the figures.
    """
    from gpt2lab.exploring.sweep import TEMPERATURES, Request, sweep

    load, named = loader_and_names(arguments)
    request = Request(
        prompt=prompt_argument(prompt),
        params=SamplingParams(**arguments),
        temperatures=tuple(temperatures) or TEMPERATURES,
        nsamples=nsamples,
        length=length,
        seed=seed,
        ignore_eos=ignore_eos,
        model=named,
        against=against,
        words=words,
    )
    result = sweep(load(), request, model_name(named))
    hint_at_space([request.prompt])
    if as_json:
        print_json(asdict(result))
    else:
        from gpt2lab.exploring.terminal import show_sweep

        show_sweep(result)
    if html:
        from gpt2lab.exploring.swept import sweep_page

        write_result(html, sweep_page(result))
    for path, format in ((png, "png"), (svg, "svg")):
        if path:
            from gpt2lab.exploring.plots import picture

            write_result(path, picture(result, format))  # type: ignore[arg-type]
