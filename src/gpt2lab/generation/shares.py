"""Shares: the waiting and running samples of each owner, and the choice of the owner whose sample runs next.

One sample of each owner runs before a second sample of any. The caller names the owners, such as HTTP requests. Samples
of one owner start in the order in which they came. This module decides only the order; it knows nothing of engines,
memory, or how many samples may run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from gpt2lab.generation.requests import SampleLane, Share


class Shares:
    """The shares of all owners, in order of arrival; an owner none of whose samples runs any more goes to the end."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, Share] = {}
        self.n_waiting = 0
        """The number of waiting samples of all owners."""

    def __iter__(self) -> Iterator[Share]:
        return iter(self._shares.values())

    def __len__(self) -> int:
        return len(self._shares)

    def of(self, owner: Hashable) -> Share:
        """Return the share of ``owner``, which is made if there is none."""
        return self._shares.setdefault(owner, Share(owner))

    def wait(self, sample: SampleLane) -> None:
        """Let a new sample wait behind the others of its owner."""
        sample.share.waiting.append(sample)
        self.n_waiting += 1

    def next(self) -> Share | None:
        """Return the share whose turn it is; None if no sample waits.

        Of the shares with waiting samples, it has the fewest running ones; among equals, the first one.
        """
        if not self.n_waiting:
            return None
        return min((share for share in self if share.waiting), key=lambda share: len(share.running))

    def largest(self) -> Share:
        """Return the share with the most running samples; among equals, the last one."""
        return max(reversed(self._shares.values()), key=lambda share: len(share.running))

    def admit(self, share: Share) -> SampleLane:
        """Let the next sample of ``share`` run, and return it."""
        sample = share.waiting.popleft()
        share.running.append(sample)
        self.n_waiting -= 1
        return sample

    def pause(self, share: Share) -> SampleLane:
        """Move the running sample of ``share`` that has drawn the most to the front of its waiting ones, and return it.

        Among equals, it is the last one. So samples that pause in turn end at about the same time.
        """
        sample = max(reversed(share.running), key=lambda sample: len(sample.text) - len(sample.request.prompt))
        share.running.remove(sample)
        share.waiting.appendleft(sample)
        self.n_waiting += 1
        return sample

    def remove(self, sample: SampleLane) -> None:
        """Forget a sample, running or waiting."""
        share = sample.share
        if sample in share.running:
            share.running.remove(sample)
        else:
            share.waiting.remove(sample)
            self.n_waiting -= 1
        if not share.running:  # it has had its turn: where there are more owners than places, the others come first
            del self._shares[share.owner]
            if share.waiting:
                self._shares[share.owner] = share

    def clear(self) -> None:
        """Forget all samples."""
        self._shares.clear()
        self.n_waiting = 0
