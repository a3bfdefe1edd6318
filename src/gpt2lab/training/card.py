"""The model card of a run: a ``README.md`` in its folder with base, data, settings, losses, and how to load it.

A line in the file holds a digest of the rest, so a card that somebody has changed, or another ``README.md``, is
recognized and stays as it is. A card that cannot be written does not end the run. This module knows nothing of the
training loop.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gpt2lab.data.windows import Ring
from gpt2lab.system.atomic import write_file
from gpt2lab.system.hashing import sha256_of
from gpt2lab.system.paths import printable
from gpt2lab.training.advice import Standing
from gpt2lab.training.job import Given, Job
from gpt2lab.training.metrics import METRICS, read_metrics
from gpt2lab.training.reporting import Reporter, Validation
from gpt2lab.training.settings import Settings
from gpt2lab.version import CONTRACT, __version__

CARD = "README.md"
_MARK = "<!-- gpt2lab replaces this file as long as nobody changes it: sha256 {} -->"
_MARKED = re.compile("\n" + re.escape(_MARK).replace(r"\{\}", "[0-9a-f]{64}") + "\n")
_MOST_BYTES, _MOST_TOKENS = 1 << 30, 100_000_000  # digests of more would take minutes


@dataclass(frozen=True)
class Facts:
    """The constant part of a run: the request, the ``settings`` chosen for it, and a table of its texts."""

    job: Job
    settings: Settings
    n_params: int
    texts: tuple[str, ...]


class Card(Reporter):
    """A reporter that writes the card whenever the run folder's model may have changed."""

    def __init__(self, facts: Facts, standing: Callable[[], Standing], say: Callable[[str], None]) -> None:
        self._facts, self._standing, self._say = facts, standing, say
        records = read_metrics(standing().run / METRICS)
        self._before = next((record["val_loss"] for record in records if "val_loss" in record), None)
        self._refused = False

    def validation(self, made: Validation) -> None:
        """Write the card if the model is the best so far."""
        self._before = made.loss if made.step == 0 else self._before
        if made.best:
            self._write()

    def saved(self) -> None:
        """Write the card."""
        self._write()

    def _write(self) -> None:
        standing = self._standing()
        path = standing.run / CARD
        try:
            if not self._refused and (path.is_symlink() or path.exists()) and not is_own(path):
                self._refused = True
                self._say(f"{path} was changed or is not a card of gpt2lab: it stays, and no card is written")
            if not self._refused:
                text = card(self._facts, standing, self._before)
                write_file(path, _marked(text).encode(), sync=False)
        except OSError as error:
            self._refused = True
            self._say(f"warning: cannot write {path}: {error.strerror or error}; training continues without a card")


def is_own(path: Path) -> bool:
    """Return whether a file is a card that nobody has changed since it was written."""
    if path.is_symlink() or not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    plain = _MARKED.sub("", text, count=1)
    return plain != text and _marked(plain) == text


def _marked(text: str) -> str:
    """Put the line with the digest after the first heading."""
    heading = text.index("\n", text.index("\n# ") + 1) + 1
    return text[:heading] + "\n" + _MARK.format(hashlib.sha256(text.encode()).hexdigest()) + "\n" + text[heading:]


def text_rows(job: Job, ring: Ring, held_out: Ring | None) -> tuple[str, ...]:
    """Return the rows of a table of the texts: files with their digests, then the tokens to train and validate on."""
    rows = [_source_row(source) for source in _sources(job.dataset)]
    rows += [_source_row(source) for source in _sources(job.val_dataset)]
    rows.append(_ring_row("trained on", ring))
    return (*rows, _ring_row("held out", held_out)) if held_out is not None else tuple(rows)


def _sources(dataset: tuple[str, ...] | str | Given | None) -> Iterable[str | Given]:
    if dataset is None:
        return []
    return dataset if isinstance(dataset, tuple) else [dataset]


def _source_row(source: str | Given) -> str:
    if isinstance(source, Given):
        lines = "".join(json.dumps(record) + "\n" for record in source.records)
        return f"| {source} | | `{hashlib.sha256(lines.encode()).hexdigest()}` |"
    path = Path(source)
    digest = f"`{sha256_of(path)}`" if path.is_file() and path.stat().st_size <= _MOST_BYTES else ""
    return f"| {_code(source)} | | {digest} |"


def _ring_row(name: str, ring: Ring) -> str:
    digest = f"`{ring.digest()}`" if len(ring) <= _MOST_TOKENS else ""
    return f"| {name} | {len(ring):,} tokens, documents: {ring.n_documents:,} | {digest} |"


_TEMPLATE = """---
pipeline_tag: text-generation
tags: [gpt2, gpt2lab]
---

# {name}

A GPT-2 of {n_params:,} parameters, {start} by gpt2lab {version} (contract {contract}).
The model in this folder is that of update {held}; {made} of {steps} updates have been made.

{losses}

## Load it

```bash
gpt2lab generate --model {quoted}
```

In Python it is `gpt2lab.load({run!r})`; transformers takes the folder, too.

## Data

The digest of a file covers its bytes, that of tokens their ids in order and which of them are learned.

| text | size | SHA-256 |
|---|---|---|
{texts}

## Settings

The seed is {seed}.

| setting | value |
|---|---|
{settings}
"""


def card(facts: Facts, standing: Standing, before: float | None) -> str:
    """Return the card of a run, without the line with its digest. ``before`` is the held-out loss before training."""
    job, settings = facts.job, facts.settings
    start = f"fine-tuned from {_code(job.model_name)}" if job.config is None else "trained from random weights"
    chosen = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    return _TEMPLATE.format(
        name=printable(job.run_name),
        n_params=facts.n_params,
        start=f"{start} with LoRA of rank {settings.lora}" if settings.lora else start,
        version=__version__,
        contract=CONTRACT,
        held=standing.step if standing.best_step is None else standing.best_step,
        made=standing.step,
        steps=settings.steps,
        losses=_losses(standing, before),
        quoted=shlex.quote(printable(standing.run)),
        run=printable(standing.run),
        texts="\n".join(facts.texts),
        seed=settings.seed,
        settings="\n".join(f"| {name} | {_code(value)} |" for name, value in chosen if value not in (None, "")),
    )


def _losses(standing: Standing, before: float | None) -> str:
    """Return a table of held-out losses, if there are any, and the training loss."""
    average = "none yet" if standing.average is None else f"{standing.average:.4f} (running mean)"
    trained = f"Losses are in nats a token. The training loss is {average}."
    rows = [("before training", 0, before), ("this model", standing.best_step, standing.best)]
    rows.append(("the last validation", standing.step, standing.latest))
    known = [
        f"| {name} | {step} | {loss:.4f} | {math.exp(min(loss, 700.0)):.1f} |"
        for name, step, loss in rows
        if loss is not None
    ]
    if not known:
        return f"{trained} No text was held out."
    return "\n".join(["| | updates | held-out loss | perplexity |", "|---|---|---|---|", *known, "", trained])


def _code(text: Any) -> str:
    """Return text as code in a cell of a table."""
    return "`" + " ".join(printable(str(text)).replace("`", "'").replace("|", "\\|").split()) + "`"
