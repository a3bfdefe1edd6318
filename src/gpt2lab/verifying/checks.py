"""Checks that need nothing but the model: digests, ids, greedy continuations, logits, surprisals.

Each class is one kind of answer, with the fields that an answers file gives it, and a method ``check``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2lab.system.hashing import sha256_of
from gpt2lab.verifying.fields import require
from gpt2lab.verifying.subject import Outcome, Subject, compared, skipped

_SHOWN = 24  # characters of a digest or a text in the table


@dataclass(frozen=True)
class Digest:
    """The SHA-256 of a published file. A file of one's own, given by its path, may differ."""

    file: str
    sha256: str

    def check(self, subject: Subject) -> Outcome:
        """Hash the file of that name, if the model is stored in such a file."""
        path = subject.model.checkpoint.path
        file = (path if path.is_dir() else path.parent) / self.file
        expected = f"{self.sha256[:_SHOWN]}…"
        if not file.is_file():
            return skipped(expected, f"the model has no {self.file}")
        found = sha256_of(file)
        if found != self.sha256 and not subject.published:
            return skipped(expected, f"not the published file: {found[:_SHOWN]}…")
        values = {"expected": self.sha256, "got": found}
        return Outcome(expected, f"{found[:_SHOWN]}…", found == self.sha256, values=values)


@dataclass(frozen=True)
class Tokens:
    """The ids of a text."""

    text: str
    ids: Sequence[int]

    def check(self, subject: Subject) -> Outcome:
        """Encode the text."""
        found = subject.tokenizer.encode(self.text)
        at = _first_difference(self.ids, found) if found != list(self.ids) else 0
        values = {"expected": list(self.ids), "got": found}
        return Outcome(_around(self.ids, at), _around(found, at), found == list(self.ids), values=values)


@dataclass(frozen=True)
class Greedy:
    """The text that follows a prompt if the likeliest token is taken each time."""

    prompt: str
    text: str

    def check(self, subject: Subject) -> Outcome:
        """Continue the prompt by two tokens more than the answer has, and compare as far as the answer goes."""
        length = len(subject.tokenizer.encode(self.text)) + 2
        found = subject.model.generate(self.prompt, length=length, temperature=0, ignore_eos=True, seed=0).text
        found = found[: len(self.text)]
        at = max(0, _first_difference(self.text, found) - _SHOWN // 2) if found != self.text else 0
        shown = [f"{'…' * bool(at)}{text[at : at + _SHOWN]!r}" for text in (self.text, found)]
        return Outcome(shown[0], shown[1], found == self.text, values={"expected": self.text, "got": found})


@dataclass(frozen=True)
class Logits:
    """Some logits after one of several ids, and perhaps the mean of all logits after all of them."""

    ids: Sequence[int]
    at: int
    """The index of the id after which the logits come."""
    logits: Mapping[str, float]
    """Id, as a string for JSON → its logit."""
    tolerance: float
    mean: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.at < len(self.ids), f"'at' must be the index of one of 'ids', got {self.at}")
        require(all(id.isdecimal() for id in self.logits), "the names in 'logits' must be ids")
        require(bool(self.logits) or self.mean is not None, "'logits' must name an id, or 'mean' be given")

    def check(self, subject: Subject) -> Outcome:
        """Compute the logits."""
        n_vocab = subject.model.config.n_vocab
        require(
            all(int(id) < n_vocab for id in self.logits), f"the model has only {n_vocab} ids; 'logits' names others"
        )
        rows = subject.model.logits(self.ids)  # [n, n_vocab]
        got = [float(rows[self.at, int(id)]) for id in self.logits]
        expected, labels = list(self.logits.values()), list(self.logits)
        if self.mean is not None:
            got.append(float(rows.mean(dtype=np.float64)))
            expected, labels = [*expected, self.mean], [*labels, "mean"]
        return compared(expected, got, self.tolerance, [f"{label}:" for label in labels])


@dataclass(frozen=True)
class Surprisals:
    """The negative log-probability of each token of a text, in nats."""

    text: str
    nats: Sequence[float]
    tolerance: float
    opened: bool = True
    """Whether the text begins after ``<|endoftext|>``; otherwise its first token has no surprisal."""

    def __post_init__(self) -> None:
        require(bool(self.text) and bool(self.nats), "'text' and 'nats' must not be empty")

    def check(self, subject: Subject) -> Outcome:
        """Score the text."""
        ids = subject.tokenizer.encode(self.text)
        got = subject.surprisals([subject.end_of_text, *ids] if self.opened else ids)
        pieces = [subject.tokenizer.decode([id]) for id in (ids if self.opened else ids[1:])]
        return compared(self.nats, got, self.tolerance, [repr(piece) for piece in pieces])


@dataclass(frozen=True)
class LogLikelihood:
    """The log-probability of a continuation after a context, each encoded by itself."""

    context: str
    continuation: str
    value: float
    tolerance: float

    def __post_init__(self) -> None:
        require(bool(self.context) and bool(self.continuation), "'context' and 'continuation' must not be empty")

    def check(self, subject: Subject) -> Outcome:
        """Score the continuation."""
        context, continuation = map(subject.tokenizer.encode, (self.context, self.continuation))
        got = -sum(subject.surprisals([*context, *continuation])[len(context) - 1 :])
        return compared([self.value], [got], self.tolerance, [""])


@dataclass(frozen=True)
class Loss:
    """The mean of the surprisals of a text's tokens after ``<|endoftext|>``."""

    text: str
    nats: float
    tolerance: float

    def __post_init__(self) -> None:
        require(bool(self.text), "'text' must not be empty")

    def check(self, subject: Subject) -> Outcome:
        """Score the text."""
        got = subject.surprisals([subject.end_of_text, *subject.tokenizer.encode(self.text)])
        return compared([self.nats], [sum(got) / len(got)], self.tolerance, [""])


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    """Return the length of the part with which both begin."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _around(ids: Sequence[int], at: int) -> str:
    """Return some ids from shortly before ``at`` on."""
    start = max(0, min(at, len(ids)) - 2)
    shown = " ".join(map(str, ids[start : start + 4]))
    return f"{'… ' * bool(start)}{shown}{' …' * (start + 4 < len(ids))}"
