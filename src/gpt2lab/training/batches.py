"""The batches that one process reads: its share of every update's windows, a batch at a time.

The windows and the noise in them depend only on the position in the text (and the seed), so a resumed run reads what it
would have read without the interruption. This module knows nothing of models.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from gpt2lab.data.windows import Batch, Windows
from gpt2lab.training.distributed import World
from gpt2lab.training.settings import Settings


class Batches:
    """The batches of a process's updates.

    Raises :class:`~gpt2lab.errors.UsageError` if the processes cannot share the windows of an update equally.
    """

    def __init__(self, windows: Windows, settings: Settings, world: World, n_vocab: int) -> None:
        self._windows, self._settings, self._n_vocab = windows, settings, n_vocab
        self._share = world.share(settings.windows_per_update)
        self._offset = world.rank * self._share

    def of_update(self, position: int) -> Iterator[Batch]:
        """Yield this process's share of the update that begins at window ``position``, up to ``batch_size`` at once."""
        first, batch_size = position + self._offset, self._settings.batch_size
        for at in range(first, first + self._share, batch_size):
            size = min(batch_size, first + self._share - at)
            yield self._noisy(self._windows.batch(at, size), at)

    def _noisy(self, batch: Batch, position: int) -> Batch:
        """Return ``batch`` with some input tokens replaced at random, as the original's ``--noise``; targets stay."""
        if not self._settings.noise:
            return batch
        tokens = batch.tokens.copy()
        for number, window in enumerate(tokens):
            random = np.random.default_rng([self._settings.seed, 1, position + number])
            replaced = random.random(len(window)) < self._settings.noise
            window[replaced] = random.integers(self._n_vocab, size=int(replaced.sum()))
        return Batch(tokens, batch.targets, batch.trained)


def fingerprint(windows: Windows, count: int) -> list[int]:
    """Return CRC-32, length and number of the (at most ``count``) windows that a validation reads, ready for JSON."""
    crc = number = 0
    for window in windows.in_order(1, count):
        for part in (window.tokens, window.targets, window.trained):
            crc = zlib.crc32(np.ascontiguousarray(part).view("u1").data, crc)
        number += 1
    return [crc, windows.length, number]


def seed_of(seed: int, step: int, rank: int) -> int:
    """Return the seed for everything random in an update of a process, so that no generator's state needs saving."""
    sequence = np.random.SeedSequence([seed, step, rank])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
