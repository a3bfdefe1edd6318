"""The scheduler's input, its output, and its records of a running sample."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.engines.protocol import Draw

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.errors import StageError
    from gpt2lab.generation.speculation import Guesser
    from gpt2lab.sampling import SamplingParams
    from gpt2lab.sampling.custom import CustomStage


class Request(NamedTuple):
    """A request for one sample."""

    prompt: tuple[int, ...]
    """Ids that come before the first draw; at least one."""
    params: SamplingParams
    seed: int
    stream: int
    """Number of the random stream of ``seed``."""
    limit: int
    """The most tokens to draw; at least 1."""
    slide: bool = False
    """Whether text may outgrow the context; see :func:`~gpt2lab.generation.window.window_start`."""
    implicit: int = 0
    """The number of ids at the start of ``prompt`` that are not text: penalties do not count them."""
    top: int = 0
    """The number of likeliest ids that events carry."""
    stages: tuple[CustomStage, ...] = ()
    """The user's own sampling stages."""
    early: SamplingParams | None = None
    """The parameters of the first ``n_early`` draws, if these have others."""
    n_early: int = 0
    edits: tuple[Edit, ...] = ()
    """Changes of activations in its sequence, from the first token on. Samples with the same tuple share prompts."""


class Event(NamedTuple):
    """One drawn token; or -1 for no token, with the error of a stage, which ends the sample."""

    request: int
    """The number that :meth:`Scheduler.submit` returned."""
    token: int
    logprob: float
    """Natural log-probability under softmax(logits), before any filter."""
    last: bool
    """Whether the sample ends with this token because its limit is reached."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids and their log-probabilities, if requested."""
    error: StageError | None = None


@dataclass(eq=False, slots=True)
class Lane:
    """A text and the engine sequence that holds ``text[start:fed]``; the sequence is None until something is fed."""

    text: list[int]
    start: int = 0
    fed: int = 0
    sequence: int | None = None
    client: Hashable = None
    """The client whose kept prompts it may continue."""
    known: int = 0
    """The number of tokens that its sequence held from the beginning."""
    edits: tuple[Edit, ...] = ()
    """The edits of its sequence."""

    @property
    def before(self) -> list[int]:
        """The tokens that its context holds before its next draw can be made."""
        return self.text[self.start :]

    def draw_after(self, n_tokens: int) -> Draw | None:
        """Return how to draw after feeding ``n_tokens`` more; None if nothing is to be drawn then."""
        return None


@dataclass(eq=False, slots=True)
class PromptLane(Lane):
    """The part that samples with the same prompt share: all but its last token, which each sample feeds itself."""

    key: tuple[Hashable, tuple[Edit, ...], tuple[int, ...]] = (None, (), ())
    """The client, the edits, and the part of the prompt that the context holds, with its last token."""
    unstarted: int = 0
    """The number of submitted samples that have not started from it yet."""
    running: int = 0
    """The number of admitted samples that have started or will start from it."""


@dataclass(eq=False, slots=True, kw_only=True)
class SampleLane(Lane):
    """A sample that waits or runs."""

    id: int
    request: Request
    end: int
    """Length of ``text`` at which the sample ends."""
    reserve: int
    """The most tokens of KV cache that it may need beyond its prompt's."""
    history: array[int] | None
    """The text so far, if a penalty or a custom stage needs it."""
    prompt: PromptLane
    share: Share
    """The samples of its owner."""
    held: bool = False
    """Whether its reservation counts: it runs, or it is paused and keeps its sequence."""
    started: bool = False
    guesser: Guesser | None = None

    @property
    def before(self) -> list[int]:
        """All tokens in its context but the last, which must be fed for the logits after it."""
        return self.text[self.start : -1]

    @property
    def draws_early(self) -> bool:
        """Whether its next draw uses the request's ``early`` parameters."""
        return bool(self.request.n_early) and self.n_early_left > 0

    @property
    def n_early_left(self) -> int:
        """The number of draws that are still to be made with the request's ``early`` parameters, if positive."""
        return len(self.request.prompt) + self.request.n_early - len(self.text)

    def draw_after(self, n_tokens: int) -> Draw | None:
        """Return how to draw its next token, if feeding ``n_tokens`` more completes its text."""
        if self.fed + n_tokens < len(self.text):
            return None
        asked, history = self.request, self.history or ()
        params = asked.early if asked.early and self.draws_early else asked.params
        return Draw(params, asked.seed, asked.stream, len(self.text), history, top=asked.top, stages=asked.stages)


@dataclass(eq=False, slots=True)
class Share:
    """The samples of one owner."""

    owner: Hashable
    waiting: deque[SampleLane] = field(default_factory=deque)
    """Samples that wait, next one first. Paused samples come before those that have never run."""
    running: list[SampleLane] = field(default_factory=list)
    """Samples that run, in the order of their admission."""
    fed: int = 0
    """The number of the last step that fed prompts of this owner."""

    def outnumbers(self, other: Share) -> bool:
        """Return whether one sample of this share should pause for one of ``other``'s."""
        return len(self.running) > len(other.running) + 1
