"""Options of the commands that read datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import TEXT, Decorated, option

if TYPE_CHECKING:
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice
    from gpt2lab.tokenizer import Tokenizer


_FIELD = (
    "JSON field that holds the text. PROMPT,COMPLETION names two fields; the prompt is read, but neither learned nor "
    "scored.  [default: text, or prompt,completion]"
)
_COLUMN = "Column of CSV or TSV that holds the text: a name, or a number from 1.  [default: text, or the only column]"


def reading_options(
    function: Decorated,
    field: str = _FIELD,
    column: str = _COLUMN,
    tolerated: str = "more than 1 %",
) -> Decorated:
    """Add ``--field --column --encoding --errors --include --exclude``, for :func:`reading_of`.

    ``field`` and ``column`` are the help of these two, and ``tolerated`` is the share of unusable records that the help
    calls an error.
    """
    group = "Reading"
    options = (
        option(
            group,
            "--field",
            type=TEXT,
            metavar="NAME",
            help=field,
        ),
        option(
            group,
            "--column",
            type=TEXT,
            metavar="NAME",
            help=column,
        ),
        option(
            group,
            "--encoding",
            default="utf-8",
            help="Encoding of text, as Python names it: utf-8, cp1252, utf-16, ...",
        ),
        option(
            group,
            "--errors",
            type=click.Choice(["strict", "replace", "ignore", "skip"]),
            default="strict",
            help="What to do with bytes that are invalid in that encoding: stop (strict), replace them with �, or "
            f"leave them out (ignore). If {tolerated} of the records of a file are unusable, that is an error; skip "
            "leaves out any number of them, and otherwise works like strict.",
        ),
        option(
            group,
            "--include",
            metavar="PATTERN",
            multiple=True,
            help="In folders and archives, read only files that match this pattern, such as '*.py'; may be repeated.",
        ),
        option(
            group,
            "--exclude",
            metavar="PATTERN",
            multiple=True,
            help="In folders and archives, leave out files that match this pattern; may be repeated.",
        ),
    )
    for add in reversed(options):
        function = add(function)
    return function


READING = {"field": None, "column": None, "encoding": "utf-8", "errors": "strict", "include": (), "exclude": ()}
"""The options of :func:`reading_options`, and their defaults."""


def reading_of(arguments: dict[str, Any]) -> tuple[Reading, Choice]:
    """Pop the values of :func:`reading_options` from ``arguments``."""
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice

    reading = Reading(*(arguments.pop(name) for name in ("field", "column", "encoding", "errors")))
    return reading, Choice(arguments.pop("include"), arguments.pop("exclude"))


def vocabulary_option(function: Decorated) -> Decorated:
    """Add ``--model_name``, for :func:`vocabulary_of`."""
    return option(
        "Reading",
        "--model_name",
        "--model",
        metavar="NAME",
        help="Use this model's vocabulary.  [default: GPT-2's]",
    )(function)


def vocabulary_of(model_name: str | None) -> Tokenizer:
    """Return the tokenizer of a model, without reading its weights; GPT-2's by default."""
    from gpt2lab.errors import UsageError
    from gpt2lab.tokenizer import Tokenizer
    from gpt2lab.weights import open_checkpoint
    from gpt2lab.weights.checkpoint import tokenizer_of

    if model_name is None:
        return Tokenizer.gpt2()
    tokenizer = tokenizer_of(open_checkpoint(model_name))
    if tokenizer is None:
        raise UsageError(f"{model_name} has no tokenizer: put its vocabulary files beside it")
    return tokenizer
