"""The folders of a run: claimed by one process at a time, and never written over what somebody else put there.

An earlier run of the same name is renamed, whether gpt2lab or the original code wrote it. This module knows nothing of
what training does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.data.pieces import Say
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.atomic import replace
from gpt2lab.system.locks import Hold
from gpt2lab.system.marks import matches, own_patterns
from gpt2lab.training import checkpoints
from gpt2lab.training.card import CARD
from gpt2lab.training.checkpoints import State
from gpt2lab.training.job import Job
from gpt2lab.weights.huggingface_special import GENERATION, TOKENIZER_FILES
from gpt2lab.weights.openai import newest_prefix

RUN_FILES = (
    *("settings.json", "config.json", "model.safetensors", *TOKENIZER_FILES, GENERATION, CARD),
    *("state-*", checkpoints.COUNTER, "metrics*.jsonl", "ended.json"),
    *("losses.svg", "losses.png", "events.out.tfevents.*"),
)
"""The names that training gives to files and folders in a run folder."""
SAMPLE_FILES = ("samples-*",)
"""The names that training gives to files in the folder of a run's samples."""


def claim(folder: Path, hold: Hold) -> None:
    """Create ``folder`` and lock it. Raises :class:`UsageError` if another process holds it."""
    try:
        hold.take(folder, create=True)
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror or error}") from None


def original_run(run: Path) -> tuple[Path, int] | None:
    """Return the newest checkpoint that the original code or gpt-2-simple saved in ``run``, and its updates so far.

    The checkpoint is a prefix such as ``run/model-7``. Without a ``counter`` file, the number in its name counts.
    """
    if not (run / "checkpoint").is_file():
        return None
    prefix = newest_prefix(run)
    if not Path(f"{prefix}.index").is_file():
        return None
    try:
        return prefix, max(0, int((run / "counter").read_text(encoding="ascii")))
    except (OSError, ValueError):
        number = re.search(r"-([0-9]{1,15})$", prefix.name)
        return prefix, int(number[1]) if number else 0


def is_of(state: State | None, run: Path) -> bool:
    """Return whether ``state`` lies in the folder ``run``, so that training continues there."""
    return state is not None and state.path.resolve().parent == run.resolve()


def move_aside(job: Job, say: Say) -> None:
    """Rename the folder of an earlier run, which this run would overwrite, and the folder of earlier samples.

    Both get the same number. The caller must have claimed them. Raises :class:`UsageError` if the run folder holds
    files of another origin that this run would overwrite.
    """
    run, samples = job.run, job.samples
    earlier = [folder for folder, there in ((run, _holds_run(run)), (samples, any(_samples(samples)))) if there]
    if run not in earlier and (name := _foreign(run)):
        raise UsageError(f"{run} contains {name}, which no training run wrote: give another --run_name")
    number = 1
    while any(_numbered(folder, number).exists() for folder in (run, samples)):
        number += 1
    for folder in earlier:
        if not folder.exists():  # the samples lay in the run folder and moved with it
            continue
        aside, what = _numbered(folder, number), "run" if folder is run else "samples"
        try:
            replace(folder, aside)
        except OSError as error:
            raise CheckpointError(
                f"cannot move the {what} in {folder} to {aside}: {error.strerror or error}; give another --run_name"
            ) from None
        say(f"moved the earlier {what} in {folder} to {aside}")


def _holds_run(folder: Path) -> bool:
    """Return whether there is a run in ``folder``: with a mark and a model, with states, or one of the original."""
    marked = bool(own_patterns(folder)) and (folder / "model.safetensors").exists()
    return marked or bool(checkpoints.states(folder)) or original_run(folder) is not None


def _foreign(folder: Path) -> str | None:
    """Return the name of a file of another origin that training would overwrite; None if there is none."""
    if not folder.is_dir() or own_patterns(folder):
        return None
    written = [name for name in RUN_FILES if name != CARD]  # the card never replaces another file
    return next((path.name for path in sorted(folder.iterdir()) if matches(path.name, written)), None)


def _samples(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if matches(path.name, SAMPLE_FILES))


def _numbered(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}-{number}")
