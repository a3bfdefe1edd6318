"""The probabilities that a model gives to tokens after contexts, which every evaluation needs.

Each context is fed once, however many endings follow it. Items run together without padding, because each row of the
engine's products stands for one token. This module knows nothing of text, nor of the use of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2lab.errors import ContextError

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Engine

BATCH_TOKENS = 2048
"""Tokens in a batch, roughly: enough to share a pass over the weights, few enough for their KV cache."""

LOGIT_ROWS = 128
"""Tokens whose logits are held at a time: 26 MB with GPT-2's vocabulary."""


@dataclass(frozen=True)
class Item:
    """Endings to score after one context."""

    context: Sequence[int]
    """Ids before each ending; at least one, not scored."""
    endings: Sequence[Sequence[int]]
    """Ids to score; at least one each."""


class Scores(NamedTuple):
    """The model's scores for one ending."""

    logprobs: npt.NDArray[np.float64]
    """Natural log-probability of each id given all ids before it: [n]."""
    greedy: npt.NDArray[np.bool_]
    """Whether each id is the likeliest there (ties go to the lowest id): [n]."""
    allowed: bool
    """Whether the first id is the likeliest one that is not banned."""

    @property
    def total(self) -> float:
        """Natural log-probability of the whole ending."""
        return float(self.logprobs.sum())


def fitted(item: Item, n_ctx: int) -> Item:
    """Return ``item``; if it is too long for the model's context, the beginning of its own context is dropped.

    Raises :class:`~gpt2lab.errors.ContextError` if an ending alone is longer than the model's context.
    """
    longest = max(map(len, item.endings))
    room = n_ctx + 1 - longest  # the last token of an ending is never fed
    if room < 1:
        raise ContextError(f"an ending has {longest} tokens, more than the model's context of {n_ctx}")
    return item if len(item.context) <= room else Item(item.context[-room:], item.endings)


def score_items(engine: Engine, items: Iterable[Item], banned: Sequence[int] = ()) -> Iterator[list[Scores]]:
    """Yield the scores of each item's endings, in order; items are read as they are needed.

    ``banned`` are ids left out of the choice behind :attr:`Scores.allowed`. :func:`fitted` cuts the contexts.
    """
    without = np.asarray(sorted(banned), np.int64)
    for batch in _batches(fitted(item, engine.config.n_ctx) for item in items):
        yield from _score(engine, batch, without)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    n_tokens = 0
    for item in items:
        batch.append(item)
        n_tokens += len(item.context) + sum(map(len, item.endings))
        if n_tokens >= BATCH_TOKENS:
            yield batch
            batch, n_tokens = [], 0
    if batch:
        yield batch


@dataclass
class _Lane:
    """A sequence to be fed ``inputs``, each of which is followed by the target of the same index."""

    sequence: int
    inputs: list[int]
    targets: list[int]


def _score(engine: Engine, batch: list[Item], banned: npt.NDArray[np.int64]) -> Iterator[list[Scores]]:
    sequences: list[int] = []
    try:
        lanes = _lanes(engine, batch, sequences)
        logprobs = [np.empty(len(lane.targets)) for lane in lanes]
        greedy = [np.zeros(len(lane.targets), np.bool_) for lane in lanes]
        allowed = [False] * len(lanes)
        for parts in _calls([len(lane.inputs) for lane in lanes]):
            fed = [lanes[number].inputs[start:end] for number, start, end in parts]
            logits = engine.forward([lanes[number].sequence for number, _, _ in parts], fed, "all")
            rows = iter(logits)
            for number, start, end in parts:
                for at in range(start, end):
                    row, target = next(rows), lanes[number].targets[at]
                    greedy[number][at] = int(row.argmax()) == target
                    if at == 0 and len(banned):
                        allowed[number] = _likeliest_without(row, banned) == target
                    logprobs[number][at] = _logprob(row, target)
    finally:
        for sequence in sequences:
            engine.free_sequence(sequence)
    results = map(Scores, logprobs, greedy, allowed)
    for item in batch:
        yield [next(results) for _ in item.endings]


def _lanes(engine: Engine, batch: list[Item], sequences: list[int]) -> list[_Lane]:
    """Feed the contexts except their last tokens, and return a lane for each ending; append to ``sequences``."""
    for _ in batch:
        sequences.append(engine.new_sequence())
    long = [(sequence, item.context[:-1]) for sequence, item in zip(sequences, batch, strict=True) if item.context[1:]]
    if long:
        engine.forward([sequence for sequence, _ in long], [context for _, context in long], "none")
    lanes = []
    for root, item in zip(tuple(sequences), batch, strict=True):
        for number, ending in enumerate(item.endings):
            sequence = root
            if number < len(item.endings) - 1:
                sequence = engine.fork_sequence(root)
                sequences.append(sequence)
            lanes.append(_Lane(sequence, [item.context[-1], *ending[:-1]], list(ending)))
    return lanes


def _calls(lengths: list[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut lanes into calls of at most :data:`LOGIT_ROWS` rows; yield (lane, start, end) for the parts of each call."""
    parts: list[tuple[int, int, int]] = []
    room = LOGIT_ROWS
    for number, length in enumerate(lengths):
        start = 0
        while start < length:
            end = min(length, start + room)
            parts.append((number, start, end))
            room -= end - start
            start = end
            if not room:
                yield parts
                parts, room = [], LOGIT_ROWS
    if parts:
        yield parts


def _logprob(row: npt.NDArray[np.float32], target: int) -> float:
    """Return log softmax(row)[target]; overwrite ``row``, because a copy would fill a processor's cache."""
    largest, chosen = float(row.max()), float(row[target])
    np.subtract(row, np.float32(largest), out=row)
    np.exp(row, out=row)
    with suppress(ValueError):  # NaN and infinite logits
        return chosen - largest - math.log(float(row.sum()))
    return math.nan


def _likeliest_without(row: npt.NDArray[np.float32], banned: npt.NDArray[np.int64]) -> int:
    row = row.copy()
    row[banned] = -np.inf
    return int(row.argmax())
