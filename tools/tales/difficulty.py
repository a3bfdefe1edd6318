"""How simple the language of a text is: letters a word, words a sentence, and rare words.

The difficulty of a text among others is the mean of three z-scores, one for each of these numbers. A word is rare if it
is not among the most frequent 3,000 of all the texts. This module knows nothing of books or files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FREQUENT = 3000  # words


def measures(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return letters a word, words a sentence, and the share of rare words of each text, float64 [n, 3]."""
    words = [re.findall(r"[a-z']+", text.lower()) for text in texts]
    counts: Counter[str] = Counter()
    for each in words:
        counts.update(each)
    frequent = {word for word, _ in counts.most_common(FREQUENT)}
    rows = []
    for text, each in zip(texts, words, strict=True):
        sentences = len(re.findall(r"[.!?]+", text)) or 1
        rare = sum(word not in frequent for word in each)
        rows.append([sum(map(len, each)) / len(each), len(each) / sentences, rare / len(each)])
    return np.asarray(rows)


def difficulty(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean z-score of each row of :func:`measures`, float64 [n]; lower is simpler."""
    clipped = np.minimum(table, np.quantile(table, 0.99, axis=0))  # a list without full stops is one long sentence
    scores: NDArray[np.float64] = ((clipped - clipped.mean(0)) / np.maximum(clipped.std(0), 1e-9)).mean(1)
    return scores
