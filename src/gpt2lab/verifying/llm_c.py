"""llm.c's test: the loss and the logits of one small batch, and the losses of ten AdamW updates on it.

The batch is the beginning of a text, of which each paragraph follows ``<|endoftext|>``. PyTorch is imported only for
the updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import DownloadError, UsageError
from gpt2lab.verifying.fields import require
from gpt2lab.verifying.subject import Outcome, Subject, compared, skipped

_HEADER = 256  # int32
_MAGIC = 20240327


@dataclass(frozen=True)
class Batch:
    """``batch`` sequences of ``time`` tokens and the token after each, cut from a text one after the other."""

    paragraphs: Sequence[str]
    batch: int
    time: int

    def __post_init__(self) -> None:
        require(self.batch > 0 and self.time > 0, "'batch' and 'time' must be at least 1")

    def ids(self, subject: Subject) -> NDArray[np.int64]:
        """Return all ids, one more than the batch has inputs: ``[batch * time + 1]``."""
        parts = ([subject.end_of_text, *subject.tokenizer.encode(text)] for text in self.paragraphs)
        found = list(chain.from_iterable(parts))
        needed = self.batch * self.time + 1
        if len(found) < needed:
            raise UsageError(
                f"a batch of {self.batch} x {self.time} needs {needed} tokens, but its text has {len(found)}"
            )
        return np.array(found[:needed], np.int64)

    def rows(self, subject: Subject) -> list[list[int]]:
        """Return each sequence with the token after it."""
        ids = self.ids(subject).tolist()
        return [ids[at : at + self.time + 1] for at in range(0, self.batch * self.time, self.time)]


@dataclass(frozen=True)
class BatchLoss(Batch):
    """The mean loss of the batch, in nats."""

    nats: float
    tolerance: float

    def check(self, subject: Subject) -> Outcome:
        """Score the batch."""
        losses = [each for row in self.rows(subject) for each in subject.surprisals(row)]
        return compared([self.nats], [float(np.mean(losses))], self.tolerance, [""])


@dataclass(frozen=True)
class AdamW(Batch):
    """The mean loss of the batch before each of several updates with it."""

    losses: Sequence[float]
    tolerance: float
    learning_rate: float
    betas: Sequence[float]
    weight_decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.betas) == 2 and bool(self.losses), "'betas' must be two numbers, and 'losses' not be empty")

    def check(self, subject: Subject) -> Outcome:
        """Train on the batch, if PyTorch is installed."""
        if find_spec("torch") is None:
            return skipped(f"{self.losses[-1]:.5f}", "needs PyTorch: pip install 'gpt2lab[train]'")
        got = _trained(self, subject)
        return compared(self.losses, got, self.tolerance, [f"update {number}:" for number in range(len(got))])


def _trained(answer: AdamW, subject: Subject) -> list[float]:
    import torch

    from gpt2lab.training.adam import Adam
    from gpt2lab.training.module import GPT2

    checkpoint = subject.model.checkpoint
    model = GPT2(checkpoint.config)
    model.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in checkpoint.tensors.items()})
    group = {"params": list(model.parameters()), "lr": answer.learning_rate, "weight_decay": answer.weight_decay}
    optimizer = Adam([group], (answer.betas[0], answer.betas[1]), decoupled=True)
    rows = torch.tensor(answer.rows(subject))  # [batch, time + 1]
    found = []
    for _ in answer.losses:
        loss = model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()) / rows[:, 1:].numel()
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@dataclass(frozen=True)
class DebugState(Batch):
    """Every logit of the batch, from a file on the hub whose beginning holds the batch and them."""

    repository: str
    file: str
    tolerance: float

    def check(self, subject: Subject) -> Outcome:
        """Fetch the beginning of the file, and compare the batch and the logits after each of its tokens."""
        from huggingface_hub import hf_hub_url

        from gpt2lab.weights.fetch import fetch_beginning

        n, n_vocab = self.batch * self.time, subject.model.config.n_vocab
        url = hf_hub_url(self.repository, self.file, repo_type="dataset")
        try:
            content = fetch_beginning(url, 4 * (_HEADER + 2 * n + n * n_vocab))
        except DownloadError as error:
            return skipped(f"{n} x {n_vocab} logits", str(error))
        subject.say(f"{self.file}: {len(content):,} bytes of {url}")
        numbers = np.frombuffer(content, "<i4", _HEADER + 2 * n)
        if (header := numbers[[0, 2, 3]].tolist()) != [_MAGIC, self.batch, self.time]:
            return Outcome(f"a header with {[_MAGIC, self.batch, self.time]}", str(header), False)
        ids = self.ids(subject)
        if numbers[_HEADER:].tolist() != [*ids[:-1].tolist(), *ids[1:].tolist()]:
            return Outcome("the batch of the file", "another batch", False)
        expected = np.frombuffer(content, "<f4", offset=4 * (_HEADER + 2 * n)).reshape(n, n_vocab)
        return self._compared(subject, expected)

    def _compared(self, subject: Subject, expected: NDArray[np.float32]) -> Outcome:
        apart = 0.0
        for number, row in enumerate(self.rows(subject)):
            logits = subject.model.logits(row[:-1])  # [time, n_vocab]
            apart = max(apart, float(np.abs(logits - expected[number * self.time :][: self.time]).max()))
        numbers = f"{expected.size:,} logits"
        values = {"largest_difference": apart, "tolerance": self.tolerance}
        return Outcome(numbers, f"at most {apart:.2g} apart", apart <= self.tolerance, f"± {self.tolerance:g}", values)
