"""The model under verification, and the outcome of one check of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt2lab.config import END_OF_TEXT
from gpt2lab.errors import UsageError
from gpt2lab.scoring import token_logprobs

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Subject:
    """A model in float32, and how to check it."""

    model: LanguageModel
    published: bool
    """Whether its files are meant to be the published ones: the user named a released size, not a path."""
    full: bool = False
    """Whether benchmarks use their whole data sets."""
    say: Callable[[str], None] = lambda line: None
    """Receives a line for each file that is fetched."""
    evaluations: dict[Any, Any] = field(default_factory=dict, compare=False)
    """What was evaluated so far, because several figures come from one evaluation."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises :class:`~gpt2lab.errors.UsageError` if it has none."""
        if self.model.tokenizer is None:
            raise UsageError(
                f"{self.model.checkpoint.path} has no tokenizer, and the published answers are about texts"
            )
        return self.model.tokenizer

    @property
    def end_of_text(self) -> int:
        """The id that starts a text."""
        found = self.tokenizer.end_of_text
        return END_OF_TEXT if found is None else found

    def surprisals(self, ids: Sequence[int]) -> list[float]:
        """Return the negative log-probability, in nats, of each of ``ids[1:]`` given all before it."""
        model = self.model
        return [-each for each in token_logprobs(model.exact_engine, ids, model.config.n_ctx)]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check: what was expected, what came out, and whether they agree."""

    expected: str
    got: str
    passed: bool | None
    """None if the check could not be made; ``got`` then says why."""
    within: str = ""
    """The tolerance, for readers."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """All numbers behind it, for JSON."""


def skipped(expected: str, why: str) -> Outcome:
    """Return the outcome of a check that cannot be made here."""
    return Outcome(expected, why, None)


def compared(expected: Sequence[float], got: Sequence[float], tolerance: float, labels: Sequence[str]) -> Outcome:
    """Compare numbers one by one; the outcome shows the pair that is furthest apart. NaN never agrees."""
    if len(expected) != len(got):
        return Outcome(f"{len(expected)} numbers", f"{len(got)} numbers", False)
    apart = [abs(a - b) if math.isfinite(b) else math.inf for a, b in zip(expected, got, strict=True)]
    worst = max(range(len(apart)), key=apart.__getitem__)
    label = f"{labels[worst]} " if labels[worst] else ""
    return Outcome(
        f"{label}{expected[worst]:.5f}",
        f"{got[worst]:.5f}",
        apart[worst] <= tolerance,
        f"± {tolerance:g}",
        {"expected": list(expected), "got": [finite(each) for each in got], "tolerance": tolerance},
    )


def finite(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None
