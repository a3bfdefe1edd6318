"""The training loop: updates, validation, samples, saving, stopping.

Besides the text and the settings, an update depends only on the weights, the optimizer's state, the seed and the
counters. A saved state holds all of these, so a resumed run continues as if it had never stopped. The number of
processes changes only speed, apart from rounding and from dropout, which each process draws itself. This module knows
nothing of text, command lines or how progress is shown.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lab.data.windows import Batch, Windows
from gpt2lab.errors import CheckpointError, TrainingError
from gpt2lab.training.advice import WORSE, Standing, no_better
from gpt2lab.training.batches import Batches, fingerprint, seed_of
from gpt2lab.training.distributed import World
from gpt2lab.training.interrupts import Interrupts
from gpt2lab.training.lora import merged
from gpt2lab.training.module import GPT2
from gpt2lab.training.narrowing import used_ids, widen
from gpt2lab.training.optimizers import make_optimizers
from gpt2lab.training.pace import Pace
from gpt2lab.training.parallel import all_finite
from gpt2lab.training.reporting import Reporter, Update, Validation
from gpt2lab.training.saving import Saver
from gpt2lab.training.settings import Settings, learning_rate
from gpt2lab.training.validation import mean_loss
from gpt2lab.training.versions import Versions
from gpt2lab.weights.tokenizer_copy import TokenizerCopy

AVERAGE_DECAY = 0.99  # for the running mean of losses shown as avg=, as in the original
COUNTERS = ("step", "position", "best", "best_step", "since_best", "average", "seconds", "unlearned")

Sampler = Callable[[int, Mapping[str, Tensor]], None]
"""A function that writes samples of a model, given the step and the model's tensors."""


class Trainer:
    """A model in training: ``Trainer(...).train()``, or :meth:`updates`, one at a time.

    Args:
        model: the model with its weights (every process gets the main one's); parameters to train require gradients.
        settings: as returned by :func:`~gpt2lab.training.settings.resolved`.
        windows: the windows to train on.
        held_out: the windows to validate with; None = no validation.
        run: the folder to save into; its model is the best by held-out loss, or the latest without validation.
        world: the processes that share the work.
        reporter: receives the progress.
        sampler: is called every ``sample_every`` updates in the main process.
        vocabulary: the tokenizer that is saved with the model, if any.
        about: further values to store in every state.
    """

    def __init__(
        self,
        model: GPT2,
        settings: Settings,
        windows: Windows,
        held_out: Windows | None,
        run: Path,
        world: World | None = None,
        reporter: Reporter | None = None,
        *,
        sampler: Sampler | None = None,
        vocabulary: TokenizerCopy | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.settings, self.windows, self.held_out, self.run = model, settings, windows, held_out, run
        self.world = world or World()
        self.reporter = reporter or Reporter()
        self.sampler, self.about = sampler, dict(about or {})
        self.batches = Batches(windows, settings, self.world, model.config.n_vocab)
        self.wrapped = self.world.wrap(model, settings.parallel)
        self.optimizers = make_optimizers(model, settings)
        self.versions = Versions(model, settings)
        self.saver = Saver(run, model, settings, self.optimizers, self.versions, self.world, vocabulary)
        self.pace = Pace(settings.minutes, settings.steps or 0)
        self.used_ids = used_ids(windows, held_out).to(self.world.device) if settings.narrow_steps else None
        self.text = fingerprint(found, settings.validated_windows) if (found := self.validated) else None
        self.begun_at = int(self.about.get("begun_at", 0))  # updates of the original's run that this one continues
        self.generation = 0
        self.step = self.position = 0  # updates made, windows trained on
        self.best = math.inf
        self.best_step = self.since_best = 0  # the update; validations since then
        self.latest: float | None = None  # held-out loss of the last validation
        self.average = (0.0, 0.0)  # weighted sum of losses, sum of weights
        self.seconds = 0.0
        self.unlearned = 0  # updates without a learned target
        self.last_state: Path | None = None
        self.saved_at = time.monotonic()
        self.outcome: str | None = None  # why training ended
        self.stopping = False  # asks training to end, as a signal does
        self.interrupts = Interrupts(self._say_interrupted)

    @property
    def last_step(self) -> int:
        """The number of the update after which training ends."""
        return min(self.pace.last, self.settings.stop_after or self.pace.last)

    def train(self) -> str | None:
        """Train to the end, or until a signal; return :attr:`outcome`. See :meth:`updates`."""
        with self.interrupts:
            for _ in self.updates():
                pass
        return self.outcome

    def updates(self) -> Iterator[Update]:
        """Yield each update once it is made and, where that is due, validated; then save and write samples where due.

        Ends after the last update, or when patience runs out; also after a signal, if :attr:`interrupts` is entered, or
        after :attr:`stopping` was set: the update is then finished and the state saved. :attr:`outcome` becomes
        ``finished``, ``no better``, ``interrupted`` or ``diverged``. Raises :class:`TrainingError` if the loss is not
        finite, and :class:`CheckpointError` if saving fails; earlier states stay intact.
        """
        begin = time.perf_counter() - self.seconds
        self._plan()
        if self.validated is not None and math.isinf(self.best):
            self._validate_and_keep_best(self.validated)
        while self.step < self.last_step and self.outcome is None:
            before = time.perf_counter()
            loss = self.update()
            took = time.perf_counter() - before
            self.pace.took(took, before - begin - self.seconds)
            self.seconds = time.perf_counter() - begin
            self._plan()
            made = self._report(loss, took)
            yield replace(made, validation=self._validate_if_due())
            self.outcome = self._after_update()
        self.outcome = self.outcome or "finished"

    @property
    def standing(self) -> Standing:
        """Where the run stands."""
        average = self.average[0] / self.average[1] if self.average[1] else None
        best_step = None if self.validated is None else self.best_step
        best, s = None if math.isinf(self.best) else self.best, self.settings
        counted = (self.latest, average, self.since_best, self.unlearned, s.patience, s.lora)
        return Standing(self.run, self.step, best_step, best, *counted)

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal that asked training to end."""
        return self.interrupts.asked

    @property
    def validated(self) -> Windows | None:
        """The windows to validate with; None without validation."""
        return self.held_out if self.settings.val_every else None

    @property
    def patience_ended(self) -> bool:
        """Whether the last ``patience`` validations were no better; never while :attr:`narrow`."""
        return self.validated is not None and 0 < self.settings.patience <= self.since_best and not self.narrow

    @property
    def narrow(self) -> bool:
        """Whether tokens that the dataset lacks are still left out."""
        return self.step <= self.settings.narrow_steps > 0

    def _validate_if_due(self) -> Validation | None:
        """Validate where due; an interrupted run does so too, because a resumed run would never make up for it."""
        widened = self.step == self.settings.narrow_steps + 1 > 1
        if self.validated is None or not (widened or self._due(self.settings.val_every)):
            return None
        return self._validate_and_keep_best(self.validated)

    def _after_update(self) -> str | None:
        """Save and sample where due; return the reason if training ends here. An interrupted run writes no samples."""
        interrupted, long_since = self._agreed()
        if interrupted:
            failure = self.world.broadcast(self.reporter.failure)
            self.reporter.say(failure or "interrupted")
            state = self.save()
            if failure is not None:
                raise CheckpointError(f"{failure}; {state} holds the run so far: run the same command again to resume")
            return "interrupted"
        ended = self.patience_ended
        if ended or long_since or self._due(self.settings.save_every):
            self.save()  # before samples, which may fail
        if self.settings.sample_every and (ended or self._due(self.settings.sample_every)):
            self.sample()
        return "no better" if ended else None

    def _agreed(self) -> tuple[bool, bool]:
        """Return whether any process was asked to end, and whether a save is overdue, using a single exchange."""
        minutes = self.settings.save_minutes
        long_since = self.world.is_main and minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes
        ends = self.stopping or self.interrupted is not None or self.reporter.failure is not None
        return self.world.any_of_two(ends, long_since)

    def update(self) -> float | None:
        """Make one update with the clipped mean gradient of all trained targets; return their mean loss in nats.

        Without a trained target there is no gradient: only the counters move, and None is returned.
        Raises :class:`TrainingError`, and applies nothing, if the loss or the gradient is not finite.
        """
        step = self.step + 1
        if step == self.settings.narrow_steps + 1 > 1:
            assert self.used_ids is not None, "there were no narrow steps"
            self.forget_best()  # its loss was over fewer tokens
            self.versions.change(partial(widen, self.model, self.used_ids, self.world))
        batches = list(self.batches.of_update(self.position))
        total = self.world.sum(float(sum(batch.trained.sum() for batch in batches)))
        loss = self._descend(batches, total, step) if total else None
        self.versions.moved(step)
        self.step, self.position = step, self.position + self.settings.windows_per_update
        return loss

    def _descend(self, batches: list[Batch], total: float, step: int) -> float:
        """Move the weights along the gradient of update ``step``; return the mean loss of its ``total`` targets."""
        torch.manual_seed(seed_of(self.settings.seed, step, self.world.rank))
        self.wrapped.train()
        loss = 0.0
        with self.versions.rounded():
            for number, batch in enumerate(batches, start=1):
                with self.world.last_micro_batch(self.wrapped, last=number == len(batches)):
                    part = self._loss(batch, step) / total
                    part.backward()
                loss += part.item()
        loss = self.world.sum(loss)
        norm = self.world.clip(self.wrapped, self.settings.clip)
        if not math.isfinite(loss) or not math.isfinite(norm):
            self._zero_gradients()
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
            raise self._diverged(f"the {what} at update {step}, which was discarded")
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(step)
            optimizer.step()
        self._zero_gradients()
        return loss

    @torch.no_grad()
    def validate(self, held_out: Windows) -> float:
        """Return the mean loss, without dropout, of ``val_batch_count`` batches over ``held_out``, in nats a token."""
        self.wrapped.eval()
        batches = list(held_out.in_order(self.settings.val_batch_size, self.settings.validated_windows))
        return mean_loss(lambda batch: self._loss(batch, self.step).item(), batches, self.world, self.reporter)

    def tensors(self) -> dict[str, Tensor]:
        """Return the model's current canonical tensors, adapters merged, in the main process; nothing elsewhere."""
        with self.versions.averaged():
            return self.world.full_tensors(merged(self.model))

    def sample(self) -> None:
        """Write samples."""
        tensors = self.tensors()
        if self.sampler is not None and self.world.is_main:
            self.reporter.say("Generating samples...")
            if self.model.compute.pool is not None:
                self.model.compute.pool.give_back()
            self.sampler(self.step, tensors)
        self.world.barrier()

    def save(self) -> Path:
        """Write a state to resume from. Without validation, also write the run folder's model."""
        if self.world.any(not all_finite(self.model)):
            raise self._diverged("the weights are not finite")
        if self.validated is None:
            self.forget_best()
            self.saver.write_model()
        progress = {**self.about, **{name: getattr(self, name) for name in COUNTERS}, "generation": self.generation}
        progress["held_out"] = self.text
        progress["best"] = None if math.isinf(self.best) else self.best  # JSON has no infinity
        state = self.run / f"state-{self.step:07}"
        self.reporter.say(f"Saving {state}")
        self.saver.save_state(progress)
        self.reporter.saved()
        self.last_state, self.saved_at = state, time.monotonic()
        return state

    def forget_best(self) -> None:
        """Make the next validated model the best so far, which becomes the run folder's model."""
        self.best, self.best_step, self.since_best = math.inf, 0, 0

    def _plan(self) -> None:
        """Set the last update by the pace, if there is a deadline."""
        if self.settings.minutes:
            self.pace.plan(self.step, self.seconds)
            self.pace.last = self.world.broadcast(self.pace.last)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(step, replace(self.settings, steps=max(1, self.pace.last)), self.begun_at)

    def _loss(self, batch: Batch, step: int) -> Tensor:
        """Return the sum of losses over the trained targets, float32."""
        device = self.world.device
        tokens, targets = torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.targets).to(device)
        trained = None if batch.trained.all() else torch.from_numpy(batch.trained).to(device)
        ids = self.used_ids if step <= self.settings.narrow_steps else None
        loss: Tensor = self.wrapped(tokens, targets, trained, ids)
        return loss

    def _zero_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=self.world.size == 1)  # replicas keep gradients in their send buffers

    def _diverged(self, what: str) -> TrainingError:
        self.outcome = "diverged"
        where = f"the last state, {self.last_state}, is intact" if self.last_state else "no state has been saved yet"
        return TrainingError(f"{what}; {where}; try a lower --learning_rate")

    def _report(self, loss: float | None, seconds: float) -> Update:
        if loss is None:
            if self.unlearned == 0:
                warning = f"update {self.step} had no learned target, only prompts: it changed nothing"
                self.reporter.say(f"warning: {warning}")
            self.unlearned += 1
        else:
            self.average = (AVERAGE_DECAY * self.average[0] + loss, AVERAGE_DECAY * self.average[1] + 1)
        average = self.standing.average
        tokens = self.settings.windows_per_update * self.windows.length
        rate, each = self._learning_rate(self.step), tokens / max(seconds, 1e-9)
        made = Update(self.step, self.last_step, self.seconds, loss, average, rate, tokens, each)
        self.reporter.update(made)
        return made

    def _due(self, every: int) -> bool:
        return self.step == self.last_step or (every > 0 and self.step % every == 0)

    def _validate_and_keep_best(self, held_out: Windows) -> Validation:
        begin = time.perf_counter()
        with self.versions.shown():
            loss = self.validate(held_out)
        self.pace.reserve = time.perf_counter() - begin
        if not math.isfinite(loss):
            raise self._diverged(f"the held-out loss is {loss} after {self.step} updates")
        self.latest, self.since_best = loss, self.since_best + 1
        if loss < self.best:
            self.best, self.best_step, self.since_best = loss, self.step, 0
            self.saver.write_model()
        made = Validation(self.step, self.seconds, loss, best=self.since_best == 0)
        self.reporter.validation(made)
        if self.since_best == WORSE:
            self.reporter.say(no_better(self.standing))
        return made

    def _say_interrupted(self) -> None:
        self.reporter.status("finishing this update, then saving; press Ctrl-C again to stop at once")
