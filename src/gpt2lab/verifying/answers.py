"""Answers files: JSON with public answers, each with its source.

    {"texts": {"NAME": ["a paragraph", ...]},
     "models": {"124M": [{"kind": "greedy", "name": "...", "source": "...", "prompt": "...", "text": "..."}, ...]}}

``kind`` is one of :data:`KINDS`; the fields that follow are those of its class. A paragraph list may be a name in
``texts``. ``assets/answers.json`` holds the answers for the released sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.evaluating.published import released_size
from gpt2lab.system.paths import expanded
from gpt2lab.verifying import benchmarks, checks, llm_c
from gpt2lab.verifying.fields import made
from gpt2lab.verifying.subject import Outcome, Subject
from gpt2lab.weights.checkpoint import Checkpoint, parse_json, read_bytes
from gpt2lab.weights.hub import hub_model

PUBLISHED = Path(__file__).parent.parent / "assets" / "answers.json"
"""The public answers for the released sizes."""


class Check(Protocol):
    """A public answer that a model can be checked against."""

    def check(self, subject: Subject) -> Outcome:
        """Compute the model's answer, and compare it."""


KINDS: Mapping[str, type[Check]] = {
    "digest": checks.Digest,
    "tokens": checks.Tokens,
    "greedy": checks.Greedy,
    "logits": checks.Logits,
    "surprisals": checks.Surprisals,
    "log_likelihood": checks.LogLikelihood,
    "loss": checks.Loss,
    "batch_loss": llm_c.BatchLoss,
    "adamw": llm_c.AdamW,
    "debug_state": llm_c.DebugState,
    "benchmark": benchmarks.Benchmark,
}
"""Kind of an answer → its class."""


@dataclass(frozen=True)
class Answer:
    """A public answer: its kind, its name in the table, where it was published, and the check."""

    kind: str
    name: str
    source: str
    check: Check


def published_size(name: str) -> str | None:
    """Return the released size that a name stands for, on this machine or on the hub; None for a path."""
    model = None if Path(expanded(name)).exists() else hub_model(name)
    return model.size if model else None


def read_answers(path: Path, name: str, checkpoint: Checkpoint) -> list[Answer]:
    """Return the answers for a model: those of its released size, or of the only model in a file of one's own.

    Raises :class:`~gpt2lab.errors.UsageError` if there are none for it, or if the file is malformed.
    """
    try:
        content = parse_json(path, read_bytes(path))
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    models, texts = content.get("models"), content.get("texts", {})
    if not isinstance(models, dict) or not isinstance(texts, dict):
        raise UsageError(f"{path}: 'models' and 'texts' must be objects")
    size = published_size(name) or released_size(checkpoint.config)
    if size not in models and len(models) == 1:
        (size,) = models
    if size not in models:
        raise UsageError(
            f"{name} does not have the shape of a released GPT-2, so there are no published "
            "answers for it; give your own with --answers"
        )
    if not isinstance(models[size], list):
        raise UsageError(f"{path}: the answers of {size} must be a list")
    return [_answer(f"{path}: answer {number} of {size}", each, texts) for number, each in enumerate(models[size], 1)]


def _answer(where: str, given: Any, texts: Mapping[str, Any]) -> Answer:
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str) or given["kind"] not in KINDS:
        raise UsageError(f"{where}: 'kind' must be one of {', '.join(KINDS)}")
    fields = dict(given)
    kind, name, source = (str(fields.pop(key, "")) for key in ("kind", "name", "source"))
    if not name or not source:
        raise UsageError(f"{where}: 'name' and 'source' are needed")
    if isinstance(fields.get("paragraphs"), str):
        fields["paragraphs"] = texts.get(fields["paragraphs"], [])
    try:
        return Answer(kind, name, source, made(KINDS[kind], fields))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
