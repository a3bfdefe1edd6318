"""The code that the subcommands of ``gpt2lab explore`` share: options, loading models, and writing results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpt2lab.cli.options import PATH, GroupedCommand, model_loader, option
from gpt2lab.cli.output import say
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)

MODEL_OPTIONS = {"model_name": "tales", "precision": None, "kv_precision": None, "activation": None, "device": "cpu"}
"""Options that decide what a model writes, and their defaults."""


def _to_be_written(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Raise :class:`UsageError`, before any work is done, for a file that cannot be written."""
    if value is not None and not Path(value).absolute().parent.is_dir():
        raise UsageError(f"cannot write {value}: there is no folder {Path(value).parent}")
    if value is not None and parameter.name in ("png", "svg"):
        from gpt2lab.exploring.plots import check_matplotlib

        check_matplotlib()
    return value


def file_option(name: str, text: str) -> Callable[[Decorated], Decorated]:
    """Return an option that names a file to write; ``text`` is its help."""
    return option("Output", name, type=PATH, metavar="FILE", callback=_to_be_written, help=text)


HTML = file_option("--html", "Write one self-contained page: no network, opens from disk.")

JSON = option("Output", "--json", "as_json", is_flag=True, help="One JSON object instead of tables.")

SEED = option("Samples", "--seed", type=int, help="Same seed, same text.  [default: a new one, shown]")


class ManyNumbers(GroupedCommand):
    """A command whose ``--temperatures`` takes all the numbers that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--temperatures`` before each number that follows it, as click requires."""
        spread: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--":
                spread += [word, *rest]
                break
            if word != "--temperatures":
                spread.append(word)
                continue
            first = True
            while rest and (first or _NUMBER.fullmatch(rest[0])):
                spread += [word, rest.pop(0)]
                first = False
            if first:
                spread.append(word)  # click reports the missing argument
        return super().parse_args(ctx, spread)


def temperatures_option(default: str) -> Callable[[Decorated], Decorated]:
    """Return ``--temperatures``, whose help names ``default``."""
    return option(
        "Sampling",
        "--temperatures",
        type=float,
        multiple=True,
        metavar="T T …",
        help=f"One or more temperatures to compare; 0 takes the likeliest token.  [default: {default}]",
    )


def loader_and_names(arguments: dict[str, Any]) -> tuple[Callable[[], LanguageModel], list[str]]:
    """Return a function that loads the model, and its options that differ from the defaults, as typed."""
    given = [
        word
        for name, default in MODEL_OPTIONS.items()
        if arguments[name] != default
        for word in (f"--{name}", str(arguments[name]))
    ]
    return model_loader(arguments), given


def model_name(named: Sequence[str]) -> str:
    """Return the model named in the options that :func:`loader_and_names` returns."""
    return named[named.index("--model_name") + 1] if "--model_name" in named else str(MODEL_OPTIONS["model_name"])


def write_result(path: str, content: str | bytes) -> None:
    """Write a result and report it on stderr."""
    from gpt2lab.markup.html import write

    write(path, content)
    say(f"gpt2lab: wrote {path}")
