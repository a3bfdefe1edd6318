"""``gpt2lab serve``: serve models over HTTP, compatible with OpenAI's completions API."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import ACTIVATION, DEVICE, KV_PRECISION, PATH, PRECISION, GroupedCommand, Integer, option
from gpt2lab.errors import Gpt2LabError, UsageError
from gpt2lab.serving.settings import KEYS_VARIABLE, Settings, keys_in_environment

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

    Needs an extra: pip install "gpt2lab[serve]".

    The server documents its API at /docs. Press Ctrl-C once to let running requests finish,
    twice to stop at once.
    """,
)
@option(
    "Models",
    "--model_name",
    "--model",
    "model_names",
    multiple=True,
    metavar="NAME",
    help="A name or path as for generate; may be repeated. Requests name the model by this name, or by the last "
    "part of the path.  "
    "[default: the models of the watched runs, and tales]",
)
@option(
    "Models",
    "--watch",
    "watched",
    multiple=True,
    type=PATH,
    metavar="RUN",
    help="Show the training run in this folder, such as checkpoint/run1, at /watch. It need not exist yet. "
    "May be repeated.",
)
@option(
    "Models", "--precision", type=PRECISION, help="How weights are stored in memory.  [default: int8; float32 on a GPU]"
)
@option("Models", "--kv_precision", **KV_PRECISION)
@option("Models", "--activation", **ACTIVATION)
@option("Models", "--threads", type=int, help="Worker threads of each model.  [default: the physical cores]")
@option("Models", "--device", **DEVICE)
@option(
    "Address", "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 means all addresses of this machine."
)
@option("Address", "--port", type=Integer(0, 65535), default=8000, help="Port; 0 takes any free one.")
@option(
    "Address",
    "--allowed_host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Also answer requests sent to this host name, such as that of a proxy; * allows any. May be repeated.  "
    "[default: any, but on a loopback --host only localhost, 127.0.0.1, ::1 and --host itself]",
)
@option(
    "Address",
    "--cors",
    multiple=True,
    metavar="ORIGIN",
    help="Allow requests from pages of this origin, e.g. http://localhost:3000; * allows any. May be repeated.  "
    "[default: none]",
)
@option(
    "Address",
    "--api_key_file",
    type=PATH,
    metavar="FILE",
    help="Require one of the keys in this file, one per line; requests=N and tokens_per_minute=N after a key limit it. "
    f"SIGHUP makes the server read the file again. Or set {KEYS_VARIABLE}, with commas between keys.",
)
@option(
    "Limits",
    "--max_batch",
    type=int,
    default=_DEFAULTS.max_batch,
    help="Maximum number of samples of one model that run at the same time.",
)
@option(
    "Limits",
    "--max_waiting",
    type=int,
    default=_DEFAULTS.max_waiting,
    help="Maximum number of samples that may wait; further requests get status 429.",
)
@option(
    "Limits", "--max_samples", type=int, default=_DEFAULTS.max_samples, help="Maximum number of samples in one request."
)
@option(
    "Limits",
    "--prompt_cache",
    type=int,
    default=_DEFAULTS.prompt_cache,
    metavar="MB",
    help="Keep up to MB megabytes of keys and values of earlier texts for each model: a prompt that begins like one of "
    "them is answered sooner, with the same text. 0 keeps none.",
)
@option(
    "Limits", "--max_tokens", type=int, help="Maximum number of tokens in one sample.  [default: the model's context]"
)
@option(
    "Limits",
    "--max_prompt_bytes",
    type=int,
    default=_DEFAULTS.max_prompt_bytes,
    help="Maximum size of one prompt, in bytes.",
)
@option(
    "Limits",
    "--max_body_bytes",
    type=int,
    default=_DEFAULTS.max_body_bytes,
    help="Maximum size of one request, in bytes.",
)
@option(
    "Limits",
    "--max_connections",
    type=int,
    default=_DEFAULTS.max_connections,
    help="Maximum number of open connections; beyond it, those that have waited longest for their clients are closed.",
)
@option(
    "Limits",
    "--stall_seconds",
    type=float,
    default=_DEFAULTS.stall_seconds,
    help="Disconnect a client that reads nothing of its answer for N seconds.",
)
@option(
    "Limits",
    "--drain_seconds",
    type=float,
    default=_DEFAULTS.drain_seconds,
    help="Let running requests continue for N seconds after SIGTERM or Ctrl-C; 0 ends them at once.",
)
@option("Output", "--no_ui", "ui", is_flag=True, flag_value=False, default=True, help="Serve no pages, only the API.")
@option("Output", "--quiet", is_flag=True, help="Do not log requests.")
def command(
    model_names: tuple[str, ...],
    watched: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: str | None,
    quiet: bool,
    precision: str | None,
    kv_precision: str | None,
    activation: str | None,
    threads: int | None,
    device: str,
    **limits: Any,
) -> None:
    """Serve a playground at /, and an API like OpenAI's at /v1/completions and related routes.

    Without keys, anyone who can reach the address may send requests; by default only this machine can. Each request is
    logged in one line on standard error, with times and counts but never text.
    """
    if watched and not limits["ui"]:
        raise UsageError("--watch shows runs on a page, which --no_ui leaves out: omit one of the two")
    settings = Settings(host=host, api_keys=keys_in_environment(), api_key_file=api_key_file, **limits)
    try:
        from gpt2lab.serving import server
    except ImportError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'gpt2lab[serve]'") from None
    import gpt2lab.model
    from gpt2lab.serving.models import name_of
    from gpt2lab.serving.watch.run import open_runs

    _log(quiet)
    load = partial(
        gpt2lab.model.load,
        precision=precision,
        kv_precision=kv_precision,
        activation=activation,
        threads=threads,
        device=device,
    )
    runs = open_runs(watched)
    with server.listen_on(host, port) as bound:
        if model_names:
            models = [(name_of(name), load(name)) for name in dict.fromkeys(model_names)]
        else:
            models = _models_of(runs, load)
        tell_served(runs, model_names, [name for name, _ in models])
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


def tell_served(runs: Sequence[Run], model_names: Sequence[str], served: Sequence[str]) -> None:
    """Tell each run the name under which its model is served, if it is."""
    from gpt2lab.serving.models import name_of

    paths = {Path(name).absolute(): name_of(name) for name in model_names}
    for run in runs:
        default = run.name if not model_names and run.name in served and run.has_model else None
        run.serve(paths.get(run.folder, default), served)


def _log(quiet: bool) -> None:
    """Log lines with their time on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("gpt2lab.serving")
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
