"""What a scheduler is asked for, what it hands out, and what it keeps of both while a sample runs."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.engines.protocol import Draw

if TYPE_CHECKING:
    from gpt2lab.errors import StageError
    from gpt2lab.generation.speculation import Guesser
    from gpt2lab.sampling import SamplingParams
    from gpt2lab.sampling.custom import CustomStage


@dataclass(frozen=True)
class Request:
    """One sample that is wanted."""

    prompt: tuple[int, ...]
    """Ids that come before the first draw; at least one."""
    params: SamplingParams
    seed: int
    stream: int
    """Number of the random stream of ``seed``."""
    limit: int
    """Draw this many tokens at most; at least one."""
    slide: bool = False
    """Whether text may outgrow the context; see :func:`~gpt2lab.generation.window.window_start`."""
    implicit: int = 0
    """How many ids at the start of ``prompt`` are not text: penalties do not count them."""
    top: int = 0
    """How many of the likeliest ids events carry."""
    stages: tuple[CustomStage, ...] = ()
    """Stages that are a user's own."""


class Event(NamedTuple):
    """One token that was drawn; or no token, -1, and the error of a stage, which ends the sample."""

    request: int
    """What :meth:`Scheduler.submit` returned."""
    token: int
    logprob: float
    """Natural log-probability under softmax(logits), before any filter."""
    last: bool
    """Whether the sample ended with it because its limit is reached."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids and their log-probabilities, if any were asked for."""
    error: StageError | None = None


@dataclass(eq=False, slots=True)
class Lane:
    """An engine sequence that holds ``text[start:fed]``, and is to be fed the rest; None as long as it is empty."""

    text: list[int]
    start: int = 0
    fed: int = 0
    sequence: int | None = None
    given: int = 0
    """Length of ``text`` up to which it is fed as a prompt: what was asked for, or what a full context slid to."""


@dataclass(eq=False, slots=True)
class PromptLane(Lane):
    """What samples share that start from the same prompt: all but its last token, which each of them feeds itself."""

    key: tuple[int, ...] = ()
    """The whole of what the context holds of the prompt."""
    unstarted: int = 0
    """Submitted samples that have not started from it yet."""
    running: int = 0
    """Samples let in that have started or will start from it."""


@dataclass(eq=False, slots=True, kw_only=True)
class SampleLane(Lane):
    """A sample under way."""

    id: int
    request: Request
    end: int
    """Length of ``text`` at which it ends."""
    reserve: int
    """Tokens of KV cache that it may come to need besides its prompt's."""
    history: array[int] | None
    """The text so far if a penalty or a stage of the user's asks for it."""
    prompt: PromptLane
    started: bool = False
    guesser: Guesser | None = None

    def draw(self) -> Draw:
        """How its next token is drawn."""
        asked, history = self.request, self.history or ()
        return Draw(asked.params, asked.seed, asked.stream, len(self.text), history, top=asked.top, stages=asked.stages)
