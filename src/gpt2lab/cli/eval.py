"""``gpt2lab eval``: perplexity of texts, and published benchmarks next to the results of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.data_options import reading_of, reading_options
from gpt2lab.cli.options import PATH, GroupedCommand, model_options, option
from gpt2lab.cli.output import print_json, say
from gpt2lab.errors import UsageError
from gpt2lab.evaluating import TASKS, TEXTS

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from gpt2lab.config import ModelConfig
    from gpt2lab.evaluating import Evaluation, Figure, Run
    from gpt2lab.evaluating.published import Published

_EXAMPLES = """\b
    Examples:
      gpt2lab eval perplexity --data book.txt
      gpt2lab eval lambada hellaswag --model_name 124M
      gpt2lab eval wikitext2 --model_name 124M --stride 1024 --text raw
      gpt2lab eval cbt-cn --data CBTest.tgz --limit 200 --json
    """


@click.command(cls=GroupedCommand, short_help="Measure a model: perplexity and benchmarks.", epilog=_EXAMPLES)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@option(
    "Data",
    "--data",
    type=PATH,
    metavar="PATH",
    help="Use this dataset (file, archive, folder or address) instead of downloading it.",
)
@option("Data", "--limit", type=int, help="Use only the first N examples, or the first N lines of a text.")
@option(
    "Data",
    "--text",
    "texts",
    type=click.Choice(TEXTS),
    multiple=True,
    help="How to turn wikitext and cbt into text; may be repeated.  [default: detokenised; wikitext: also raw]",
)
@option(
    "Options",
    "--stride",
    type=int,
    help="Read long texts in windows that advance by N tokens.  [default: n_ctx, and n_ctx // 2]",
)
@option("Options", "--json", "as_json", is_flag=True, help="One JSON object for each task.")
@reading_options
@model_options("float32")
def command(tasks: tuple[str, ...], data: str | None, as_json: bool, limit: int | None, **more: Any) -> None:
    """Measure how well a model predicts text.

    TASK is perplexity (of your own text, with --data), lambada, wikitext2, wikitext103, hellaswag, cbt-cn or cbt-ne.
    Datasets are downloaded when they are first needed. For comparison, results that the GPT-2 paper and others
    published are printed below those of the model.
    """
    from gpt2lab.evaluating import evaluate

    tasks = tuple(dict.fromkeys(task.lower().replace("_", "-") for task in tasks))
    if data is not None and len(tasks) > 1:
        raise UsageError(f"--data applies to a single task, got {', '.join(tasks)}")
    if unknown := [task for task in tasks if task not in TASKS]:
        raise UsageError(f"unknown task {unknown[0]!r}; tasks are {', '.join(TASKS)}")
    reading, choice = reading_of(more)
    stride, texts = more.pop("stride"), more.pop("texts")
    run = _run(limit, **more)
    for task in tasks:
        with _progress(task, run) as (counted, download):
            found = evaluate(
                task,
                counted,
                data=data,
                stride=stride,
                texts=texts,
                reading=reading,
                choice=choice,
                say=_say,
                progress=download,
            )
        if as_json:
            print_json(_record(found, run.engine.config, more))
        else:
            _show(found, run.engine.config)


def _run(limit: int | None, model_name: str, activation: str | None, **how: Any) -> Run:
    """Return the model to measure, with its weights in float32 by default."""
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.evaluating import Run
    from gpt2lab.weights import open_checkpoint
    from gpt2lab.weights.checkpoint import tokenizer_of

    checkpoint = open_checkpoint(model_name, activation=activation)
    tokenizer = tokenizer_of(checkpoint)
    if tokenizer is None:
        raise UsageError(f"{model_name} has no tokenizer, so it cannot read text: put its vocabulary files beside it")
    return Run(Engines(checkpoint, **how).exact, tokenizer, limit)


def _say(line: str) -> None:
    say(f"gpt2lab: {line}")


@contextmanager
def _progress(task: str, run: Run) -> Iterator[tuple[Run, Callable[[str], Callable[[int, int], None]]]]:
    """Yield ``run`` with a progress line on stderr, and a function that starts one for a download; for terminals."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} done"), TimeElapsedColumn())
    counting = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    loading: Bars = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
    )

    def download(name: str) -> Callable[[int, int], None]:
        bar = loading.add_task(name, total=None)

        def at(done: int, total: int) -> None:
            _stop(counting)
            loading.start()
            loading.update(bar, completed=done, total=total)
            if done == total:
                loading.stop()
                counting.start()

        return at

    line = counting.add_task(task, total=None)
    counting.start()
    try:
        yield replace(run, tick=lambda n: counting.advance(line, n)), download
    finally:
        _stop(loading)
        _stop(counting)


def _stop(bars: Bars) -> None:
    if bars.live.is_started:  # else rich before 15 prints an empty line
        bars.stop()


# ---- output ---------------------------------------------------------------------------------------------------------


def _show(found: Evaluation, config: ModelConfig) -> None:
    counts = ", ".join(f"{value:,} {name}" for name, value in found.counts.items() if value)
    print(f"{found.task}: {TASKS[found.task]} ({counts})")
    rows = [(figure.metric, figure.protocol, *_number(figure)) for figure in found.figures]
    _table([("metric", "protocol", "value", "standard error"), *rows])
    if lines := _published(found.task, config):
        print("\npublished:")
        _table(lines)
    print(flush=True)


def _number(figure: Figure) -> tuple[str, str]:
    if figure.metric.startswith("accuracy"):
        return f"{100 * figure.value:.2f} %", "-" if math.isnan(figure.error) else f"{100 * figure.error:.2f}"
    digits = 4 if figure.metric == "bits per byte" else 3
    return f"{figure.value:.{digits}f}", "-" if math.isnan(figure.error) else f"{figure.error:.{digits}f}"


def _published(task: str, config: ModelConfig) -> list[tuple[str, ...]]:
    """Return the published figures, of the model's own size if it was released, else of all sizes."""
    from gpt2lab.evaluating.published import SIZES, published, released_size

    own = released_size(config)
    sizes = [own] if own else SIZES
    rows = [
        (each.metric, each.protocol, *(_published_number(each, size) for size in sizes), each.source)
        for each in published(task)
        if any(size in each.values for size in sizes)
    ]
    return [("metric", "protocol", *sizes, "source"), *rows] if rows else []


def _published_number(each: Published, size: str) -> str:
    if size not in each.values:
        return "-"
    return f"{each.values[size]:.2f}" + (" %" if each.metric.startswith("accuracy") else "")


def _table(rows: list[tuple[str, ...]]) -> None:
    """Print rows as aligned columns, with numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [rows[-1][column][:1].isdigit() or rows[-1][column] == "-" for column in range(len(widths))]
    for row in rows:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip())


def _record(found: Evaluation, config: ModelConfig, model: dict[str, Any]) -> dict[str, Any]:
    """Return the result for JSON, where null stands for NaN and infinity."""
    from gpt2lab.evaluating.published import published, released_size

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "task": found.task,
        "model": model["model_name"],
        "precision": model["precision"] or "float32",
        "counts": found.counts,
        "figures": [
            {
                "metric": figure.metric,
                "protocol": figure.protocol,
                "value": finite(figure.value),
                "standard_error": finite(figure.error),
            }
            for figure in found.figures
        ],
        "size": released_size(config),
        "published": [
            {"metric": each.metric, "protocol": each.protocol, "source": each.source, "values": each.values}
            for each in published(found.task)
        ],
    }
