"""``gpt2lab serve``: serve models over HTTP, compatible with OpenAI's completions API."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import GroupedCommand, option
from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS
from gpt2lab.errors import Gpt2LabError, UsageError
from gpt2lab.serving.settings import KEYS_VARIABLE, Settings, read_api_keys

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.serving.watch.run import Run

_DEFAULTS = Settings()


@click.command(
    cls=GroupedCommand,
    short_help="Serve a playground for the browser, and OpenAI's API for programs.",
    epilog="""\b
    Examples:
      gpt2lab serve
      gpt2lab serve --model_name 124M --model_name checkpoint/run1 --port 8080
      gpt2lab serve --host 0.0.0.0 --api_key_file keys.txt
      gpt2lab serve --watch checkpoint/run1

    The documentation of the API is at /docs of the server. Ctrl-C lets running requests finish; twice, it does not.
    """,
)
@option(
    "Models",
    "--model_name",
    "--model",
    "model_names",
    multiple=True,
    metavar="NAME",
    help="A name or path as for generate; may be repeated. Requests call it by its name or the path's last part.  "
    "[default: tales, after the models of the runs that are watched]",
)
@option(
    "Models",
    "--watch",
    "watched",
    multiple=True,
    metavar="RUN",
    help="Show the training in this run folder, such as checkpoint/run1, at /watch. It need not be there yet. "
    "May be repeated.",
)
@option("Models", "--precision", type=click.Choice(PRECISIONS), help="How weights are held.  [default: q8_0]")
@option("Models", "--kv_precision", type=click.Choice(KV_PRECISIONS), help="How keys and values are held.")
@option("Models", "--threads", type=int, help="Worker threads of each model.  [default: the physical cores]")
@option("Models", "--device", default="cpu", metavar="NAME", help="cpu, or reference: NumPy, slow, to compare.")
@option("Address", "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every one of this machine.")
@option("Address", "--port", type=click.IntRange(0, 65535), default=8000, help="0 takes any that is free.")
@option(
    "Address",
    "--cors",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin ask, e.g. http://localhost:3000; * is any. May be repeated.  [default: none]",
)
@option(
    "Address",
    "--api_key_file",
    metavar="FILE",
    help=f"Ask for one of the keys in this file, one a line. Also from the variable {KEYS_VARIABLE}, with commas.",
)
@option("Limits", "--max_batch", type=int, default=_DEFAULTS.max_batch, help="Samples of a model that run together.")
@option("Limits", "--max_waiting", type=int, default=_DEFAULTS.max_waiting, help="Samples that may wait; then 429.")
@option("Limits", "--max_samples", type=int, default=_DEFAULTS.max_samples, help="Samples of one request.")
@option("Limits", "--max_tokens", type=int, help="Tokens of one sample.  [default: the model's context]")
@option("Limits", "--max_prompt_bytes", type=int, default=_DEFAULTS.max_prompt_bytes, help="Bytes of one prompt.")
@option("Limits", "--max_body_bytes", type=int, default=_DEFAULTS.max_body_bytes, help="Bytes of one request.")
@option(
    "Limits",
    "--stall_seconds",
    type=float,
    default=_DEFAULTS.stall_seconds,
    help="Cut a client off that reads nothing of its stream for so long.",
)
@option(
    "Limits",
    "--drain_seconds",
    type=float,
    default=_DEFAULTS.drain_seconds,
    help="Time to finish after SIGTERM or Ctrl-C.",
)
@option("Output", "--quiet", is_flag=True, help="No line for each request.")
def command(
    model_names: tuple[str, ...],
    watched: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: str | None,
    quiet: bool,
    precision: str | None,
    kv_precision: str | None,
    threads: int | None,
    device: str,
    **limits: Any,
) -> None:
    """Serve a page to play with models at /, and models to programs: POST /v1/completions and what goes with it.

    Without keys anybody who reaches the address may ask, which by default is this machine alone. One line for each
    request goes to standard error; it tells times and counts, never text.
    """
    settings = Settings(api_keys=read_api_keys(api_key_file), **limits)
    try:
        from gpt2lab.serving import server
    except ImportError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'gpt2lab[serve]'") from None
    import gpt2lab.model
    from gpt2lab.serving.models import name_of
    from gpt2lab.serving.watch.run import open_runs

    _log(quiet)
    load = partial(gpt2lab.model.load, precision=precision, kv_precision=kv_precision, threads=threads, device=device)
    runs = open_runs(watched)
    with server.listen_on(host, port) as bound:
        if model_names:
            models = [(name_of(name), load(name)) for name in dict.fromkeys(model_names)]
        else:
            models = _models_of(runs, load)
        server.serve(models, settings, bound, runs)


def _models_of(runs: Sequence[Run], load: Callable[[str], LanguageModel]) -> list[tuple[str, LanguageModel]]:
    """Load the models served by default: those that the runs have so far, and ``tales`` unless a run has that name."""
    models: dict[str, LanguageModel] = {}
    for run in runs:
        try:
            if run.has_model:
                models[run.name] = load(str(run.folder))
        except Gpt2LabError as error:
            print(f"gpt2lab: the model of {run.name} is not served: {error}", file=sys.stderr)
    if "tales" not in models:
        models["tales"] = load("tales")
    return list(models.items())


def _log(quiet: bool) -> None:
    """Log lines with their time on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("gpt2lab.serving")
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
