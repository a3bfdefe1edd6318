"""``gpt2lab interactive``: type prompts, read completions, as the original's interactive script did."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import (
    GroupedCommand,
    Integer,
    generation_options,
    model_loader,
    model_options,
    option,
    sampling_options,
    speculation_options,
)
from gpt2lab.cli.output import header, print_as_made
from gpt2lab.cli.prompts import hint_at_space
from gpt2lab.cli.stopping import StoppedBetween
from gpt2lab.errors import Gpt2LabError
from gpt2lab.generation.options import make_options
from gpt2lab.generation.run import in_order
from gpt2lab.generation.sequences import DEFAULT_BYTES
from gpt2lab.system.process import reads_woken
from gpt2lab.system.terminal import END_OF_INPUT

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel


_QUESTION = "Model prompt >>> "
_HOW_TO_END = f"{END_OF_INPUT} the program"


@click.command(
    cls=GroupedCommand,
    short_help="Type prompts, read completions.",
    epilog="""\b
    Ctrl-C stops a sample, Ctrl-D (Windows: Ctrl-Z, Enter) ends the program.

    \b
    Example:
      gpt2lab interactive --model_name 124M --top_k 40 --length 100
    """,
)
@option("Samples", "--nsamples", type=Integer(min=1), default=1, help="Samples of each prompt.")
@generation_options
@sampling_options
@model_options("int8")
@option(
    "Model",
    "--batch_size",
    type=int,
    default=1,
    help="Samples generated together; with 1, text appears as it is generated.",
)
@speculation_options
def command(nsamples: int, **arguments: Any) -> None:
    """Read a prompt, print how the model continues it, and ask for the next.

    Only the completion is printed. With --seed the n-th prompt of a session always gets the same samples; entering
    the same prompt again gives different ones.
    """
    with suppress(ImportError):
        import readline  # noqa: F401  (arrow keys and history for input())

    load = model_loader(arguments, prompt_cache=DEFAULT_BYTES)
    arguments["seed"] = make_options(**arguments).seed
    model = load()
    model.pieces("", **arguments).close()  # reports unsuitable options now, not at every prompt
    print(f"gpt2lab: seed {arguments['seed']}", file=sys.stderr)
    if sys.stdin.isatty():
        print(f"gpt2lab: {_HOW_TO_END}", file=sys.stderr)
    with StoppedBetween() as stopped:
        _converse(model, nsamples, arguments, stopped)


def _converse(model: LanguageModel, nsamples: int, arguments: dict[str, Any], stopped: StoppedBetween) -> None:
    """Ask and answer until the input ends."""
    first_index = 0
    while (prompt := _ask(stopped)) is not None:
        hint_at_space([prompt])
        try:
            with stopped.interruptible():
                _answer(model, prompt, nsamples, first_index, arguments)
        except KeyboardInterrupt:
            print("(stopped)", file=sys.stderr)
        except Gpt2LabError as error:
            print(f"gpt2lab: error: {error}", file=sys.stderr)
        print("=" * 80, flush=True)
        first_index += nsamples


def _ask(stopped: StoppedBetween) -> str | None:
    """Ask for the next nonempty prompt; None at the end of the input."""
    while True:
        try:
            with reads_woken(), stopped.interruptible():
                prompt = _read_line()
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print(f"\n({_HOW_TO_END})", file=sys.stderr)
            continue
        if prompt:
            return prompt
        print("Prompt should not be empty!")


def _read_line() -> str:
    """Print the question and read a line; at a terminal it can be edited."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return input(_QUESTION)  # which knows how far to erase
    print(_QUESTION, end="", flush=True)  # input() discards a KeyboardInterrupt that is raised while it flushes
    if line := sys.stdin.readline():
        return line.removesuffix("\n")
    raise EOFError


def _answer(model: LanguageModel, prompt: str, nsamples: int, first_index: int, arguments: dict[str, Any]) -> None:
    with closing(model.pieces(prompt, n=nsamples, first_index=first_index, **arguments)) as pieces:
        if arguments["batch_size"] == 1:
            print_as_made(pieces, lambda _: "", first_index)
            return
        for completion in in_order(pieces, first_index):
            print(header(completion.index - first_index + 1) + completion.text, flush=True)
