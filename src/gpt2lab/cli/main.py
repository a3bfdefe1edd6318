"""The ``gpt2lab`` command: finds a subcommand, and turns errors into one line and an exit status.

0: success. 2: a user error, with ``gpt2lab: error: …`` on stderr. 130: Ctrl-C. 141: the reader of the output is gone.
143: SIGTERM. 129: SIGHUP. 149: Ctrl-Break on Windows. Any other exception is a bug and keeps its traceback. A
subcommand is imported only when it is called.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOBase, TextIOWrapper
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn, TextIO, cast

import click

from gpt2lab.errors import Gpt2LabError, one_line
from gpt2lab.system.process import ENDING
from gpt2lab.version import __version__

COMMANDS = {
    "generate": "Write text, from a prompt or from nothing.",
    "interactive": "Type prompts, read completions.",
    "tokens": "Split a text into tokens and show them.",
    "next": "Show the likeliest next tokens after a prompt, and how sampling changes them.",
    "score": "Report how probable a model finds a text.",
    "eval": "Measure a model: perplexity and published benchmarks.",
    "encode": "Turn text into tokens, ready for training.",
    "inspect": "Report the contents of a dataset; show a batch of it.",
    "explore": "Look inside: what temperature does, the next token, attention, two models.",
    "train": "Fine-tune a model on your own text, or train one from scratch.",
    "convert": "Write a checkpoint in another format or precision.",
    "info": "Describe a model: shape, size, precision, memory.",
    "bench": "Measure how fast a model generates on this machine.",
    "serve": "Serve a playground for the browser, and OpenAI's API for programs.",
    "cache": "Show or clear cached weights and downloaded data.",
    "download": "Fetch a released model, or one on the Hugging Face hub.",
    "verify": "Check a released model against published results.",
    "completion": "Print a script that completes gpt2lab's words with Tab.",
}
"""Subcommand → its line in ``gpt2lab --help``; each is ``command`` in the module of the same name."""

SCRIPTS = {
    "generate_unconditional_samples": (
        "generate",
        "with the same flags; by default it makes one sample with the built-in model tales; "
        "--model_name takes a path in place of --models_dir",
    ),
    "interactive_conditional_samples": (
        "interactive",
        "with the same flags; the default model is the built-in tales; "
        "--model_name takes a path in place of --models_dir",
    ),
    "train": ("train", "with the same flags; it ends by itself: see --epochs and --steps"),
    "train_horovod": (
        "train",
        "started as 'torchrun --nproc-per-node N -m gpt2lab train', with the same flags; an update of all processes "
        "together has --batch_size times --accumulate_gradients windows",
    ),
    "encode": ("encode", "with the same arguments; it writes a folder unless OUT ends in .npz"),
    "download_model": ("download", "with the same names, one at a time"),
    "encoder": ("tokens", "which shows the tokens of a text"),
    "load_dataset": ("inspect", "which shows the windows that training reads from a dataset"),
    "model": ("info", "which describes a model"),
    "sample": ("next", "which shows how a token is chosen; 'gpt2lab generate' writes text"),
    "accumulate": ("train", "with --accumulate_gradients N"),
    "memory_saving_gradients": ("train", "with --memory_saving_gradients"),
}
"""Script of OpenAI's code or of its fine-tunable forks → the subcommand to use, and what differs."""


class Commands(click.Group):
    """A group that imports a subcommand's module only when needed, and reports errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the subcommand."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"gpt2lab.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand; for one of the original's scripts or a misspelt name, the error says what to use."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if script := SCRIPTS.get(PureWindowsPath(args[0]).stem.replace("-", "_")):  # with / or \\, .py or not
                command, difference = script
                message = f"{args[0]} is a script of the original: use 'gpt2lab {command}', {difference}"
                raise click.UsageError(f"{message} (see gpt2lab {command} --help)") from None
            from difflib import get_close_matches  # takes time

            if close := get_close_matches(args[0], COMMANDS, 1):
                raise click.UsageError(f"{error.message.rstrip('.')}. Did you mean {close[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand and flush its output."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            with suppress(OSError):  # else Python would report the error again when it flushes at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run, report errors, and exit."""
        _replace_closed_streams()
        _use_utf8()
        status = 2
        try:
            result = super().main(*args, **{**more, "standalone_mode": False})
            status = result if isinstance(result, int) else 0
        except Gpt2LabError as error:
            _complain(str(error))
        except click.ClickException as error:
            _complain(error.format_message() + _help_hint(error))
        except click.Abort:
            status = 130
        except MemoryError:
            _complain("not enough memory: use a smaller model, batch_size or length")
        except OSError as error:  # a full disk, a terminal that went away
            _complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        sys.exit(status)


class _Closed(TextIOBase):
    """A stand-in for a standard stream that the caller closed; using it raises an OSError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: object) -> NoReturn:
        raise OSError(f"{self._name} is closed")

    write = readline = _refuse
    buffer = property(_refuse)


def _replace_closed_streams() -> None:
    """Replace closed streams (``>&-``), which Python sets to None: any use of them would give a traceback."""
    if sys.stdin is None:
        sys.stdin = cast("TextIO", _Closed("standard input"))
    if sys.stdout is None:
        sys.stdout = cast("TextIO", _Closed("standard output"))
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8", newline="\n")  # noqa: SIM115 (for as long as we run)


def _use_utf8() -> None:
    """Set input and output to UTF-8, and output to plain newlines, on every system.

    In output, a byte of a file name that is not UTF-8 becomes an escape, such as ``\\udce9``, which JSON can read too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")


def _complain(message: str) -> None:
    print(f"gpt2lab: error: {one_line(message)}", file=sys.stderr)


def _help_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see {context.command_path} --help)" if context else ""


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={
        "token_normalize_func": lambda name: name.replace("-", "_"),  # every flag also with dashes
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="""\b
    gpt2lab generate "Once upon a time" --length 100 --temperature 0.8 --top_k 40
    gpt2lab generate --help
    """,
)
@click.version_option(__version__, prog_name="gpt2lab")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """GPT-2 on your own machine: run it, look inside it, train it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``gpt2lab``; the entry point of the command and of ``python -m gpt2lab``."""
    for number in ENDING:  # else nothing would remove half-written files
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    cli.main(arguments, prog_name="gpt2lab")
