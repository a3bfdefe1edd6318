"""``gpt2lab explore``: what temperature does, what comes next and why, and what goes on inside."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpt2lab.cli.options import SAMPLING_HELP, GroupedCommand, model_loader, model_options, option, sampling_options
from gpt2lab.cli.output import check_not_input
from gpt2lab.cli.prompts import read_text, whole_prompt
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import UsageError
from gpt2lab.sampling import SamplingParams

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)

MODEL_OPTIONS = {"model_name": "tales", "precision": None, "kv_precision": None, "device": "cpu"}
"""Options that decide what a model writes, and their defaults."""


def _to_be_written(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Complain before any work is done about a file that cannot be made."""
    if value is not None and not Path(value).absolute().parent.is_dir():
        raise UsageError(f"cannot write {value}: there is no folder {Path(value).parent}")
    if value is not None and parameter.name in ("png", "svg"):
        from gpt2lab.exploring.plots import check_matplotlib

        check_matplotlib()
    return value


def _file(name: str, text: str) -> Callable[[Decorated], Decorated]:
    return option("Output", name, metavar="FILE", callback=_to_be_written, help=text)


HTML = _file("--html", "Write one self-contained page: no network, opens from disk.")
JSON = option("Output", "--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
SEED = option("Samples", "--seed", type=int, help="Same seed, same text.  [default: a new one, shown]")


class ManyNumbers(GroupedCommand):
    """A command whose ``--temperatures`` takes all the numbers behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each number behind ``--temperatures`` that option to itself, as click wants it."""
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
                spread.append(word)  # click says that it lacks its argument
        return super().parse_args(ctx, spread)


@click.group()
def command() -> None:
    """Look inside: what temperature does, what comes next, attention, and how models differ."""


def _temperatures(default: str) -> Callable[[Decorated], Decorated]:
    return option(
        "Sampling",
        "--temperatures",
        type=float,
        multiple=True,
        metavar="T T …",
        help=f"One or more, side by side; 0 takes the likeliest token.  [default: {default}]",
    )


def _other_sampling_options(function: Decorated) -> Decorated:
    """Every sampling option but the temperature."""
    for field in reversed(fields(SamplingParams)):
        if field.name in SAMPLING_HELP and field.name != "temperature":
            kind, text = type(field.default), SAMPLING_HELP[field.name]
            function = option("Sampling", f"--{field.name}", type=kind, default=field.default, help=text)(function)
    return function


@command.command(
    "sweep",
    cls=ManyNumbers,
    short_help="Samples at several temperatures, with figures.",
    epilog="""\b
    Example:
      gpt2lab explore sweep "Once upon a time" --temperatures 0 0.5 1 1.5 --seed 1 --html sweep.html
    """,
)
@click.argument("prompt")
@option("Samples", "--nsamples", type=click.IntRange(min=1), default=3, help="Samples at each temperature.")
@option("Samples", "--length", type=click.IntRange(min=1), default=60, help="Tokens of a sample at most.")
@SEED
@option("Samples", "--ignore_eos", is_flag=True, help="Go on after <|endoftext|>, as the original did.")
@_temperatures("0 0.5 1 1.1 1.2 1.3 2 100")
@_other_sampling_options
@option(
    "Figures",
    "--against",
    metavar="FILE",
    help="The training text (or a folder of .txt files): report the longest run of words copied from it.",
)
@option(
    "Figures",
    "--words",
    metavar="FILE",
    help="A word list or any text: report the share of words that do not occur in it.  [default: what --against names]",
)
@JSON
@HTML
@_file("--png", "The figures as a picture; needs matplotlib.")
@_file("--svg", "The same, to be scaled; needs matplotlib.")
@model_options("q8_0; float32 for the figures")
def sweep_command(
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
    """Continue PROMPT (- reads standard input, "" is none) at several temperatures with the same random numbers.

    Every sample is shown with the command that makes it again. Figures are of the unmodified model: see
    docs/temperature.md.
    """
    from gpt2lab.exploring.sweep import TEMPERATURES, Request, sweep

    load, named = model_loader_and_names(arguments)
    request = Request(
        prompt=_prompt(prompt),
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
    result = sweep(load(), request, _model_name(named))
    if as_json:
        _print_json(asdict(result))
    else:
        from gpt2lab.exploring.terminal import show_sweep

        show_sweep(result)
    if html:
        from gpt2lab.exploring.pages import sweep_page

        _write(html, sweep_page(result))
    for path, format in ((png, "png"), (svg, "svg")):
        if path:
            from gpt2lab.exploring.plots import picture

            _write(path, picture(result, format))  # type: ignore[arg-type]


@command.command(
    "next",
    cls=ManyNumbers,
    short_help="The next token, stage by stage down to the draw.",
    epilog="""\b
    Examples:
      gpt2lab explore next "The king said to the" --temperature 0.7 --top_k 40 --top_p 0.9 --seed 1
      gpt2lab explore next "The king said to the" --temperatures 0 0.5 1 2 100
    """,
)
@click.argument("prompt")
@option("Output", "--top", type=click.IntRange(1, 1000), default=10, help="Show the N likeliest tokens.")
@JSON
@SEED
@_temperatures("that of --temperature alone")
@sampling_options
@model_options("float32; q8_0 for the draw to compare with")
def next_command(
    prompt: str, temperatures: Sequence[float], seed: int | None, top: int, as_json: bool, **arguments: Any
) -> None:
    """Show what each stage of sampling does to the token after PROMPT (- reads standard input), and the draw itself.

    Columns are the stages in their order, each scaled to add up to 1 again; what is cut is a dot. The draw is that of
    `gpt2lab generate` with the same seed. With --temperatures, columns are the outcomes side by side.
    """
    from gpt2lab.exploring.next import next_token
    from gpt2lab.exploring.terminal import show_next

    load, named = model_loader_and_names(arguments)
    params = SamplingParams(**arguments)
    text = _prompt(prompt)
    result = next_token(load(), text, params, temperatures=temperatures, seed=seed, top=top, options=named)
    _print_json(asdict(result)) if as_json else show_next(result)


@command.command("score", cls=GroupedCommand, short_help="A text coloured by how surprising it is.")
@click.argument("file")
@option("Options", "--stride", type=int, help="Windows move on by so many tokens.  [default: n_ctx // 2]")
@JSON
@HTML
@model_options("float32")
def score_command(file: str, stride: int | None, as_json: bool, html: str | None, **arguments: Any) -> None:
    """Show FILE (- is standard input) with every token coloured by its probability.

    Texts longer than the context are read in overlapping windows; where one takes over is marked, and --json and
    --html tell how many tokens each one had before it.
    """
    from gpt2lab.exploring.score import read_document

    check_not_input(html, file)
    load, named = model_loader_and_names(arguments)
    text = read_text(file)
    document = read_document(load(), text, _model_name(named), stride)
    source = "standard input" if file == "-" else file
    if as_json:
        _print_json(asdict(document))
    else:
        from gpt2lab.exploring.terminal import show_score

        show_score(document, source)
    if html:
        from gpt2lab.exploring.pages import score_page

        _write(html, score_page(document, source))


@command.command(
    "compare",
    cls=GroupedCommand,
    short_help="Two models on the same prompt and seed.",
    epilog="""\b
    Example:
      gpt2lab explore compare 124M checkpoint/run1 "Once upon a time" --seed 1 --html compare.html
    """,
)
@click.argument("model_a")
@click.argument("model_b")
@click.argument("prompt")
@option("Samples", "--nsamples", type=click.IntRange(min=1), default=1, help="Samples of each model.")
@option("Samples", "--length", type=click.IntRange(min=1), default=60, help="Tokens of a sample at most.")
@SEED
@sampling_options
@option("Output", "--top", type=click.IntRange(1, 1000), default=10, help="Show the N tokens that moved most.")
@JSON
@HTML
@option("Model", "--precision", type=click.Choice(PRECISIONS), help="Of both.  [default: q8_0; float32 for figures]")
@option("Model", "--threads", type=int, help="Worker threads.  [default: the physical cores]")
def compare_command(
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

    KL(A‖B) is in nats, of the unmodified models; they must have the same vocabulary.
    """
    from gpt2lab.exploring.compare import compare

    params, text = SamplingParams(**arguments), _prompt(prompt)
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
    if as_json:
        _print_json(asdict(result))
    else:
        from gpt2lab.exploring.terminal import show_comparison

        show_comparison(result)
    if html:
        from gpt2lab.exploring.pages import compare_page

        _write(html, compare_page(result))


@command.command("tokens", cls=GroupedCommand, short_help="From bytes to ids, merge by merge.")
@click.argument("text")
@option("Options", "--model_name", "--model", metavar="NAME", help="Use this model's vocabulary.  [default: GPT-2's]")
@JSON
def tokens_command(text: str, model_name: str | None, as_json: bool) -> None:
    """Show how byte-pair encoding makes the tokens of TEXT (- reads standard input): pieces, merges, ids.

    Bytes are written as in vocab.bpe, where Ġ is a space. A merge joins the pair that stands first in the vocabulary's
    list; its number is the place in that list.
    """
    from gpt2lab.exploring.merging import merge_steps
    from gpt2lab.exploring.terminal import show_merges
    from gpt2lab.tokenizer import Tokenizer

    tokenizer = Tokenizer.gpt2()
    if model_name:
        from gpt2lab.model import tokenizer_of
        from gpt2lab.weights import open_checkpoint

        own = tokenizer_of(open_checkpoint(model_name))
        if own is None:
            raise UsageError(f"{model_name} has no tokenizer")
        tokenizer = own
    pieces = merge_steps(read_text("-") if text == "-" else text, tokenizer)
    _print_json([asdict(piece) for piece in pieces]) if as_json else show_merges(pieces)


@command.command("attend", cls=GroupedCommand, short_help="Attention of every head, and what each layer would say.")
@click.argument("prompt")
@option("Output", "--top", type=click.IntRange(1, 100), default=3, help="Guesses kept for each layer and token.")
@JSON
@HTML
@option("Model", "--model_name", "--model", default="tales", metavar="NAME", help="As in gpt2lab generate.")
def attend_command(prompt: str, top: int, as_json: bool, html: str | None, model_name: str) -> None:
    """Show the logit lens of PROMPT (- reads standard input): what each layer would have said next.

    --html adds attention for every layer and head. The readable NumPy model computes it, in float32.
    """
    from gpt2lab.exploring.attend import attend
    from gpt2lab.model import tokenizer_of
    from gpt2lab.weights import open_checkpoint

    checkpoint = open_checkpoint(model_name)
    result = attend(checkpoint, tokenizer_of(checkpoint), _prompt(prompt), top)
    if as_json:
        record = {field.name: getattr(result, field.name) for field in fields(result)}
        lens = [[[asdict(guess) for guess in place] for place in layer] for layer in result.lens]
        _print_json({**record, "lens": lens, "weights": result.weights.round(5).tolist()})
    else:
        from gpt2lab.exploring.terminal import show_lens

        show_lens(result)
    if html:
        from gpt2lab.exploring.attend_page import attend_page

        _write(html, attend_page(result, model_name))


def model_loader_and_names(arguments: dict[str, Any]) -> tuple[Callable[[], LanguageModel], list[str]]:
    """What opens the model, and those of its options that are not the defaults, as they are typed."""
    given = [
        word
        for name, default in MODEL_OPTIONS.items()
        if arguments[name] != default
        for word in (f"--{name}", str(arguments[name]))
    ]
    return model_loader(arguments), given


def _model_name(named: Sequence[str]) -> str:
    return named[named.index("--model_name") + 1] if "--model_name" in named else str(MODEL_OPTIONS["model_name"])


def _load(name: str, precision: str | None, threads: int | None) -> LanguageModel:
    from gpt2lab.model import load

    return load(name, precision=precision, threads=threads)


def _prompt(prompt: str) -> str:
    return whole_prompt("-") if prompt == "-" else prompt


def _print_json(data: Any) -> None:
    print(json.dumps(data, ensure_ascii=False))


def _write(path: str, content: str | bytes) -> None:
    from gpt2lab.exploring.html import write

    write(path, content)
    print(f"gpt2lab: wrote {path}", file=sys.stderr)
