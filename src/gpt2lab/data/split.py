"""Split documents into those to train on and those held out for validation. Copies no tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import END_OF_TEXT
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, span_places
from gpt2lab.errors import UsageError

COMBINE = 50_000
"""The number of characters at which a chunk of combined documents is full, as in the original ``train.py``."""


def hold_out(
    documents: Documents, fraction: float, seed: int, *, separator: int | None = END_OF_TEXT, combine: int = COMBINE
) -> tuple[Ring, Ring | None]:
    """Split into a ring to train on and a held-out ring, which is None if nothing would be held out.

    Whole documents are held out, in seeded order, up to ``fraction`` of all tokens. If they make up less than half of
    that, because the other documents are too long, the end of a training document supplies the rest. ``combine``: see
    :func:`chunk_starts`. Raises :class:`UsageError` if ``fraction`` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"held_out must be at least 0 and below 1 (a share of the tokens), got {fraction}")
    if not len(documents):
        raise UsageError("the dataset is empty: there is no text in it")
    lengths = documents.lengths
    order = np.random.default_rng(seed).permutation(len(documents))
    room = int(fraction * len(documents.tokens))
    aside, left = _choose(lengths[order], room)
    begins, ends = documents.starts[order], (documents.starts + lengths)[order]
    train, out = np.flatnonzero(~aside), np.flatnonzero(aside)
    if 2 * left <= room:
        held_out = _ring(documents, order[out], begins[out], ends[out], separator, combine) if len(out) else None
    else:  # too little: add the end of a training document, each of which is longer than the room left
        last = train[-1]
        cut = ends[last] - left
        held_out = Ring(documents, np.append(begins[out], cut), np.append(ends[out], ends[last]), separator)
        ends[last] = cut
    return _ring(documents, order[train], begins[train], ends[train], separator, combine), held_out


def _choose(lengths: NDArray[np.int64], room: int) -> tuple[NDArray[np.bool_], int]:
    """Return which documents fit into ``room`` tokens, chosen in order, and the room left."""
    chosen = np.zeros(len(lengths), dtype=bool)
    shortest = lengths.min()
    for index, length in enumerate(lengths):
        if room < shortest:
            break
        if length <= room:
            chosen[index] = True
            room -= int(length)
    return chosen, room


def _ring(
    documents: Documents,
    order: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    separator: int | None,
    combine: int,
) -> Ring:
    """Build a ring of the documents ``order``, with chunks of ``combine`` characters if their lengths are known."""
    if documents.characters is None:
        return Ring(documents, begins, ends, separator)
    first = chunk_starts(documents.characters[order], combine)
    at = span_places(begins, ends, separator)
    return Ring(documents, begins, ends, separator, np.append(at[first], at[-1]))


def chunk_starts(characters: NDArray[np.int64], combine: int) -> NDArray[np.int64]:
    """Return the documents that begin a chunk, by index: a chunk ends once it has ``combine`` characters."""
    total = np.cumsum(characters)
    firsts = [0]
    while True:
        before = total[firsts[-1]] - characters[firsts[-1]]
        after = int(np.searchsorted(total, before + combine)) + 1
        if after >= len(characters):
            return np.asarray(firsts, dtype=np.int64)
        firsts.append(after)
