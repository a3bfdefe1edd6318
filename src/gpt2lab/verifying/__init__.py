"""Compare a model with what others have published about it: digests, continuations, logits, surprisals, losses.

:func:`verify` is the entry point. ``docs/verify.md`` lists the answers for the released sizes with their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.errors import SamplingError
from gpt2lab.verifying.answers import PUBLISHED, Answer, published_size, read_answers
from gpt2lab.verifying.subject import Outcome, Subject

__all__ = ["PUBLISHED", "Answer", "Outcome", "Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """The outcomes of all checks of a model."""

    name: str
    path: Path
    outcomes: list[tuple[Answer, Outcome]]

    def count(self, passed: bool | None) -> int:
        """Return the number of checks that passed (True), failed (False) or were skipped (None)."""
        return sum(outcome.passed is passed for _, outcome in self.outcomes)

    def record(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "model": self.name,
            "path": str(self.path),
            "passed": self.count(True),
            "failed": self.count(False),
            "skipped": self.count(None),
            "checks": [_record(answer, outcome) for answer, outcome in self.outcomes],
        }


def _record(answer: Answer, outcome: Outcome) -> dict[str, Any]:
    result = {True: "pass", False: "fail", None: "skipped"}[outcome.passed]
    named = {"kind": answer.kind, "name": answer.name, "source": answer.source, "result": result}
    return named | (dict(outcome.values) or {"expected": outcome.expected, "got": outcome.got})


def _outcome(answer: Answer, subject: Subject) -> Outcome:
    try:
        return answer.check.check(subject)
    except SamplingError as error:  # logits that are no numbers
        return Outcome("an answer", str(error), False)


def verify(
    name: str,
    *,
    answers: Path = PUBLISHED,
    full: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    done: Callable[[Answer, Outcome], None] = lambda answer, outcome: None,
) -> Verification:
    """Check a model, in float32, against public answers.

    Args:
        name: a released size, which is downloaded if it is not on this machine, or another name or path of a model.
        answers: the answers file.
        full: whether to use the whole data sets of benchmarks, not only their first examples.
        threads: number of worker threads; default: the number of physical cores.
        device: as in :func:`gpt2lab.load`.
        say: receives a line for each file that is fetched.
        done: receives each outcome as soon as it is known.

    Raises :class:`~gpt2lab.errors.UsageError` if there are no answers for the model or the file is malformed, and the
    errors of :func:`gpt2lab.load`.
    """
    from gpt2lab.model import load

    model = load(name, precision="float32", threads=threads, device=device)
    subject = Subject(model, published=published_size(name) is not None, full=full, say=say)
    outcomes = []
    for answer in read_answers(answers, name, model.checkpoint):
        outcome = _outcome(answer, subject)
        done(answer, outcome)
        outcomes.append((answer, outcome))
    return Verification(name, model.checkpoint.path, outcomes)
