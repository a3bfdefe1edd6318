"""The loop that runs plans: ids that the scheduler draws become pieces of text, and text ends samples."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from gpt2lab.generation.completion import Completion, Piece
from gpt2lab.generation.plan import make_request, transcript_of
from gpt2lab.generation.requests import Event, Request
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.errors import StageError
    from gpt2lab.generation.options import Options
    from gpt2lab.generation.plan import Plan
    from gpt2lab.generation.sequences import Sequences
    from gpt2lab.tokenizer import Tokenizer

LOOKAHEAD = 1024
"""The most requests that wait in the scheduler at a time; equal prompts among them are fed once."""


def generate_pieces(
    engine: Engine,
    tokenizer: Tokenizer | None,
    plans: Sequence[Plan],
    n: int | None,
    options: Options,
    first_index: int = 0,
    draft: Engine | None = None,
    sequences: Sequences | None = None,
) -> Generator[Piece, None, None]:
    """Run ``n`` samples of every plan (None: endless samples of the only plan) and yield a piece for each token drawn.

    Pieces of samples that run together are interleaved. ``draft`` is a smaller model that guesses tokens ahead.
    Everything that the engines hold is freed when the iterator ends or is closed, except what ``sequences`` keep.
    """
    wanted = zip(count(first_index), _repeat(plans, n))
    speculation = Speculation(engine.config, draft) if options.speculation == "auto" else None
    with Scheduler(engine, batch_size=options.batch_size, speculation=speculation, sequences=sequences) as scheduler:
        running: Running[_Sample] = Running(scheduler)
        more = True
        while more or scheduler.busy:
            while more and scheduler.n_waiting < LOOKAHEAD:
                index, plan = next(wanted, (0, None))
                more = plan is not None
                if plan is not None and plan.limit:
                    running.submit(make_request(plan, index, options), _Sample(index, plan, options, tokenizer))
                elif plan is not None:
                    yield _Sample(index, plan, options, tokenizer).end("")
            for _, piece in running.push(scheduler.step()):
                yield piece


class Taker(Protocol):
    """Takes the tokens of one sample as they are drawn."""

    @property
    def ended(self) -> bool:
        """Whether the sample ended with the last event taken."""

    def push(self, event: Event) -> Any:
        """Take an event and return the output that it produces."""


TakerT = TypeVar("TakerT", bound=Taker)


class Running(Generic[TakerT]):
    """The samples of ``scheduler`` that have not ended, and the ``takers`` of their tokens, by sample number."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.takers: dict[int, TakerT] = {}
        self._scheduler = scheduler

    def submit(self, request: Request, taker: TakerT, owner: Hashable = None, client: Hashable = None) -> int:
        """Queue a sample of ``owner``, on behalf of ``client``, and return its number."""
        id = self._scheduler.submit(request, owner, client)
        self.takers[id] = taker
        return id

    def push(self, events: Iterable[Event]) -> Iterator[tuple[TakerT, Any]]:
        """Give a step's events to their takers; yield each taker with what it returns. Ended samples are removed."""
        for event in events:
            taker = self.takers.get(event.request)
            if taker is None:
                continue  # the text ended with an earlier one of several tokens
            told = taker.push(event)
            if taker.ended:
                self.remove(event.request)
            yield taker, told

    def remove(self, id: int) -> None:
        """End a sample; do nothing if it has ended."""
        if self.takers.pop(id, None) is not None:
            self._scheduler.remove(id)


def in_order(
    pieces: Iterable[Piece], first_index: int = 0, early: dict[int, Completion] | None = None
) -> Iterator[Completion]:
    """Yield the completions among ``pieces`` by index, each as soon as all earlier ones have been yielded.

    Completions that finish too early wait in ``early``, if it is given.
    """
    done = {} if early is None else early
    for piece in pieces:
        if piece.completion:
            done[piece.index] = piece.completion
        while first_index in done:
            yield done.pop(first_index)
            first_index += 1


def texts_of(pieces: Generator[Piece, None, None]) -> Generator[str, None, None]:
    """Yield the texts of the pieces of one sample, and raise its error if it ends with one."""
    with closing(pieces):
        for piece in pieces:
            if piece.text:
                yield piece.text
            if piece.completion and piece.completion.error:
                raise piece.completion.error


def check_errors(completions: Sequence[Completion]) -> None:
    """Raise the error of the first of ``completions`` if all have one; warn the caller's caller if some have."""
    errors = [completion.error for completion in completions if completion.error]
    if errors and len(errors) == len(completions):
        raise errors[0]
    if errors:
        warnings.warn(f"{errors[0]} ({len(errors)} of {len(completions)} samples: see error)", stacklevel=3)


class _Sample:
    """A running sample: ids in, pieces out."""

    def __init__(self, index: int, plan: Plan, options: Options, tokenizer: Tokenizer | None) -> None:
        self._transcript = transcript_of(plan, options, tokenizer)
        self._index = index
        self._plan = plan
        self._options = options
        self._top: list[tuple[tuple[int, float], ...]] = []
        self.ended = False

    def push(self, event: Event) -> Piece:
        if event.error:
            return self.end(self._transcript.finish(), event.error)
        text = self._transcript.push(event.token, event.logprob, event.last)
        if event.top:
            self._top.append(event.top)
        return self.end(text) if event.last or self._transcript.stopped else self._piece(text, None)

    def end(self, text: str, error: StageError | None = None) -> Piece:
        """End the sample; return its last piece, with ``text`` and the whole completion."""
        self.ended = True
        script = self._transcript
        completion = Completion(
            prompt=self._plan.prompt,
            text=script.text,
            tokens=script.tokens,
            logprobs=script.logprobs if self._options.logprobs else None,
            seed=self._options.seed,
            index=self._index,
            finish_reason="error" if error else "stop" if script.stopped else self._plan.at_limit,
            top_logprobs=self._top[: len(script.tokens)] if self._options.top_logprobs else None,
            error=error,
            token_texts=script.texts if self._options.logprobs else None,
        )
        return self._piece(text, completion)

    def _piece(self, text: str, completion: Completion | None) -> Piece:
        return Piece(self._index, self._plan.prompt, text, completion)


def _repeat(plans: Sequence[Plan], n: int | None) -> Iterator[Plan]:
    if n is not None:
        return (plan for plan in plans for _ in range(n))
    (plan,) = plans
    return iter(lambda: plan, None)
