"""The engine's sequences of a scheduler's lanes: they begin with what is kept, and are kept when their lanes end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.generation.kept import KeptPrompts
    from gpt2lab.generation.requests import Lane, PromptLane, SampleLane


class LaneSequences:
    """The sequences in ``engine`` of one scheduler's lanes, until :meth:`close`."""

    def __init__(self, engine: Engine, kept: KeptPrompts) -> None:
        self._engine = engine
        self._kept = kept
        self._owned: set[int] = set()

    def open(self, lane: Lane) -> int:
        """Return the sequence of a lane. If it has none, it gets one that holds as much of its text as is kept."""
        if lane.sequence is None:
            lane.sequence, lane.known = self._kept.begin(lane.before, lane.given - lane.start, lane.client)
            self._owned.add(lane.sequence)
            lane.fed = lane.start + lane.known
        return lane.sequence

    def hand_on(self, prompt: PromptLane, sample: SampleLane) -> None:
        """Let ``sample`` continue the sequence of its prompt, or a copy while other samples need it."""
        sample.known = prompt.known
        if prompt.unstarted == 1:
            sample.sequence, prompt.sequence = prompt.sequence, None
        elif prompt.sequence is not None:
            sample.sequence = self._kept.fork(prompt.sequence, prompt.fed)
            self._owned.add(sample.sequence)
        sample.fed = sample.start + prompt.fed

    def share(self, sample: SampleLane) -> None:
        """Keep the prompt of a sample that goes on."""
        if sample.sequence is not None:
            prompt = sample.text[sample.start : sample.given]
            self._kept.share(sample.sequence, prompt, len(prompt), sample.client)

    def keep(self, lane: Lane) -> None:
        """Hand over the sequence of a lane that ends."""
        if lane.sequence is not None:
            self._owned.discard(lane.sequence)
            held = lane.before[: lane.fed - lane.start]  # its sequence may also hold wrong guesses
            self._kept.end(lane.sequence, held, lane.given - lane.start, lane.client)
            lane.sequence = None

    def free(self, lane: Lane) -> None:
        """Free the sequence of a lane."""
        if lane.sequence is not None:
            self._owned.discard(lane.sequence)
            self._kept.free(lane.sequence)
            lane.sequence = None

    def close(self) -> None:
        """Free all sequences."""
        while self._owned:
            self._kept.free(self._owned.pop())
