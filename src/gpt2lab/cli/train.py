"""``gpt2lab train``: train a GPT-2 of your own on text files, from nothing.

Turns flags into settings and a dataset into windows, then leaves the rest to :mod:`gpt2lab.training`; torch is
imported only when the command runs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import GroupedCommand, option
from gpt2lab.errors import UsageError
from gpt2lab.training.settings import Settings

if TYPE_CHECKING:
    from gpt2lab.training.data import Windows

SETTINGS_HELP = {
    "steps": "Train up to this many updates.",
    "batch_size": "Windows of n_ctx tokens in a batch.",
    "accumulate_gradients": "Batches in an update.",
    "learning_rate": "Its peak.",
    "warmup_steps": "Updates until the learning rate is at its peak.",
    "schedule": "After the warm-up: cosine to zero, or constant and then a linear decay.",
    "decay_steps": "Length of the decay of stable-decay.",
    "optimizer": "muon: for the matrices of the layers, with adamw for the rest.",
    "weight_decay": "Of matrices.",
    "clip": "Largest norm of a gradient.",
    "dropout": "Part of embeddings and of what layers add that is dropped.",
    "precision": "Of the arithmetic. bfloat16 pays on a CPU with AMX.",
    "narrow_steps": "So many first updates choose among the dataset's own tokens only, which is cheaper.",
    "val_every": "Validate every so many updates, and after the last.",
    "save_every": "Save every so many updates, and after the last.",
    "patience": "Stop after so many validations without a better one; 0 never.",
    "seed": "Of weights, dropout, held-out part and order of training.",
}


def settings_options(function: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of :class:`Settings`, with its default and its choices."""
    types = typing.get_type_hints(Settings)
    for field in reversed(fields(Settings)):
        choices = typing.get_args(types[field.name])
        kind = click.Choice(choices) if choices else types[field.name]
        help = SETTINGS_HELP[field.name]
        function = option("Training", f"--{field.name}", type=kind, default=field.default, help=help)(function)
    return function


@click.command(
    cls=GroupedCommand,
    short_help="Train a model from scratch.",
    epilog="""\b
    Example:
      gpt2lab train --dataset stories/ --from_scratch --n_layer 4 --run_name mine --steps 2000
      gpt2lab generate "Once upon a time" --model checkpoint/mine
    """,
)
@option(
    "Data",
    "--dataset",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Text file, folder of .txt, or pattern; may be repeated. A file is a document.",
)
@option(
    "Data",
    "--held_out",
    type=float,
    default=0.025,
    help="Part of the tokens kept aside for validation, in whole documents where it can be.",
)
@option(
    "Model",
    "--from_scratch",
    is_flag=True,
    help="Begin with random weights: required for now, there is no fine-tuning yet.",
)
@option("Model", "--n_ctx", type=int, default=512, help="Longest context, and length of training windows, in tokens.")
@option("Model", "--n_embd", type=int, default=256, help="Width.")
@option("Model", "--n_head", type=int, default=4, help="Attention heads in a layer.")
@option("Model", "--n_layer", type=int, default=8, help="Layers.")
@option("Run", "--run_name", default="run1", metavar="NAME", help="Save into CHECKPOINT_DIR/NAME.")
@option("Run", "--checkpoint_dir", default="checkpoint", metavar="CHECKPOINT_DIR", help="Where runs are.")
@option(
    "Run",
    "--restore_from",
    default="latest",
    metavar="latest|fresh|PATH",
    help="Go on from the run's last state if it has one, begin anew, or from a state folder.",
)
@settings_options
def command(
    dataset: tuple[str, ...],
    held_out: float,
    from_scratch: bool,
    n_ctx: int,
    n_embd: int,
    n_head: int,
    n_layer: int,
    run_name: str,
    checkpoint_dir: str,
    restore_from: str,
    **settings: Any,
) -> None:
    """Train a GPT-2 on text files, from random weights.

    CHECKPOINT_DIR/NAME holds the model that did best on the held-out part, for every command to load, and the last two
    states to go on from. Ctrl-C finishes the update and saves.
    """
    if not from_scratch:
        raise UsageError("training starts from random weights only so far: say --from_scratch")
    try:
        from gpt2lab.training.loop import Trainer
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}: pip install 'gpt2lab[train]'") from error
    from gpt2lab.config import ModelConfig

    config = ModelConfig(n_ctx=n_ctx, n_embd=n_embd, n_head=n_head, n_layer=n_layer)
    checked = Settings(**settings)
    train, validation = load_windows(dataset, n_ctx, held_out, checked.seed)
    run = Path(checkpoint_dir, run_name)
    trainer = Trainer(config, checked, train, validation, run, say=click.echo)
    state = starting_state(run, restore_from)
    if state is not None:
        trainer.restore(state)
    if trainer.step >= checked.steps:
        raise UsageError(f"{state} has {trainer.step} updates already: ask for more than {checked.steps} --steps")
    click.echo("Training...")
    trainer.train()
    if (run / "model.safetensors").exists():
        click.echo(f"gpt2lab generate --model {run}  writes with it")


def load_windows(dataset: tuple[str, ...], n_ctx: int, held_out: float, seed: int) -> tuple[Windows, Windows | None]:
    """Read, encode and split the dataset; says how large the parts are."""
    from gpt2lab.tokenizer import Tokenizer
    from gpt2lab.training.data import Windows, find_files, hold_out, join, read_documents

    if not 0 <= held_out < 1:
        raise UsageError(f"held_out is a part of the tokens, from 0 to below 1, got {held_out}")
    click.echo("Loading dataset...")
    documents = read_documents(find_files(dataset), Tokenizer.gpt2().encode)
    kept, aside = hold_out(documents, held_out, seed)
    train = Windows(join(kept), n_ctx, seed)
    click.echo(f"dataset has {len(train.tokens)} tokens, documents: {len(kept)}")
    if not aside:
        return train, None
    validation = Windows(join(aside), n_ctx, seed)
    click.echo(f"held out: {len(validation.tokens)} tokens, documents: {len(aside)}")
    return train, validation


def starting_state(run: Path, restore_from: str) -> Path | None:
    """The state folder that ``--restore_from`` means; None to begin anew."""
    from gpt2lab.training.checkpoints import states

    if restore_from == "fresh":
        return None
    if restore_from == "latest":
        return next(reversed(states(run)), None)
    return Path(restore_from)
