"""The training loop: updates, validation, saving, stopping.

Everything that the next update depends on is in the saved state, so that a resumed run goes on as if it had never
stopped. Knows nothing of files but the run folder, nor of text or command lines.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from gpt2lab.config import END_OF_TEXT, ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.training import checkpoints
from gpt2lab.training.data import Windows
from gpt2lab.training.module import GPT2
from gpt2lab.training.optimizers import choose_trainable, load_optimizer_tensors, make_optimizers, optimizer_tensors
from gpt2lab.training.settings import Settings, learning_rate

AVERAGE_DECAY = 0.99  # of the running mean of losses that is printed as avg=, as in the original


class Trainer:
    """A model in training: ``Trainer(...).train()``.

    ``windows`` are trained on; ``held_out`` (None = no validation) never. ``run`` is the folder that it saves into:
    there lies the best model by held-out loss, or the latest if nothing is held out. ``say`` takes lines of progress.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: Settings,
        windows: Windows,
        held_out: Windows | None,
        run: Path,
        say: Callable[[str], None] = print,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.windows, self.held_out, self.run, self.say = settings, windows, held_out, run, say
        self.model = GPT2(config, settings.dropout)
        self.model.precision = "bfloat16" if settings.precision == "bfloat16" else "float32"
        choose_trainable(self.model, settings)
        self.optimizers = make_optimizers(self.model, settings)
        self.used_ids = used_ids(windows, held_out)
        self.step = 0  # updates made
        self.position = 0  # windows trained on
        self.best = math.inf
        self.since_best = 0  # validations
        self.average = (0.0, 0.0)  # weighted sum of losses, sum of weights
        self.seconds = 0.0
        self._stop_because = ""

    def train(self) -> None:
        """Train up to ``settings.steps`` updates, or until patience ends, or Ctrl-C (finishes the update, saves)."""
        begin = time.perf_counter() - self.seconds
        with self._finish_on_interrupt():
            while self.step < self.settings.steps and not self._stop_because:
                loss = self.update()
                self.seconds = time.perf_counter() - begin
                self._report(loss)
                if self._due(self.settings.val_every) and self.held_out is not None:
                    self._validate_and_keep_best(self.held_out)
                if self._due(self.settings.save_every):
                    self.save()
        if self._stop_because:
            self.say(self._stop_because)

    def update(self) -> float:
        """One update: mean gradient of the batches, clipped, and a step down. Their mean loss, in nats a token."""
        self.step += 1
        if self.step == self.settings.narrow_steps + 1 > 1:
            self.widen()
        self.model.train()
        parts = self.settings.accumulate_gradients
        total = 0.0
        for _ in range(parts):
            loss = self._loss(*self.windows.batch(self.position, self.settings.batch_size)) / parts
            loss.backward()
            total += loss.item()
            self.position += self.settings.batch_size
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.settings)
            optimizer.step()
            optimizer.zero_grad()
        return total

    @torch.no_grad()
    def validate(self, held_out: Windows) -> float:
        """Mean loss over all windows of ``held_out``, in nats a token, without dropout."""
        self.model.eval()
        total = 0.0
        for tokens, targets in held_out.in_order(self.settings.batch_size):
            total += self._loss(tokens, targets).item() * len(tokens)
        return total / len(held_out)

    @torch.no_grad()
    def widen(self) -> None:
        """Give every token that the dataset lacks a row of ``wte`` to learn from.

        A small corpus has half of GPT-2's tokens, and the output matrix is most of a small model's arithmetic: the
        first ``narrow_steps`` updates leave the others out. Then these start at the mean row, close to rare tokens,
        and the remaining updates teach the model over the whole vocabulary that they do not occur.
        """
        unused = torch.ones(self.model.config.n_vocab, dtype=torch.bool)
        unused[self.used_ids] = False
        self.model.wte.weight[unused] = self.model.wte.weight[self.used_ids].mean(0)

    def save(self) -> Path:
        """Write a state to resume from; if nothing is held out also the run folder's model."""
        config, tensors = self.model.config, self.model.state_dict()
        if self.held_out is None:
            checkpoints.write_model(self.run, config, tensors)
        names = ("step", "position", "best", "since_best", "average", "seconds")
        progress = {name: getattr(self, name) for name in names}
        state = checkpoints.save_state(self.run, config, tensors, optimizer_tensors(self.model, self.optimizers), progress)
        self.say(f"Saving {state}")
        return state

    def restore(self, state: Path) -> None:
        """Go on from ``state``. The settings may differ from those it was made with, the model's shape may not."""
        tensors, optimizer, progress = checkpoints.load_state(state)
        try:
            self.model.load_state_dict(tensors)
            load_optimizer_tensors(self.model, self.optimizers, optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{state} is of another shape or optimizer than asked for: {error}") from error
        for name, value in progress.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        self.say(f"Loading checkpoint {state}")

    def _loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        ids = self.used_ids if self.step <= self.settings.narrow_steps else None
        return self.model(tokens, targets, ids=ids) / targets.numel()

    def _report(self, loss: float) -> None:
        self.average = (AVERAGE_DECAY * self.average[0] + loss, AVERAGE_DECAY * self.average[1] + 1)
        average = self.average[0] / self.average[1]
        self.say(f"[{self.step} | {self.seconds:2.2f}] loss={loss:2.2f} avg={average:2.2f}")

    def _due(self, every: int) -> bool:
        last = self.step == self.settings.steps or bool(self._stop_because)
        return last or (every > 0 and self.step % every == 0)

    def _validate_and_keep_best(self, held_out: Windows) -> None:
        loss = self.validate(held_out)
        self.say(f"[{self.step} | {self.seconds:2.2f}] validation loss = {loss:.4f}")
        self.since_best += 1
        if loss < self.best:
            self.best, self.since_best = loss, 0
            checkpoints.write_model(self.run, self.model.config, self.model.state_dict())
        if 0 < self.settings.patience <= self.since_best:
            self._stop_because = f"no better for {self.since_best} validations"

    @contextmanager
    def _finish_on_interrupt(self) -> Iterator[None]:
        def ask(_number: int, _frame: FrameType | None) -> None:
            self._stop_because = "interrupted"

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def used_ids(windows: Windows, held_out: Windows | None) -> Tensor:
    """Ids that occur in the dataset, int64, ascending. Held-out text counts too, or its loss would be undefined."""
    tokens = [windows.tokens, np.asarray([END_OF_TEXT]), *([held_out.tokens] if held_out else [])]
    return torch.from_numpy(np.unique(np.concatenate(tokens)).astype(np.int64))
