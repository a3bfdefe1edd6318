"""``gpt2lab generate``: write samples to standard output or a file, as plain text or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from gpt2lab.cli.data_options import READING, reading_of, reading_options
from gpt2lab.cli.job_options import JobOptions, job_options
from gpt2lab.cli.options import (
    FOLDER,
    PATH,
    TEXT,
    GroupedCommand,
    Integer,
    generation_options,
    model_loader,
    model_options,
    option,
    sampling_options,
    speculation_options,
)
from gpt2lab.cli.output import check_not_input, json_line, plain, plain_prompt, print_as_made
from gpt2lab.cli.progress import Progress
from gpt2lab.cli.prompts import hint_at_space, prompt_argument, whole_prompt
from gpt2lab.cli.stopping import StoppedBetween
from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Completion, Piece, Prompt
from gpt2lab.generation.options import make_options
from gpt2lab.generation.run import in_order


@click.command(
    cls=GroupedCommand,
    short_help="Write text, from a prompt or from nothing.",
    epilog="""\b
    Examples:
      gpt2lab generate "Once upon a time" --length 100 --temperature 0.8 --top_k 40
      gpt2lab generate --nsamples 0 --seed 1 --out tales.txt
      echo "The king said" | gpt2lab generate - --nsamples 5
      gpt2lab generate --prompts prompts.jsonl --json > completions.jsonl
      gpt2lab generate --prompts s3://mine/prompts.jsonl --json --out s3://mine/tales.jsonl --ray

    Options may be spelled with dashes too (--top-k). Text goes to standard output, all else to standard error.
    """,
)
@click.argument("prompt", type=TEXT, required=False)
@option(
    "Prompts", "--prompt_file", type=PATH, metavar="FILE", help="Read one prompt from a file (- is standard input)."
)
@option(
    "Prompts",
    "--prompts",
    "prompts_file",
    type=PATH,
    metavar="FILE",
    help='Read prompts from a file or an address. It has one per line, JSON lines or an array with "prompt" (text or '
    "token ids), or is CSV, TSV or Parquet with a column prompt.",
)
@partial(
    reading_options,
    field="JSON field that holds the prompt.  [default: prompt]",
    column="Column of CSV, TSV or Parquet that holds the prompt.  [default: prompt]",
    tolerated="any",
)
@option(
    "Prompts",
    "--save_prompt",
    type=FOLDER,
    metavar="FILE",
    help="Also write the prompt's keys and values to FILE, for --load_prompt.",
)
@option(
    "Prompts",
    "--load_prompt",
    type=FOLDER,
    metavar="FILE",
    help="Reuse the prompt saved in FILE as far as a prompt begins like it: the text is the same and comes sooner. "
    "FILE must come from this model in this precision.",
)
@option(
    "Samples",
    "--nsamples",
    type=Integer(min=0),
    default=1,
    help="Samples of each prompt; 0 continues until stopped.",
)
@generation_options
@sampling_options
@option("Output", "--json", "as_json", is_flag=True, help="JSON lines: prompt, completion, tokens, seed, index, …")
@option(
    "Output",
    "--out",
    type=PATH,
    metavar="FILE",
    help="Append finished samples to a file instead of standard output. With --prompts: write to this file "
    "or address; an interrupted run resumes.",
)
@model_options("int8")
@option(
    "Model",
    "--batch_size",
    type=int,
    help="At most N samples at a time: changes speed and memory, never text.  [default: automatic]",
)
@speculation_options
@job_options
def command(
    prompt: str | None,
    prompt_file: str | None,
    prompts_file: str | None,
    nsamples: int,
    as_json: bool,
    out: str | None,
    **arguments: Any,
) -> None:
    """Continue PROMPT, or write from nothing if there is none.

    PROMPT is text, or - to read it from standard input. Each sample is printed after its prompt, below a line
    with its number; --json keeps prompt and completion apart.
    """
    job = JobOptions(**{name: arguments.pop(name) for name in JobOptions._fields})
    job.check(wanted=prompts_file is not None and out is not None)
    check_not_input(out, prompts_file, prompt_file)
    reading = {name: arguments.pop(name) for name in READING}
    prompts = _prompts(prompt, prompt_file, prompts_file, reading)
    model_arguments = {key: arguments[name] for key, name in _MODEL_ARGUMENTS.items()}
    is_job = prompts_file is not None and out is not None
    saved = arguments.pop("save_prompt"), arguments.pop("load_prompt")
    if any(saved):
        from gpt2lab.cli.saved_prompts import check_saved, use_saved

        check_saved(len(prompts), saved[0], is_job)
    load = model_loader(arguments, prompt_cache=_MOST if any(saved) else 0)
    if is_job and out is not None:
        from gpt2lab.cli.jobs import order_maker, run_job

        return run_job(prompts, out, load, order_maker(model_arguments, arguments, nsamples, as_json, job), job)
    arguments["seed"] = make_options(**arguments).seed  # raises before a model is opened or downloaded
    model = load()
    if any(saved):
        use_saved(model, prompts, *saved, special=arguments["special"])
    if not nsamples and arguments["batch_size"] is None and sys.stdout.isatty() and out is None:
        arguments["batch_size"] = 1  # a user is watching: show text as it comes rather than make much at once
    pieces = model.pieces(prompts, n=nsamples or None, **arguments)
    one_at_a_time = arguments["batch_size"] == 1 or (nsamples == 1 and len(prompts) == 1)
    streamed = one_at_a_time and model.tokenizer is not None and not as_json and out is None
    with (
        _appended(out) if out else nullcontext(_Samples(sys.stdout)) as samples,
        Progress(nsamples * len(prompts), live=not streamed) as progress,
        StoppedBetween() if out else nullcontext() as stopped,  # a blocked write to a pipe must stay interruptible
    ):
        print(f"gpt2lab: seed {arguments['seed']}", file=sys.stderr)
        hint_at_space(prompts)
        watched = progress.watch(stopped.items(pieces) if stopped else pieces)
        if streamed:
            print_as_made(watched, lambda prompt: plain_prompt(prompt, model.tokenizer))
            return
        samples.write_all(watched, json_line if as_json else partial(plain, tokenizer=model.tokenizer))


_MOST = 1 << 62  # bytes that a model may keep of saved prompts; it never takes more than a quarter of the memory

_MODEL_ARGUMENTS = {
    "name_or_path": "model_name",
    **{name: name for name in ("draft", "precision", "kv_precision", "activation", "threads", "device")},
}
"""Arguments of :func:`gpt2lab.load`, and the options that set them."""


def _prompts(
    prompt: str | None, prompt_file: str | None, prompts_file: str | None, reading: dict[str, Any]
) -> list[Prompt]:
    """Return the prompts from the command line's only source; without one, a single empty prompt.

    The readers are imported only for a file.
    """
    if sum(source is not None for source in (prompt, prompt_file, prompts_file)) > 1:
        raise UsageError("give only one of PROMPT, --prompt_file and --prompts")
    if prompts_file is not None:
        from gpt2lab.cli.prompt_files import many_prompts

        return many_prompts(prompts_file, *reading_of(reading))
    given = [name for name, default in READING.items() if reading[name] != default]
    file = "-" if prompt == "-" else prompt_file
    if unused := [name for name in given if file is None or name not in ("encoding", "errors")]:
        raise UsageError(f"--{unused[0]} needs --prompts")
    if file is not None:
        return [whole_prompt(file, reading_of(reading)[0])]
    return [prompt_argument(prompt or "")]


class _Samples:
    """The destination of finished samples, each written in one call."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.n_written = 0

    def write_all(self, pieces: Iterable[Piece], text_of: Callable[[Completion], str]) -> None:
        """Write samples in order. If interrupted, also write finished ones that still wait for an earlier one."""
        early: dict[int, Completion] = {}
        try:
            for completion in in_order(pieces, early=early):
                self._write(text_of(completion))
        except (KeyboardInterrupt, SystemExit):
            for index in sorted(early):
                self._write(text_of(early[index]))
            raise

    def tell(self, out: str) -> None:
        """Report on stderr how many samples were written."""
        what = "1 sample" if self.n_written == 1 else f"{self.n_written:,} samples"
        print(f"gpt2lab: {what} appended to {out}", file=sys.stderr)

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        self.n_written += 1


@contextmanager
def _appended(out: str) -> Iterator[_Samples]:
    """Open ``out`` for appending, and report at the end, even after Ctrl-C, how many samples were added."""
    try:
        with Path(out).open("a", encoding="utf-8", newline="\n") as file:
            samples = _Samples(file)
            try:
                yield samples
            except (KeyboardInterrupt, SystemExit):
                samples.tell(out)
                raise
            samples.tell(out)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None
