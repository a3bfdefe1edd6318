"""The text of a run: read, split into a training part and a held-out part, and cut into windows.

Reports the size of each part. This module knows nothing of the model but its tokenizer and its context.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gpt2lab.data.files import Reading
from gpt2lab.data.finding import Choice
from gpt2lab.data.open import given_documents, open_documents
from gpt2lab.data.split import hold_out
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.training.job import Given
from gpt2lab.training.setup import Setup

LEAST_HELD_OUT = 128  # tokens; the loss of fewer says nothing


class Text(NamedTuple):
    """Windows to train on, and windows to validate with, if any text is held out."""

    windows: Windows
    held_out: Windows | None


def load_text(setup: Setup) -> Text:
    """Read and split the dataset, and report how large the parts are."""
    settings, say = setup.settings, setup.say
    say("Loading dataset...")
    ring, aside = _split(setup)
    block_size = settings.block_size or setup.source.config.n_ctx
    train = Windows(ring, block_size, settings.seed, settings.sampling)
    say(f"dataset has {len(ring)} tokens, documents: {ring.n_documents}")
    if train.length < block_size:
        say(f"the dataset is shorter than a window of {block_size}: windows have {train.length} tokens")
    if aside is None:
        return Text(train, None)
    say(f"held out: {len(aside)} tokens, documents: {aside.n_documents}")
    validation = Windows(aside, block_size, settings.seed)
    if validation.length < block_size:
        say(f"the held-out text is shorter than a window of {block_size}: its windows have {validation.length} tokens")
    if not any(batch.trained.any() for batch in validation.in_order(1, settings.validated_windows)):
        say("the held-out windows contain only prompts and no learned target: there will be no validation")
        return Text(train, None)
    return Text(train, validation)


def _split(setup: Setup) -> tuple[Ring, Ring | None]:
    """Return the text to train on and the held-out text; None if there is nothing to validate with."""
    job, separator = setup.job, setup.source.tokenizer.end_of_text
    documents = _read(setup, job.dataset)

    def split(fraction: float) -> tuple[Ring, Ring | None]:
        return hold_out(documents, fraction, setup.settings.seed, separator=separator, combine=job.combine)

    if not setup.settings.val_every:
        if job.val_dataset is not None:
            setup.say(f"--val_dataset {job.val_dataset} is not read: with --val_every 0 there is no validation")
        return split(0.0)[0], None
    if job.val_dataset is not None:
        ring, _ = split(0.0)
        chosen = job.val_dataset if isinstance(job.val_dataset, Given) else (job.val_dataset,)
        aside = Ring(_read(setup, chosen), separator=separator)
        if _is_within(job.val_dataset, job.dataset):
            setup.say(f"{job.val_dataset} is also trained on: its loss will measure memorization")
        return ring, aside
    ring, held_out = split(job.held_out)
    if job.held_out and (held_out is None or len(held_out) < LEAST_HELD_OUT):
        ring = split(0.0)[0]
        setup.say(f"{len(ring)} tokens are too few to hold any out: there will be no validation")
        return ring, None
    return ring, held_out


def _read(setup: Setup, paths: tuple[str, ...] | Given) -> Documents:
    job, tokenizer = setup.job, setup.source.tokenizer
    if job.special:
        tokenizer = tokenizer.reading_special()
    if isinstance(paths, Given):
        return given_documents(paths.records, tokenizer, reading=Reading(errors=job.errors), say=setup.say)
    return open_documents(
        paths,
        tokenizer,
        reading=Reading(job.field, job.column, job.encoding, job.errors),
        choice=Choice(job.include, job.exclude),
        say=setup.say,
    )


def _is_within(path: str | Given, others: tuple[str, ...] | Given) -> bool:
    """Return whether a file or folder is one of ``others``, or inside one of them; or whether texts are the same."""
    if isinstance(path, Given) or isinstance(others, Given):
        return path == others
    place = Path(path).resolve()
    return bool({place, *place.parents} & {Path(other).resolve() for other in others})
