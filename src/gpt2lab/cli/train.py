"""``gpt2lab train``: fine-tune a model on your own text, or train one from scratch.

Turns flags and a settings file into a session of :mod:`gpt2lab.training.finetuning`, as :func:`gpt2lab.finetune` does
with its arguments; torch is imported only then.
"""

from __future__ import annotations

import difflib
import reprlib
import sys
import typing
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from gpt2lab.cli.data_options import reading_options
from gpt2lab.cli.options import ACTIVATION, PATH, TEXT, GroupedCommand, Integer, option, special_option
from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training.finetuning import open_session
from gpt2lab.training.job import Job
from gpt2lab.training.reporting import Lines, Live
from gpt2lab.training.settings import Settings

SHAPE = {"n_ctx": 512, "n_embd": 256, "n_head": 4, "n_layer": 8}
"""The default shape of a model with random weights."""
GROWING = ("n_ctx", "n_layer")
"""The dimensions in which an existing model can grow."""
SHAPE_HELP = {
    "n_ctx": "Longest context, in tokens. An existing model's can only grow.",
    "n_embd": "With --from_scratch: width.",
    "n_head": "With --from_scratch: attention heads in a layer.",
    "n_layer": "Layers. Those added to an existing model change nothing until they are trained.",
}


class Spelled(click.Choice[str]):
    """A choice that help and errors spell as it is declared, with dashes; users may type underscores."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return the declared spelling of ``choice``."""
        dashed = str(choice).replace("_", "-")
        return dashed if dashed in self.choices else str(choice)


def settings_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add one option for each field of :class:`Settings`, with its default and its choices."""
    types = typing.get_type_hints(Settings)
    for field in reversed(fields(Settings)):
        kind, more = types[field.name], {"default": field.default, "help": field.metadata["help"]}
        if kind is bool:
            name = f"--{field.name}/--no_{field.name}"
        else:
            name = f"--{field.name}"
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            more["type"] = Spelled(choices) if choices else TEXT if kind is str else (*typing.get_args(kind), kind)[0]
        function = option(field.metadata["group"], name, **more)(function)
    return function


def shape_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the shape of a new or a grown model."""
    for name, text in reversed(SHAPE_HELP.items()):
        default = f"{SHAPE[name]}, or the existing model's" if name in GROWING else SHAPE[name]
        function = option("Model", f"--{name}", type=int, help=f"{text}  [default: {default}]")(function)
    return function


def read_config(context: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    """Use the settings in a file as defaults; flags on the command line still win."""
    if path is None:
        return None
    known = {parameter.name: parameter for parameter in context.command.params if parameter.name != "config"}
    values = {str(name).replace("-", "_"): value for name, value in _parse(Path(path)).items()}
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(name, [str(name) for name in known], 1)
            hint = f"did you mean {close[0]}?" if close else "gpt2lab train --help lists them"
            raise UsageError(f"{path}: unknown setting {name!r}; {hint}")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in items):  # tables, dates, or nothing
            raise UsageError(
                f"{path}: {name} must be a number, a string or a list of strings, not {reprlib.repr(value)}"
            )
        if any(isinstance(item, int) and abs(item) >= 2**63 for item in items):
            raise UsageError(f"{path}: {name} is too large a number")
        if known[name].multiple:
            values[name] = value if isinstance(value, list) else [value]
        elif isinstance(value, list):
            values[name] = ",".join(map(str, value))
        elif wanted := _other_type(known[name], value):
            raise UsageError(f"{path}: {name} must be {wanted}, not {value!r}")
    context.default_map = values
    return path


def _other_type(parameter: click.Parameter, value: Any) -> str | None:
    """Return the expected type if click would silently convert ``value`` into another type; None if it is right."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, bool):
        return "a number or a string"
    if isinstance(value, float) and not value.is_integer() and isinstance(parameter.type, type(click.INT)):
        return "a whole number"
    return None


def _parse(path: Path) -> dict[str, Any]:
    """Read the settings in a TOML or YAML file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        if path.suffix.lower() == ".toml":
            values = _toml().loads(text)
        elif path.suffix.lower() in (".yaml", ".yml"):
            import yaml

            values = yaml.safe_load(text)
        else:
            raise UsageError(f"{path} must end in .toml, .yaml or .yml")
    except UsageError:
        raise
    except Exception as error:  # each parser has its own classes
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must have lines of the form name = value (TOML) or name: value (YAML)")
    return values


def _toml() -> Any:
    for module in ("tomllib", "tomli"):  # the first since Python 3.11
        if find_spec(module):
            return import_module(module)
    raise UsageError("TOML needs Python 3.11 or newer, or pip install tomli; or use a YAML file")


@click.command(
    cls=GroupedCommand,
    short_help="Fine-tune a model on your own text, or train one from scratch.",
    epilog="""\b
    Examples:
      gpt2lab train --dataset shakespeare.txt
      gpt2lab generate "ROMEO:" --model checkpoint/run1
      gpt2lab train --dataset mail/ --model_name 124M --lora 8 --run_name mail
      gpt2lab train --dataset stories/ --from_scratch --n_layer 4 --steps 2000 --run_name tiny

    Needs an extra: pip install "gpt2lab[train]".

    Options may be spelled with dashes too (--batch-size). docs/fine-tuning.md explains them.
    """,
)
@option(
    "Data",
    "--dataset",
    multiple=True,
    required=True,
    type=PATH,
    metavar="PATH",
    help="Text (.txt, .jsonl, .csv, …), a folder, a pattern, or what gpt2lab encode made; may be repeated.",
)
@option("Data", "--val_dataset", type=PATH, metavar="PATH", help="Validate with this instead of a part of the dataset.")
@option(
    "Data",
    "--held_out",
    type=float,
    default=0.05,
    help="Share of the tokens held out for validation, in whole documents where possible.",
)
@reading_options
@special_option("Data", "text and in --sample_prompt")
@option(
    "Data",
    "--combine",
    type=Integer(min=1),
    default=50_000,
    metavar="CHARS",
    help="With --sampling uniform: join documents into chunks of at least N characters, which no window crosses.",
)
@option(
    "Model", "--model_name", "--model", default="tales", metavar="NAME", help="Model to start from: a path or a name."
)
@option("Model", "--activation", **ACTIVATION)
@option("Model", "--from_scratch", is_flag=True, help="Start with random weights instead.")
@shape_options
@option("Run", "--run_name", type=PATH, default="run1", metavar="NAME", help="Save into CHECKPOINT_DIR/NAME.")
@option(
    "Run", "--checkpoint_dir", type=PATH, default="checkpoint", metavar="CHECKPOINT_DIR", help="Folder of the runs."
)
@option(
    "Run", "--sample_dir", type=PATH, default="samples", metavar="SAMPLE_DIR", help="Samples go into SAMPLE_DIR/NAME."
)
@option(
    "Run",
    "--restore_from",
    default="latest",
    type=PATH,
    metavar="latest|fresh|PATH",
    help="latest: resume from the run's last state if it has one; fresh: start again; PATH: start from a state, "
    "a run or any checkpoint.",
)
@option(
    "Run",
    "--config",
    type=PATH,
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="Settings by name in a TOML or YAML file; flags win.",
)
@settings_options
@option(
    "Machine",
    "--threads",
    type=Integer(min=1),
    help="Threads of this process.  [default: its share of the cores]",
)
@option(
    "Machine",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="Where to compute; auto is a GPU (cuda or mps) if there is one, otherwise cpu.",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    dataset: tuple[str, ...],
    from_scratch: bool,
    threads: int | None,
    **arguments: Any,
) -> None:
    """Fine-tune a model on text, or with --from_scratch train a new one.

    CHECKPOINT_DIR/NAME holds the model with the lowest loss on held-out text, which every command can load. It also
    holds the most recent states, to resume from. Ctrl-C finishes the update and saves; run the same command again to
    resume.
    """
    shape = {name: arguments.pop(name) for name in SHAPE}
    settings = Settings(**{field.name: arguments.pop(field.name) for field in fields(Settings)})
    given = [name for name, value in shape.items() if value is not None]
    if not from_scratch:
        if fixed := [name for name in given if name not in GROWING]:
            raise UsageError(f"--{fixed[0]} needs --from_scratch: an existing model already has its shape")
        arguments |= {name: shape[name] for name in GROWING}
    if from_scratch and arguments["activation"] is not None:
        raise UsageError("--activation is for an existing model; leave it out with --from_scratch")
    config = ModelConfig(**{**SHAPE, **{name: shape[name] for name in given}}) if from_scratch else None
    job = Job(dataset=dataset, config=config, **arguments)
    session = open_session(job, settings, Live() if sys.stdout.isatty() else Lines(), threads)
    context.exit(session.finish())
