"""Why a run ended, in a sentence and as ``ended.json`` in its folder.

The file holds ``outcome`` (``finished``, ``no better``, ``interrupted``, ``diverged`` or ``failed``), ``step``, the
number of updates made, and ``reason``. It is there from the end of a run until the run goes on; a process that was
killed leaves none. This module knows nothing of updates or consoles.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gpt2lab.errors import first_line
from gpt2lab.system.atomic import write_file
from gpt2lab.system.paths import printable
from gpt2lab.training.loop import Trainer

ENDED = "ended.json"
DIVERGED = "diverged"


@contextmanager
def recorded_end(trainer: Trainer) -> Iterator[None]:
    """Remove the record of an earlier end while ``trainer`` runs in this context; afterwards write that of this end.

    Only the main process writes. A file that cannot be written is left out: its absence ends no run.
    """
    path = trainer.run / ENDED
    if trainer.world.is_main:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if trainer.world.is_main:
            outcome, reason = (trainer.outcome, reason_of(trainer)) if error is None else _broken(trainer, error)
            record = {"outcome": outcome, "step": trainer.step, "reason": printable(reason)}
            with suppress(OSError):
                write_file(path, (json.dumps(record) + "\n").encode(), sync=False)


def reason_of(trainer: Trainer) -> str:
    """Return why a trainer that raised no error has ended."""
    settings, step = trainer.settings, trainer.step
    if trainer.outcome == "no better":
        return f"the last {trainer.since_best} validations brought no improvement"
    if trainer.outcome == "interrupted":
        return _interrupted(trainer)
    if settings.stop_after and step >= settings.stop_after and step != settings.steps:
        return f"--stop_after {settings.stop_after} is reached"
    if settings.minutes and step != settings.steps:
        return f"--minutes {settings.minutes:g} are over"
    return f"all {step} updates are made"


def _interrupted(trainer: Trainer) -> str:
    if trainer.interrupted is None:
        return "the program that trains stopped it" if trainer.stopping else "another process of the run was stopped"
    return "Ctrl-C" if trainer.interrupted == signal.SIGINT else f"the signal {trainer.interrupted.name}"


def _broken(trainer: Trainer, error: BaseException) -> tuple[str, str]:
    """Return the outcome and the reason of a run that an exception ended, without the path of its folder."""
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        how = "Ctrl-C twice" if isinstance(error, KeyboardInterrupt) else "the program that trains left it unfinished"
        return "interrupted", f"{how}: updates after the last saved state are lost"
    text = (first_line(error) if isinstance(error, Exception) else "") or type(error).__name__
    outcome = DIVERGED if trainer.outcome == DIVERGED else "failed"
    return outcome, text.replace(f"{trainer.run}{os.sep}", "")
