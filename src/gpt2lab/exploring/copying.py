"""Copying between texts: the longest run of words that two texts share, and the words of a text.

Texts are split only at whitespace, so line breaks do not matter. The larger text is never held as Python strings all at
once; 20 MB take a few seconds. This module knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt2lab.errors import UsageError

BLOCK = 1 << 20
"""Characters of the larger text split at a time."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A run of successive words that both texts contain."""

    n_words: int
    text: str


def read_corpus(path: str) -> Iterator[str]:
    """Yield the text of a file, or those of all ``.txt`` files in a folder, sorted by name.

    Raises :class:`~gpt2lab.errors.UsageError` for files that cannot be read as UTF-8.
    """
    root = Path(path)
    files = sorted(root.rglob("*.txt")) if root.is_dir() else [root]
    if not files:
        raise UsageError(f"{path} contains no .txt files")
    for file in files:
        try:
            yield file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is not UTF-8 text (byte {error.start})") from None


def longest_runs(texts: Sequence[str], corpus: Iterable[str]) -> list[Run]:
    """Return for each of ``texts`` its longest run of words that occurs in ``corpus`` too; ties go to the first."""
    split = [text.split() for text in texts]
    ids: dict[str, int] = {}
    for words in split:
        for word in words:
            ids.setdefault(word, len(ids) + 1)
    needle = np.array([number for words in split for number in [*(ids[word] for word in words), 0]], np.int64)
    ends = np.cumsum([len(words) + 1 for words in split])
    result = [Run(0, "") for _ in texts]
    for length, places in _common_runs(needle, _numbered(corpus, ids)):
        owners, firsts = np.unique(np.searchsorted(ends, places, side="right"), return_index=True)
        for owner, place in zip(owners.tolist(), places[firsts].tolist(), strict=True):
            start = place - (int(ends[owner - 1]) if owner else 0)
            result[owner] = Run(length, " ".join(split[owner][start : start + length]))
    return result


def words_of(text: str) -> list[str]:
    """Return the runs of letters, including inner apostrophes, in lower case."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def vocabulary(corpus: Iterable[str]) -> set[str]:
    """Return all words of the texts or word lists, as :func:`words_of` makes them."""
    known: set[str] = set()
    for text in corpus:
        for block in _blocks(text):
            known.update(words_of(block))
    return known


def _numbered(corpus: Iterable[str], ids: dict[str, int]) -> Ids:
    """Return the words of ``corpus`` as numbers; 0 for words that have none, and between two texts."""
    parts: list[Ids] = []
    for text in corpus:
        for block in _blocks(text):
            words = block.split()
            parts.append(np.fromiter((ids.get(word, 0) for word in words), np.int64, len(words)))
        parts.append(np.zeros(1, np.int64))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _blocks(text: str) -> Iterator[str]:
    """Yield ``text`` in parts of about ``BLOCK`` characters, cut at whitespace."""
    start = 0
    while start < len(text):
        end = min(start + BLOCK, len(text))
        while end < len(text) and not text[end].isspace():
            end += 1
        yield text[start:end]
        start = end


def _common_runs(needle: Ids, haystack: Ids) -> Iterator[tuple[int, Ids]]:
    """Yield for each length 1, 2, 3 … the places in ``needle`` where a common run of numbers above 0 begins.

    A run is common if ``haystack`` has it too. Runs grow one number at a time, and only from places where the shorter
    run was common: few places are left after three or four words. Each distinct run gets its own number, so nothing
    depends on hashes.
    """
    here, there = np.flatnonzero(needle), np.flatnonzero(haystack)
    names_here, names_there = needle[here], haystack[there]
    length = 0
    while True:
        common = np.isin(names_here, names_there), np.isin(names_there, names_here)
        here, names_here = here[common[0]], names_here[common[0]]
        there, names_there = there[common[1]], names_there[common[1]]
        if not len(here):
            return
        length += 1
        yield length, here
        here, names_here, next_here = _extended(here, names_here, needle, length)
        there, names_there, next_there = _extended(there, names_there, haystack, length)
        names_here, names_there = _renamed(np.stack([names_here, next_here], 1), np.stack([names_there, next_there], 1))


def _extended(places: Ids, names: Ids, text: Ids, length: int) -> tuple[Ids, Ids, Ids]:
    """Return those of ``places`` where a number follows the run of ``length``, their names, and that number."""
    following = np.append(text, 0)[places + length]
    goes_on = following > 0
    return places[goes_on], names[goes_on], following[goes_on]


def _renamed(left: Ids, right: Ids) -> tuple[Ids, Ids]:
    """Number the distinct rows ``[n, 2]`` of both arrays, with the same number for equal rows."""
    base = 1 + max(int(left.max(initial=0)), int(right.max(initial=0)))  # names and words are small: no overflow
    _, names = np.unique(np.concatenate([left @ [base, 1], right @ [base, 1]]), return_inverse=True)
    return names[: len(left)], names[len(left) :]
