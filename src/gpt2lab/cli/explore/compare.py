"""``gpt2lab explore compare``: two models on the same prompt and seed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.explore.shared import HTML, JSON, SEED, write_result
from gpt2lab.cli.options import PRECISION, TEXT, GroupedCommand, Integer, option, sampling_options
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import hint_at_space, prompt_argument
from gpt2lab.sampling.declaration import SamplingParams

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel


@click.command(
    cls=GroupedCommand,
    short_help="Compare two models on the same prompt and seed.",
    epilog="""\b
    Example:
      gpt2lab explore compare 124M checkpoint/run1 "Once upon a time" --seed 1 --html compare.html
    """,
)
@click.argument("model_a")
@click.argument("model_b")
@click.argument("prompt", type=TEXT)
@option("Samples", "--nsamples", type=Integer(min=1), default=1, help="Samples of each model.")
@option("Samples", "--length", type=Integer(min=1), default=60, help="Maximum number of tokens in a sample.")
@SEED
@sampling_options
@option(
    "Output",
    "--top",
    type=Integer(1, 1000),
    default=10,
    help="Show the N tokens whose probability rises most from A to B, and the N whose probability falls most.",
)
@JSON
@HTML
@option(
    "Model",
    "--precision",
    type=PRECISION,
    help="Precision of both models.  [default: int8; float32 for figures]",
)
@option("Model", "--threads", type=int, help="Worker threads.  [default: the physical cores]")
def command(
    model_a: str,
    model_b: str,
    prompt: str,
    nsamples: int,
    length: int,
    seed: int | None,
    top: int,
    as_json: bool,
    html: str | None,
    precision: str | None,
    threads: int | None,
    **arguments: Any,
) -> None:
    """Let MODEL_A and MODEL_B continue PROMPT (- reads standard input) and compare what they expect at each token.

    KL(A‖B), in nats, compares the models before sampling options apply. Both must have the same vocabulary.
    """
    from gpt2lab.exploring.compare import compare

    params, text = SamplingParams(**arguments), prompt_argument(prompt)
    a, b = (_load(name, precision, threads) for name in (model_a, model_b))
    options = ["--precision", precision] if precision else []
    result = compare(
        a,
        b,
        text,
        params,
        names=(model_a, model_b),
        nsamples=nsamples,
        length=length,
        seed=seed,
        top=top,
        options=options,
    )
    hint_at_space([text])
    if as_json:
        print_json(asdict(result))
    else:
        from gpt2lab.exploring.terminal import show_comparison

        show_comparison(result)
    if html:
        from gpt2lab.exploring.compared import compare_page

        write_result(html, compare_page(result))


def _load(name: str, precision: str | None, threads: int | None) -> LanguageModel:
    from gpt2lab.model import load

    return load(name, precision=precision, threads=threads)
