"""Figures that describe a handful of samples: surprise, variety, repetition, copying, made-up words.

Each is an average over the tokens, n-grams or words of all samples of a setting together, except copying, which is the
longest run. None stands for an undefined figure: no tokens, no n-grams, or nothing to compare with.
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
    """The figures of one setting's samples.

    Attributes:
        n_tokens: the number of tokens in all samples.
        surprisal: the mean of minus the log-probability of a token under the unmodified model, in nats.
        entropy: the mean entropy of the unmodified model's distributions, in nats.
        drawn_entropy: the mean entropy after all stages of sampling, in nats: the part left to chance.
        distinct: the share of distinct ones among a sample's single tokens, pairs and triples (distinct-1, -2, -3).
        repeated: the share of runs of four tokens that occurred before in the same sample (1 - distinct-4).
        copied: the longest run of words that the training text contains too.
        unknown_words: the share of words that the dictionary lacks.
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
    """Compute the figures of samples from the ``readings``, ``texts`` and copied ``runs`` of words of each."""
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
    """Return the mean; None if there are no values."""
    return sum(values) / len(values) if values else None


def distinct(samples: Sequence[Sequence[int]], n: int) -> float | None:
    """Return distinct n-grams within each sample over all n-grams, 1 if nothing occurs twice; None without n-grams.

    Samples that are alike do not count against each other, as they would in Li et al. 2016.
    """
    grams = [[tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)] for ids in samples]
    total = sum(map(len, grams))
    return sum(len(set(each)) for each in grams) / total if total else None


def unknown_words(texts: Sequence[str], known: Set[str]) -> float | None:
    """Return the share of the words of ``texts`` that are not in ``known``; None if there are no words."""
    words = [word for text in texts for word in words_of(text)]
    return sum(word not in known for word in words) / len(words) if words else None
