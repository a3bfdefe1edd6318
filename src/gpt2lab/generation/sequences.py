"""The engine's sequences: how they begin and end, and which lane of a scheduler has which.

Here each begins empty and is freed at its end. In :mod:`~gpt2lab.generation.kept` it begins with what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.generation.requests import Lane, PromptLane, SampleLane

DEFAULT_BYTES = 256_000_000
"""Bytes of kept keys and values where texts are usually continued: in the server and in ``gpt2lab interactive``."""

T = TypeVar("T")


class Begun(NamedTuple):
    """A new sequence."""

    sequence: int
    known: int
    """The number of tokens that it holds already."""


class Sequences:
    """The sequences of ``engine``: callers get them from here and hand them back here."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, tokens: Sequence[int], client: Hashable = None) -> Begun:
        """Return a new sequence that holds the longest known prefix of ``tokens``.

        Only texts of the same ``client`` are known.
        """
        return Begun(self._engine.new_sequence(), 0)

    def begin_edited(self, edits: Sequence[Edit]) -> Begun:
        """Return a new sequence with ``edits``. It is empty, since known texts were computed without them."""
        sequence = self._engine.new_sequence()
        self._engine.edit_sequence(sequence, edits)
        return Begun(sequence, 0)

    def fork(self, sequence: int, n_tokens: int) -> int:
        """Return a copy of a sequence that holds ``n_tokens``."""
        return self._engine.fork_sequence(sequence)

    def share(self, sequence: int, tokens: Sequence[int], client: Hashable = None) -> None:
        """Let later sequences begin like this one, which begins with ``tokens``; its caller continues to use it."""

    def end(self, sequence: int, tokens: Sequence[int], client: Hashable = None) -> None:
        """Take a sequence that begins with ``tokens`` from a caller that needs it no longer."""
        self.free(sequence)

    def free(self, sequence: int) -> None:
        """Free a caller's sequence, without a lock: the end of an abandoned generator may call this anywhere."""
        self._engine.free_sequence(sequence)

    def relieved(self, call: Callable[[], T]) -> T:
        """Return ``call()``; if memory does not suffice for it, try to find some.

        ``call`` must have no effect if it raises MemoryError; an engine's methods have none.
        """
        return call()


class LaneSequences:
    """The sequences of one scheduler's lanes, until :meth:`close`."""

    def __init__(self, sequences: Sequences) -> None:
        self._all = sequences
        self._owned: set[int] = set()

    def open(self, lane: Lane) -> int:
        """Return the sequence of a lane. If it has none, it gets one that holds as much of its text as is kept."""
        if lane.sequence is None:
            edits = lane.edits
            begun = self._all.begin_edited(edits) if edits else self._all.begin(lane.before, lane.client)
            lane.sequence, lane.known = begun
            self._owned.add(lane.sequence)
            lane.fed = lane.start + lane.known
        return lane.sequence

    def hand_on(self, prompt: PromptLane, sample: SampleLane) -> None:
        """Let ``sample`` continue the sequence of its prompt, or a copy while other samples need it."""
        sample.known = prompt.known
        if prompt.unstarted == 1:
            sample.sequence, prompt.sequence = prompt.sequence, None
        elif prompt.sequence is not None:
            sample.sequence = self._all.fork(prompt.sequence, prompt.fed)
            self._owned.add(sample.sequence)
        sample.fed = sample.start + prompt.fed

    def share(self, sample: SampleLane) -> None:
        """Keep the prompt of a sample that goes on, unless it has edits."""
        if sample.sequence is not None and not sample.edits:
            prompt = sample.text[sample.start : len(sample.request.prompt)]
            self._all.share(sample.sequence, prompt, sample.client)

    def keep(self, lane: Lane) -> None:
        """Hand over the sequence of a lane that ends; free one with edits."""
        if lane.edits:
            self.free(lane)
        elif lane.sequence is not None:
            self._owned.discard(lane.sequence)
            held = lane.before[: lane.fed - lane.start]  # its sequence may also hold wrong guesses
            self._all.end(lane.sequence, held, lane.client)
            lane.sequence = None

    def free(self, lane: Lane) -> None:
        """Free the sequence of a lane."""
        if lane.sequence is not None:
            self._owned.discard(lane.sequence)
            self._all.free(lane.sequence)
            lane.sequence = None

    def close(self) -> None:
        """Free all sequences."""
        while self._owned:
            self._all.free(self._owned.pop())
