"""Lines about a run's result: the update that its folder holds, signs of over-fitting, and what to try next.

Every function returns text for a :class:`Standing`. This module knows nothing of how a model is trained or where the
lines are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt2lab.training.settings import EPOCHS, FEWEST_STEPS, UNBOUNDED, Done, Settings

WORSE = 3
"""The number of validations in a row without improvement after which a run is said to over-fit."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands after ``step`` updates. Losses are in nats a token; None if unknown or not validated.

    Attributes:
        run: its folder.
        step: updates made.
        best_step: the update with the lowest held-out loss, 0 for the model before training; None without validation.
        best: that loss.
        latest: the held-out loss of the last validation.
        average: the running mean of training losses.
        since_best: validations since the best one.
        unlearned: updates without a learned target.
        patience: the setting.
        lora: the setting.
    """

    run: Path
    step: int
    best_step: int | None
    best: float | None
    latest: float | None
    average: float | None
    since_best: int
    unlearned: int
    patience: int
    lora: int

    @property
    def over_fits(self) -> bool:
        """Whether held-out losses stay above the best one while the training loss lies below it."""
        if self.average is None or self.best is None:
            return False
        return self.since_best >= WORSE and self.average < self.best


def length(settings: Settings, asked: Settings, windows: int, done: Done) -> str:
    """Return a line about the length of a run; ``asked`` are the settings before the length was chosen.

    ``windows`` is the number in an epoch, and ``done`` the part of the run behind it.
    """
    steps = settings.steps or 0
    if steps == UNBOUNDED:
        return f"length: {settings.minutes:g} minutes of training, {windows} windows in a pass over the text"
    in_all = done.position + (steps - done.step) * settings.windows_per_update
    line = (
        f"length: {steps} updates of {settings.windows_per_update} windows, {in_all / windows:.1f} passes over the text"
    )
    chosen = asked.steps or asked.epochs or steps - done.begun_at != FEWEST_STEPS
    if chosen or in_all <= EPOCHS * windows + settings.windows_per_update:
        return line
    return f"{line}; a run has at least {FEWEST_STEPS} updates by default, and --epochs {EPOCHS} makes {EPOCHS} passes"


def no_better(standing: Standing) -> str:
    """Return what :data:`WORSE` validations in a row without improvement mean."""
    of = f"{standing.best:.4f}, that of update {standing.best_step}"
    worse = f"the last {standing.since_best} held-out losses are not below {of}"
    stop = "" if standing.patience else f"; --patience {WORSE} would stop here"
    if standing.over_fits:
        return f"over-fitting: {worse}, while the training loss has fallen to {standing.average:.4f}{stop}"
    return f"{worse}{stop}"


def ending(standing: Standing) -> list[str]:
    """Return the lines about the result of a run that has ended."""
    return [line for line in (_held(standing), _next(standing), _unlearned(standing)) if line]


def _held(standing: Standing) -> str:
    """Return which update's model the folder holds."""
    run, step, best_step = standing.run, standing.step, standing.best_step
    if best_step is None:
        return f"{run} holds the model of update {step}, the last; without held-out text, over-fitting does not show"
    best = f"(held-out loss {standing.best:.4f})"
    if best_step == step:
        return f"{run} holds the model of update {step}, the last and the best {best}"
    which = f"the model of update {best_step}, the best" if best_step else "the model from before training, the best"
    latest = "" if standing.latest is None else f" (held-out loss {standing.latest:.4f})"
    return f"{run} holds {which} {best}, not that of update {step}, the last{latest}"


def _next(standing: Standing) -> str:
    """Return what to try for a better model."""
    lora = "" if standing.lora else ", --lora 8"
    if standing.best_step is None:
        return ""
    if standing.over_fits:
        stop = "" if standing.patience else f"; --patience {WORSE} ends such a run earlier"
        return f"the run over-fits: try more text{lora}, --dropout 0.1 or a lower --learning_rate{stop}"
    if standing.best_step == 0:
        return "no validation was better than before training: try a lower --learning_rate, or more text"
    if standing.best_step == standing.step:
        return "the held-out loss was still falling: more --epochs or --steps may give a better model"
    return ""


def _unlearned(standing: Standing) -> str:
    if not standing.unlearned:
        return ""
    return (
        f"{standing.unlearned} of {standing.step} updates had no learned target, only prompts, and changed nothing: "
        f"shorter prompts or a larger --batch_size would avoid that"
    )
