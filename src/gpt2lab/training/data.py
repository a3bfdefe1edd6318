"""Text files in, batches of token windows out.

A file is a document. Documents are shuffled, a part is held out whole, the rest is strung together with the real
id of ``<|endoftext|>`` before each and after the last. Every epoch cuts that ring of tokens at another seeded place
into windows and shuffles them; which windows a batch holds depends on (seed, number of windows before it) alone, so
that number is all there is to resume. Knows nothing of models.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt2lab.config import END_OF_TEXT
from gpt2lab.errors import UsageError

Tokens = NDArray[np.int32]


def find_files(paths: Sequence[str]) -> list[Path]:
    """The files that ``paths`` (files, folders searched for ``*.txt``, or glob patterns) stand for, sorted, each once.

    Raises :class:`UsageError` for a path that stands for nothing.
    """
    found: set[Path] = set()
    for path in paths:
        pattern = path
        if Path(path).exists():  # then its name is no pattern, whatever characters it has
            pattern = glob.escape(path) + ("/**/*.txt" if Path(path).is_dir() else "")
        files = [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]  # noqa: PTH207
        if not files:
            raise UsageError(f"no text files at {path}: give a file, a folder with .txt files, or a pattern")
        found.update(files)
    return sorted(found)


def read_documents(files: Sequence[Path], encode: Callable[[str], Sequence[int]]) -> list[Tokens]:
    """The token ids of each file (UTF-8). Empty ones are left out.

    Raises :class:`UsageError` for a file that cannot be read or is not UTF-8 text, or if nothing is left.
    """
    documents = []
    for file in files:
        try:
            ids = encode(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is not UTF-8 text (byte {error.start})") from error
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}") from error
        if ids:
            documents.append(np.asarray(ids, dtype=np.int32))
    if not documents:
        raise UsageError("the dataset is empty: nothing but blank files")
    return documents


def hold_out(documents: Sequence[Tokens], fraction: float, seed: int) -> tuple[list[Tokens], list[Tokens]]:
    """Split into (to train on, held out): whole documents in seeded order until ``fraction`` of all tokens is out.

    If even the shortest document is more than that, the end of the last one is held out instead.
    """
    order = np.random.default_rng(seed).permutation(len(documents))
    room = int(fraction * sum(map(len, documents)))
    train, held_out = [], []
    for index in order:
        document = documents[index]
        if len(document) <= room:
            held_out.append(document)
            room -= len(document)
        else:
            train.append(document)
    if room > 0 and not held_out:
        train[-1], tail = train[-1][:-room], train[-1][-room:]
        held_out.append(tail)
    return train, held_out


def join(documents: Sequence[Tokens], separator: int = END_OF_TEXT) -> Tokens:
    """All documents in one row of ids, ``separator`` before each; the row's end meets its beginning."""
    mark = np.asarray([separator], dtype=np.int32)
    return np.concatenate([part for document in documents for part in (mark, document)])


@dataclass(frozen=True)
class Windows:
    """Windows of ``length + 1`` tokens (``length`` inputs and their targets) from a ring of tokens, in seeded order.

    ``position`` counts windows since the start of training. An epoch is ``len(self)`` of them and shows every token
    as a target once, but for a remainder shorter than a window, which is another one each epoch.
    """

    tokens: Tokens
    length: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.tokens) <= self.length:
            raise UsageError(
                f"a training or held-out part of {len(self.tokens)} tokens is smaller than one window of "
                f"{self.length} + 1: give more text, a smaller n_ctx, or another part to hold out"
            )

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def starts(self, epoch: int) -> NDArray[np.int64]:
        """Where the windows of an epoch start, int64 [len(self)], in the order of training."""
        random = np.random.default_rng([self.seed, epoch])
        offset = int(random.integers(self.length))
        starts: NDArray[np.int64] = offset + self.length * random.permutation(len(self))
        return starts

    def batch(self, position: int, size: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 [size, length] each, of the ``size`` windows from ``position`` on."""
        starts = [self.starts(p // len(self))[p % len(self)] for p in range(position, position + size)]
        return self._cut(np.asarray(starts))

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All windows once from the front, ``size`` at a time: for validation."""
        for first in range(0, len(self), size):
            yield self._cut(self.length * np.arange(first, min(first + size, len(self))))

    def _cut(self, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        places = starts[:, None] + np.arange(self.length + 1)  # [size, length + 1]
        window = torch.from_numpy(self.tokens.take(places, mode="wrap").astype(np.int64))
        return window[:, :-1], window[:, 1:]
