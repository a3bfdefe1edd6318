"""Published figures of benchmarks, on the first examples of their data sets or on all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt2lab.errors import DownloadError, UsageError
from gpt2lab.evaluating import Evaluation, Run, evaluate
from gpt2lab.verifying.subject import Outcome, Subject, finite, skipped

ERRORS = 4
"""Standard errors of a figure of a part of the data within which the published one must be."""


@dataclass(frozen=True)
class Benchmark:
    """A figure of one task under one protocol, in the words of ``docs/evaluate.md``; accuracies are fractions."""

    task: str
    protocol: str
    metric: str
    value: float
    tolerance: float
    """For the whole data set. For a part of it, the part's own standard error is added."""
    examples: int
    """The number of examples, or of lines, in the part."""
    text: str | None = None
    """How WikiText is prepared."""
    stride: int | None = None

    def check(self, subject: Subject) -> Outcome:
        """Evaluate the task, fetching its data set first if necessary."""
        limit = None if subject.full else self.examples
        found = self._evaluated(subject, limit)
        if isinstance(found, DownloadError):
            return skipped(f"{self.value:g}", str(found).partition("; get ")[0])
        figures = {(each.protocol, each.metric): each for each in found.figures}
        figure = figures.get((self.protocol, self.metric))
        if figure is None:
            known = "; ".join(f"{metric} ({protocol})" for protocol, metric in figures)
            raise UsageError(f"{self.task} has no {self.metric} ({self.protocol}); it has {known}")
        tolerance = self.tolerance
        if limit is not None and math.isfinite(figure.error):
            tolerance += ERRORS * figure.error
        values = {
            "expected": self.value,
            "got": finite(figure.value),
            "standard_error": finite(figure.error),
            "tolerance": tolerance,
            "examples": limit,
        }
        passed = abs(figure.value - self.value) <= tolerance
        return Outcome(f"{self.value:.4f}", f"{figure.value:.4f}", passed, f"± {tolerance:.2g}", values)

    def _evaluated(self, subject: Subject, limit: int | None) -> Evaluation | DownloadError:
        """Evaluate the task, or return what came of it before."""
        key = (self.task, self.text, self.stride, limit)
        if key not in subject.evaluations:
            subject.say(f"measuring {self.task} on {'all' if limit is None else f'the first {limit}'} examples")
            run = Run(subject.model.exact_engine, subject.tokenizer, limit)
            try:
                texts = (self.text,) if self.text else ()
                found: Evaluation | DownloadError = evaluate(
                    self.task, run, stride=self.stride, texts=texts, say=subject.say
                )
            except DownloadError as error:
                found = error
            subject.evaluations[key] = found
        evaluated: Evaluation | DownloadError = subject.evaluations[key]
        return evaluated
