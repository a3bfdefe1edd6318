"""``gpt2lab bench``: the speed of a model on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import GroupedCommand, PrecisionChoice, option
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.benchmarking import Speed
    from gpt2lab.weights.checkpoint import Checkpoint


@click.command(
    cls=GroupedCommand,
    short_help="Measure how fast a model generates on this machine.",
    epilog="""\b
    Examples:
      gpt2lab bench
      gpt2lab bench --model_name 124M --precision int8 --precision float32
      gpt2lab bench --random 774M --precision all --json
    """,
)
@option("Model", "--model_name", "--model", metavar="NAME", help="A name or path as for generate.  [default: tales]")
@option(
    "Model", "--random", metavar="SIZE", help="Use random weights of this released size instead; nothing is downloaded."
)
@option(
    "Model",
    "--precision",
    "precisions",
    type=PrecisionChoice([*PRECISIONS, "all"]),
    multiple=True,
    default=["int8"],
    help="How weights are stored in memory; may be repeated.",
)
@option("Model", "--threads", type=int, help="Worker threads.  [default: the physical cores]")
@option("Options", "--rounds", type=int, default=3, help="How many times each figure is measured.")
@option("Options", "--json", "as_json", is_flag=True, help="One JSON object for each precision.")
def command(model_name: str | None, random: str | None, precisions: tuple[str, ...], as_json: bool, **how: Any) -> None:
    """Print tokens per second for one sequence, for a batch of 8, and for reading a prompt.

    Decoding is greedy, without speculation. Figures are medians, with the smallest and the largest of all rounds.
    GB/s is the rate at which weights, keys and values are read; compare it with the bandwidth of the memory.
    """
    checkpoint = _checkpoint(model_name, random)
    header = "" if as_json else f"{'':<12}{'':<12}{'tokens/s':>10}  {'min - max':^19}{'GB/s':>8}\n"
    for precision in PRECISIONS if "all" in precisions else dict.fromkeys(precisions):
        speeds = _speeds(checkpoint, precision, **how)
        click.echo(header, nl=False)  # only after all checks have passed
        header = ""
        if as_json:
            click.echo(json.dumps(_record(checkpoint, precision, speeds, **how)))
            continue
        for speed in speeds:
            click.echo(_line(precision, speed))


def _checkpoint(model_name: str | None, random: str | None) -> Checkpoint:
    if random is None:
        from gpt2lab.weights import open_checkpoint

        return open_checkpoint(model_name or "tales")
    if model_name is not None:
        raise UsageError("give either --model_name or --random, not both")
    from gpt2lab.benchmarking import random_checkpoint

    return random_checkpoint(random)


def _speeds(checkpoint: Checkpoint, precision: str, *, threads: int | None, rounds: int) -> Iterator[Speed]:
    """Return the speeds as they are measured; errors in the arguments or the model are raised at once."""
    from gpt2lab.benchmarking import measure
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.model import LanguageModel
    from gpt2lab.weights.checkpoint import tokenizer_of

    engines = Engines(checkpoint, precision=precision, threads=threads)
    speeds = measure(LanguageModel(engines, tokenizer_of(checkpoint)), rounds)
    _ = engines.generating  # opens it, or raises
    return speeds


def _record(checkpoint: Checkpoint, precision: str, speeds: Iterable[Speed], **how: Any) -> dict[str, Any]:
    """Return the results of one precision for JSON."""
    results = [
        {
            "workload": speed.workload.name,
            "batch": speed.workload.batch,
            "prompt": speed.workload.prompt,
            "new": speed.workload.new,
            "tokens_s": speed.summary(),
            "gb_s": speed.gb_s and round(speed.gb_s, 2),
        }
        for speed in speeds
    ]
    return {"model": str(checkpoint.path), "precision": precision, **how, "results": results}


def _line(precision: str, speed: Speed) -> str:
    """Format one row of the table."""
    figures = speed.summary()
    span = f"{figures['min']:,.1f} - {figures['max']:,.1f}"
    read = "" if speed.gb_s is None else f"{speed.gb_s:.1f}"
    return f"{precision:<12}{speed.workload.name:<12}{figures['median']:>10,.1f}  {span:^19}{read:>8}".rstrip()
