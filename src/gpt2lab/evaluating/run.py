"""A model under evaluation, with what tasks need from it and a callback for progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.config import END_OF_TEXT
from gpt2lab.evaluating.batches import Item, Scores, fitted, score_items
from gpt2lab.evaluating.sources import Tick

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Run:
    """A model, and how much of a data set to evaluate it on."""

    engine: Engine
    tokenizer: Tokenizer
    limit: int | None = None
    """Use only the first ``limit`` examples."""
    tick: Tick = lambda n: None

    def score(self, items: Iterable[Item], counts: Counter[str], banned: Iterable[int] = ()) -> Iterator[list[Scores]]:
        """Yield the scores of ``items``; count in ``counts`` the contexts that had to be cut."""
        n_ctx = self.engine.config.n_ctx

        def counted() -> Iterator[Item]:
            for item in items:
                counts["contexts cut at their beginning"] += fitted(item, n_ctx) is not item
                yield item

        for scores in score_items(self.engine, counted(), tuple(banned)):
            self.tick(1)
            yield scores

    def ids(self, text: str) -> list[int]:
        """Return the ids of a part of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def context(self, text: str) -> list[int]:
        """Return the ids of a context; an empty one is the start of a text."""
        start = self.tokenizer.start
        return self.tokenizer.encode(text) or [END_OF_TEXT if start is None else start]
