"""Command-line options that several commands share, and their groups in the help.

The sampling options are declared in :mod:`gpt2lab.sampling.declaration`. Options are spelled as in the original, with
underscores; the main group accepts dashes as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpt2lab.config import ACTIVATION_NAMES
from gpt2lab.engines.precision import ALL_PRECISIONS, KV_PRECISIONS, PRECISION_OF_FORMAT, file_format_error
from gpt2lab.generation.options import SPECULATIONS
from gpt2lab.sampling.declaration import PARAMETERS
from gpt2lab.system.paths import expanded

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class TypedText(click.types.StringParamType):
    """Text from the command line, which is UTF-8 whatever the locale says."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Decode again what Python could not decode in the locale's encoding."""
        try:
            return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # an unpaired surrogate, which the tokenizer reports
            return value


class PrecisionChoice(click.Choice[str]):
    """A choice of the precision of weights in memory, which some mistake for a file format."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value``; for a file format, the error names the precision that takes its place."""
        if value in PRECISION_OF_FORMAT:
            self.fail(file_format_error(value), param, ctx)
        return super().convert(value, param, ctx)


class HomePath(click.Path):
    """A path, in which ``~`` at the start is the home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Expand ``~``, also where the shell does not, as in ``--out=~/x`` and in a settings file."""
        return super().convert(expanded(value) if isinstance(value, str) else value, param, ctx)


class Integer(click.IntRange):
    """A whole number within bounds, which help and errors call an integer; click says "integer range"."""

    name = "integer"


TEXT, PATH, FOLDER = TypedText(), HomePath(), HomePath(path_type=Path)
"""Types of arguments and options: text, a path or an address as a string, and a :class:`~pathlib.Path`."""

PRECISION = PrecisionChoice(ALL_PRECISIONS)
"""The type of an option for the precision of weights in memory."""

KV_PRECISION: dict[str, Any] = {
    "type": click.Choice(KV_PRECISIONS),
    "help": "Precision of the KV cache; int8 makes prompts, batches and long texts faster. "
    "bfloat16 requires --precision bfloat16.  [default: on a CPU, float32 with --precision float32, bfloat16 with "
    "bfloat16, else int8; on a GPU, float32 with float32, else float16]",
}
"""Arguments of the option ``--kv_precision``."""

DEVICE: dict[str, Any] = {
    "default": "cpu",
    "metavar": "NAME",
    "help": "Where to compute: cpu; cuda or mps (GPUs, which need the extra gpu); auto (a GPU if there is one, else "
    "cpu). Slow, for comparison: reference (NumPy), torch-cpu (a GPU's code on the CPU).",
}
"""Arguments of the option ``--device``."""


class GroupedOption(click.Option):
    """An option that knows its heading in the help."""

    def __init__(self, *args: Any, group: str = "Options", **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists options under the headings of their groups, and which explains superfluous words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args``; the error for words that belong to nothing says how to join them to the rest."""
        ctx.allow_extra_args = True  # so that click leaves the error to us
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            ctx.fail(f"unexpected argument{'s' * (len(extra) != 1)} {' '.join(extra)!r}{self._hint_at_quotes()}")
        return extra

    def _hint_at_quotes(self) -> str:
        for parameter in self.params:
            if isinstance(parameter, click.Argument) and parameter.name in ("prompt", "text"):
                return ": put a text of several words in quotes"
            if parameter.required and parameter.multiple:
                return f": repeat {parameter.opts[0]} before each, or put a pattern in quotes"
        return ""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, in order of first appearance, and ``--help`` last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def option(group: str, *names: str, **more: Any) -> Callable[[Decorated], Decorated]:
    """Return ``click.option`` under the heading ``group``; help shows its default, if any, except that of a flag."""
    shown = more.get("default") is not None and not more.get("is_flag")
    return click.option(*names, cls=GroupedOption, group=group, show_default=shown, **more)


ACTIVATION: dict[str, Any] = {
    "type": click.Choice(ACTIVATION_NAMES),
    "help": "The MLP's activation, for files that do not record it. nanoGPT's from before June 2023 need gelu_new; "
    "the GGUF files of some models need gelu.  [default: gelu for nanoGPT, else gelu_new]",
}
"""The type and the help of ``--activation``."""


def special_option(group: str, where: str) -> Callable[[Decorated], Decorated]:
    """Return ``--special``, which reads special tokens in ``where``."""
    help = f"Treat special tokens in {where}, such as <|endoftext|>, as single tokens, not as text."
    return option(group, "--special", is_flag=True, help=help)


def model_options(default_precision: str) -> Callable[[Decorated], Decorated]:
    """Add the arguments of :func:`gpt2lab.load`, for :func:`model_loader`; ``default_precision`` is only shown."""
    group = "Model"
    options = (
        option(
            group,
            "--model_name",
            "--model",
            default="tales",
            metavar="NAME",
            help="A path, a folder under ./models, the built-in tales, a released size (124M, 355M, 774M, 1558M), or a "
            "model on the Hugging Face hub: USER/MODEL, USER/MODEL@REVISION.",
        ),
        option(
            group,
            "--precision",
            type=PRECISION,
            help="How weights are stored in memory. float32 rounds nothing: the likeliest tokens are those of the "
            "original. The others round: bfloat16 takes half the memory and about half the time, int8 a quarter, both "
            "with almost no loss; int4 takes a seventh and writes slightly worse. GPUs have float16 in place of int4.  "
            f"[default: {default_precision}; float32 on a GPU]",
        ),
        option(group, "--kv_precision", **KV_PRECISION),
        option(group, "--activation", **ACTIVATION),
        option(group, "--threads", type=int, help="Worker threads.  [default: the physical cores]"),
        option(group, "--device", **DEVICE),
    )

    def decorate(function: Decorated) -> Decorated:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def model_loader(arguments: dict[str, Any], prompt_cache: int = 0) -> Callable[[], LanguageModel]:
    """Pop the options of :func:`model_options` and ``--draft`` from ``arguments``; return that model's loader.

    ``prompt_cache`` is for commands whose prompts may begin alike.
    """
    name, draft = arguments.pop("model_name"), arguments.pop("draft", None)
    how = {name: arguments.pop(name) for name in ("precision", "kv_precision", "activation", "threads", "device")}
    if draft is not None and arguments.get("speculation") == "off":
        print("gpt2lab: --draft has no effect with --speculation off", file=sys.stderr)

    def load() -> LanguageModel:
        from gpt2lab.model import load

        return load(name, draft=draft, prompt_cache=prompt_cache, **how)

    return load


def speculation_options(function: Decorated) -> Decorated:
    """Add ``--draft`` and ``--speculation``, for tokens guessed ahead."""
    draft = option(
        "Model",
        "--draft",
        metavar="NAME",
        help="A smaller model with the same vocabulary that guesses tokens ahead, e.g. 124M for 1558M: the same text, "
        "faster.",
    )
    speculation = option(
        "Model",
        "--speculation",
        type=click.Choice(SPECULATIONS),
        default="auto",
        help="Guess tokens ahead, also from repetitions in the text, where that pays: changes speed, never text.",
    )
    return draft(speculation(function))


def sampling_options(function: Decorated, without: str = "") -> Decorated:
    """Add one option for each sampling parameter, except the one named ``without``."""
    for p in reversed(PARAMETERS.values()):
        if p.name != without:
            kind = type(p.default)
            function = option("Sampling", f"--{p.name}", type=kind, default=p.default, help=p.help)(function)
    return function


def generation_options(function: Decorated) -> Decorated:
    """Add the other options that shape a sample: length, seed, where it stops."""
    group = "Samples"
    options = (
        option(
            group,
            "--length",
            type=int,
            help="Draw at most N tokens.  [default: n_ctx without a prompt, n_ctx // 2 with one]",
        ),
        option(group, "--seed", type=int, help="Same seed, same text.  [default: a new one, printed on stderr]"),
        option(
            group,
            "--stop",
            type=TEXT,
            multiple=True,
            metavar="TEXT",
            help="End a sample where this appears; may be repeated.",
        ),
        option(group, "--ignore_eos", is_flag=True, help="Continue after <|endoftext|>, as the original did."),
        special_option(group, "prompts"),
        option(
            group,
            "--overflow",
            type=click.Choice(["error", "slide"]),
            default="error",
            help="What to do if prompt and length do not fit in the context: refuse (error), or drop the older half of "
            "the context whenever it is full (slide).",
        ),
    )
    for decorate in reversed(options):
        function = decorate(function)
    return function
