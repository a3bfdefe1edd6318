"""Numbers that say how a handful of samples reads: surprise, variety, repetition, copying, made-up words.

Everything is an average over tokens, n-grams or words of all samples of a setting together, except copying, which is
the longest. None stands for what cannot be said: no tokens, no n-gram, nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.exploring.copying import Run, words_of

if TYPE_CHECKING:
    from gpt2lab.exploring.reading import Reading


@dataclass(frozen=True)
class Figures:
    """Of the samples of one setting.

    Attributes:
        n_tokens: that they have together.
        surprisal: mean of minus the log-probability of a token under the unmodified model, nats.
        entropy: mean of the unmodified model's distributions on the way, nats.
        drawn_entropy: the same of the distributions after all stages of sampling: what was left to chance, nats.
        distinct: share of different ones among a sample's single tokens, pairs and triples (distinct-1, -2, -3).
        repeated: share of runs of four tokens that stood in the same sample before (1 - distinct-4).
        copied: longest run of words that the training text has too.
        unknown_words: share of words that the dictionary does not have.
    """

    n_tokens: int
    surprisal: float | None
    entropy: float | None
    drawn_entropy: float | None
    distinct: tuple[float | None, float | None, float | None]
    repeated: float | None
    copied: Run | None = None
    unknown_words: float | None = None


def figures(
    readings: Sequence[Sequence[Reading]], texts: Sequence[str], runs: Sequence[Run] | None, known: Set[str] | None
) -> Figures:
    """The figures of samples: ``readings`` and ``texts`` of each, and what ``runs`` of words each has copied."""
    ids = [[reading.id for reading in sample] for sample in readings]
    tokens = [reading for sample in readings for reading in sample]
    drawn = [reading.drawn_entropy for reading in tokens if reading.drawn_entropy is not None]
    distinct_4 = distinct(ids, 4)
    return Figures(
        n_tokens=len(tokens),
        surprisal=mean([reading.surprisal for reading in tokens]),
        entropy=mean([reading.entropy for reading in tokens]),
        drawn_entropy=mean(drawn),
        distinct=(distinct(ids, 1), distinct(ids, 2), distinct(ids, 3)),
        repeated=None if distinct_4 is None else 1 - distinct_4,
        copied=max(runs, key=lambda run: run.n_words) if runs else None,
        unknown_words=None if known is None else unknown_words(texts, known),
    )


def mean(values: Sequence[float]) -> float | None:
    """Of no values: None."""
    return sum(values) / len(values) if values else None


def distinct(samples: Sequence[Sequence[int]], n: int) -> float | None:
    """Different n-grams within each sample, over all n-grams; None if there is none. 1: nothing occurs twice.

    Within each: samples that are alike do not count against each other, as they would in Li et al. 2016.
    """
    grams = [[tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)] for ids in samples]
    total = sum(map(len, grams))
    return sum(len(set(each)) for each in grams) / total if total else None


def unknown_words(texts: Sequence[str], known: Set[str]) -> float | None:
    """Share of the words of ``texts`` that are not in ``known``; None if they have no words."""
    words = [word for text in texts for word in words_of(text)]
    return sum(word not in known for word in words) / len(words) if words else None
