"""Admission: which samples run, within limits on their number and on the memory of their keys and values.

:mod:`~gpt2lab.generation.shares` chooses the next share. If its sample does not fit, a sample of a larger share pauses.
While there are several shares and :data:`MANY` places, none has more than half of them: a step that computes fewer rows
takes less time, so small requests end sooner. A large one loses little: half of a large batch is nearly as fast as the
whole.

A paused sample keeps its sequence unless others need the memory. If it loses the sequence, its text is fed again later,
which gives the same numbers. This module knows nothing of engines or text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpt2lab.generation.requests import Lane, PromptLane, SampleLane, Share

if TYPE_CHECKING:
    from gpt2lab.generation.shares import Shares


MANY = 32
"""With this many places or more, no share has more than half while there are others; with fewer, no time is won."""


class Admission:
    """Up to ``max_samples`` running samples, which reserve up to ``max_tokens`` of KV cache.

    A sample that needs more than ``max_tokens`` runs alone. ``n_ctx`` is the model's context. ``free`` frees the
    sequence of a lane, if it has one.
    """

    def __init__(self, shares: Shares, max_samples: int, max_tokens: int, n_ctx: int, free: Callable[[Lane], None]):
        self.running: dict[int, SampleLane] = {}
        """The running samples by number, in the order of their admission."""
        self._shares = shares
        self._max_samples = max_samples
        self._max_tokens = max_tokens
        self._n_ctx = n_ctx
        self._free = free
        self._reserved = 0

    def admit(self) -> list[SampleLane]:
        """Let waiting samples run as long as they fit, or as larger shares can make room for them.

        Returns the samples that have a new reservation, because they have never run or have lost theirs.
        """
        admitted: list[SampleLane] = []
        most = self._max_samples
        if most >= MANY and len(self._shares) > 1:
            most //= 2
            while len((largest := self._shares.largest()).running) > most:
                del self.running[self._shares.pause(largest).id]
        while (share := self._shares.next()) and len(share.running) < most:
            needed = self._needed(share.waiting[0])
            crowded = len(self.running) >= self._max_samples
            tight = bool(needed and self._reserved) and self._reserved + needed > self._max_tokens
            if not (crowded or tight):
                sample = self._shares.admit(share)
                self.running[sample.id] = sample
                if not sample.held:
                    self._reserve(sample, needed)
                    admitted.append(sample)
            elif not crowded and (paused := self._paused(share)):  # without a free place, freeing memory would not help
                self._evict(paused)
            elif (largest := self._shares.largest()).outnumbers(share):
                del self.running[self._shares.pause(largest).id]
            else:
                break
        return admitted

    def remove(self, sample: SampleLane) -> None:
        """Forget a sample, running or waiting, and release its reservation; its sequence stays."""
        self.running.pop(sample.id, None)
        self._shares.remove(sample)
        if sample.held:
            self._release(sample)

    def clear(self) -> None:
        """Forget all samples."""
        self.running.clear()
        self._shares.clear()
        self._reserved = 0

    def _needed(self, sample: SampleLane) -> int:
        """Return the number of tokens to reserve before ``sample`` may run; 0 if it still has its reservation."""
        if sample.held:
            return 0
        return sample.reserve + (0 if sample.prompt.running else len(sample.prompt.text))

    def _reserve(self, sample: SampleLane, needed: int) -> None:
        self._reserved += needed
        sample.held = True
        sample.prompt.running += 1

    def _release(self, sample: SampleLane) -> None:
        sample.held = False
        sample.prompt.running -= 1
        self._reserved -= self._needed(sample)

    def _paused(self, share: Share) -> SampleLane | None:
        """Return the newest paused sample of another share that holds a reservation; None if there is none."""
        held = (sample for other in self._shares if other is not share for sample in other.waiting if sample.held)
        return max(held, key=lambda sample: sample.id, default=None)

    def _evict(self, sample: SampleLane) -> None:
        """Free what a paused sample holds."""
        self._release(sample)
        self._free(sample)
        if sample.started:  # it will not use the shared keys and values of its prompt again
            sample.fed = sample.start
            sample.reserve = min(sample.reserve + len(sample.prompt.text), self._n_ctx)
            sample.prompt = PromptLane([])
        elif not sample.prompt.running:
            self._free(sample.prompt)
            sample.prompt.fed = 0
