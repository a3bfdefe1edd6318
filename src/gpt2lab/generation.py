"""From prompts and options to pieces of text: the plan of a generation, and the loop that carries it out.

All that can be wrong with prompts and options is found while planning, before any work is done. The scheduler draws
ids; here they become text, and text decides when a sample ends.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count
from operator import index as as_int
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Literal, TypedDict

from gpt2lab.completion import Completion, FinishReason, Piece, Prompt, Transcript
from gpt2lab.errors import ContextError, SamplingError, TokenizerError, UsageError
from gpt2lab.sampling import SamplingParams
from gpt2lab.scheduler import Event, Request, Scheduler
from gpt2lab.speculation import Speculation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gpt2lab.config import ModelConfig
    from gpt2lab.engines import Engine
    from gpt2lab.tokenizer import Tokenizer

LOOKAHEAD = 1024
"""Requests that wait in the scheduler at a time; equal prompts among them are read once."""

OVERFLOWS = ("error", "slide")
"""What may happen when prompt and length do not fit the context."""

SPECULATIONS = ("auto", "off")
"""Whether tokens may be guessed ahead."""


class SamplingArguments(TypedDict, total=False):
    """Keyword arguments that become a :class:`~gpt2lab.sampling.SamplingParams`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]


class GenerationArguments(SamplingArguments, total=False):
    """Keyword arguments of generation, with the meanings and defaults of :class:`Options`."""

    length: int | None
    seed: int | None
    stop: str | Sequence[str]
    ignore_eos: bool
    overflow: Literal["error", "slide"]
    batch_size: int | None
    logprobs: bool | None
    top_logprobs: int
    speculation: Literal["auto", "off"]


@dataclass(frozen=True)
class Options:
    """How to generate; made and checked by :func:`make_options`."""

    sampling: SamplingParams
    seed: int
    """0 <= seed < 2**63; drawn by the system if none was given."""
    length: int | None = None
    """Tokens to draw at most; None: n_ctx without a prompt, else n_ctx // 2 or what the context has room for."""
    stop: tuple[str, ...] = ()
    """Strings that end a sample; not part of its text."""
    ignore_eos: bool = False
    """Whether ``<|endoftext|>`` is a token like any other, as it was in the original."""
    overflow: Literal["error", "slide"] = "error"
    """Whether prompt and length may outgrow the context, the older half of which is then dropped when it is full."""
    batch_size: int | None = None
    """Upper bound for samples that run together; None: chosen by the scheduler. Changes speed alone."""
    logprobs: bool | None = None
    """Whether completions carry the log-probabilities of their tokens."""
    top_logprobs: int = 0
    """How many of the likeliest ids they carry for each token."""
    speculation: Literal["auto", "off"] = "auto"
    """Whether tokens are guessed ahead where that pays. Changes speed alone."""


@dataclass(frozen=True)
class Plan:
    """What is to be done for one prompt."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Ids to feed: the prompt's, or the one that starts a text if the prompt is empty."""
    implicit: int
    """1 if the first of ``tokens`` is not part of the text."""
    limit: int
    """Tokens to draw at most."""
    at_limit: FinishReason
    """Why a sample that reaches ``limit`` has ended."""


def make_options(**arguments: Unpack[GenerationArguments]) -> Options:
    """Check keyword arguments of generation and fill in the defaults.

    Raises :class:`~gpt2lab.errors.SamplingError` or :class:`~gpt2lab.errors.UsageError`.
    """
    check_names(arguments, GenerationArguments)
    stop = arguments.get("stop", ())
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop must be a string or several, got {stop!r}")
    options = Options(
        sampling=sampling_params(arguments),
        seed=_seed(arguments.get("seed")),
        length=_whole_or_none("length", arguments.get("length"), least=0),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=arguments.get("ignore_eos", False),
        overflow=arguments.get("overflow", "error"),
        batch_size=_whole_or_none("batch_size", arguments.get("batch_size"), least=1),
        logprobs=arguments.get("logprobs"),
        top_logprobs=whole("top_logprobs", arguments.get("top_logprobs", 0), least=0),
        speculation=arguments.get("speculation", "auto"),
    )
    if not all(isinstance(stop, str) and stop for stop in options.stop):
        raise UsageError(f"stop strings must be text and not empty, got {list(options.stop)!r}")
    for name, choices in (("overflow", OVERFLOWS), ("speculation", SPECULATIONS)):
        if getattr(options, name) not in choices:
            raise UsageError(f"{name} must be one of {', '.join(choices)}, got {getattr(options, name)!r}")
    return options


def check_names(arguments: Mapping[str, object], known: type) -> None:
    """Raise TypeError, as Python does for its functions, for a keyword that the TypedDict ``known`` does not have."""
    for name in arguments:
        if name not in known.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}")


def new_seed() -> int:
    """A seed from the system's randomness; of 32 bits only, because it is to be read and typed again."""
    return int.from_bytes(os.urandom(4), "little")


def sampling_params(arguments: SamplingArguments) -> SamplingParams:
    """The :class:`~gpt2lab.sampling.SamplingParams` among keyword arguments; others are left alone."""
    given: Mapping[str, object] = arguments
    return SamplingParams(**{f.name: given[f.name] for f in fields(SamplingParams) if f.name in given})  # type: ignore[arg-type]


def prompt_tokens(prompt: Prompt, config: ModelConfig, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Ids of a prompt. Raises :class:`~gpt2lab.errors.UsageError` for ids that the model does not have, or text
    where it has no tokenizer."""
    if isinstance(prompt, str):
        if tokenizer is None:
            raise UsageError("this model has no tokenizer: give the prompt as token ids")
        return tuple(tokenizer.encode(prompt))
    if isinstance(prompt, bytes | bytearray | Mapping) or not hasattr(prompt, "__getitem__"):
        raise not_a_prompt(prompt)  # though it may give whole numbers
    try:
        ids = tuple(as_int(id) for id in prompt)
    except TypeError:
        raise not_a_prompt(prompt) from None
    for id in ids:
        _check_id(id, config)
    return ids


def not_a_prompt(prompt: object) -> UsageError:
    """The complaint about what is no prompt, shortened to a line."""
    return UsageError(f"a prompt is text or a sequence of token ids, got {short_repr(prompt)}")


def start_token(tokenizer: Tokenizer | None) -> int:
    """The id that comes before a text: ``<|endoftext|>``."""
    if tokenizer is None or tokenizer.end_of_text is None:
        raise TokenizerError("this model's vocabulary has no <|endoftext|> to start from: give a prompt")
    return tokenizer.end_of_text


def make_plan(prompt: Prompt, options: Options, config: ModelConfig, tokenizer: Tokenizer | None) -> Plan:
    """Encode ``prompt`` and settle how many tokens may follow.

    Raises :class:`~gpt2lab.errors.ContextError` if prompt and length do not fit the context and may not slide.
    """
    if options.stop and tokenizer is None:
        raise UsageError("this model has no tokenizer: it makes no text in which a stop string could be found")
    for id in options.sampling.logit_bias:
        _check_id(id, config)
    if options.top_logprobs > config.n_vocab:
        raise UsageError(f"top_logprobs must be at most the vocabulary's {config.n_vocab}, got {options.top_logprobs}")
    tokens = prompt_tokens(prompt, config, tokenizer)
    limit, at_limit = _limit(len(tokens), options, config.n_ctx)
    if tokens:
        return Plan(prompt, tokens, 0, limit, at_limit)
    return Plan(prompt, (start_token(tokenizer),), 1, limit, at_limit)


def generate_pieces(
    engine: Engine,
    tokenizer: Tokenizer | None,
    plans: Sequence[Plan],
    n: int | None,
    options: Options,
    first_index: int = 0,
    draft: Engine | None = None,
) -> Generator[Piece, None, None]:
    """Run ``n`` samples of every plan (None: without end, of the only one) and give each token's piece as it comes.

    Pieces of samples that run together are interleaved. ``draft`` is a smaller model that guesses tokens ahead. What
    the engines hold is freed when the iterator ends or is closed.
    """
    wanted = zip(count(first_index), _repeat(plans, n))
    live: dict[int, _Sample] = {}
    speculation = Speculation(engine.config, draft) if options.speculation == "auto" else None
    with Scheduler(engine, batch_size=options.batch_size, speculation=speculation) as scheduler:
        more = True
        while more or scheduler.busy:
            while more and scheduler.n_waiting < LOOKAHEAD:
                index, plan = next(wanted, (0, None))
                more = plan is not None
                if plan is not None and plan.limit:
                    live[scheduler.submit(make_request(plan, index, options))] = _Sample(
                        index, plan, options, tokenizer
                    )
                elif plan is not None:
                    yield _Sample(index, plan, options, tokenizer).end("")
            for event in scheduler.step():
                if (sample := live.get(event.request)) is None:
                    continue  # the text ended with an earlier one of several tokens
                piece = sample.push(event)
                if piece.completion:
                    del live[event.request]
                    scheduler.remove(event.request)
                yield piece


def in_order(
    pieces: Iterable[Piece], first_index: int = 0, early: dict[int, Completion] | None = None
) -> Iterator[Completion]:
    """The completions among ``pieces``, by index, each as soon as all before it are there.

    Those that have to wait for that are in ``early`` meanwhile, if that is given.
    """
    done = {} if early is None else early
    for piece in pieces:
        if piece.completion:
            done[piece.index] = piece.completion
        while first_index in done:
            yield done.pop(first_index)
            first_index += 1


class _Sample:
    """A sample under way: ids in, pieces out."""

    def __init__(self, index: int, plan: Plan, options: Options, tokenizer: Tokenizer | None) -> None:
        end_of_text = tokenizer.end_of_text if tokenizer and not options.ignore_eos else None
        self._transcript = Transcript(tokenizer, end_of_text, options.stop)
        self._index = index
        self._plan = plan
        self._options = options
        self._top: list[tuple[tuple[int, float], ...]] = []

    def push(self, event: Event) -> Piece:
        text, last = self._transcript.push(event.token, event.logprob), event.last
        if event.top:
            self._top.append(event.top)
        if last and not self._transcript.stopped:
            text += self._transcript.finish()
        return self.end(text) if last or self._transcript.stopped else self._piece(text, None)

    def end(self, text: str) -> Piece:
        """The last piece, with ``text`` and the whole completion."""
        script = self._transcript
        completion = Completion(
            prompt=self._plan.prompt,
            text=script.text,
            tokens=script.tokens,
            logprobs=script.logprobs if self._options.logprobs else None,
            seed=self._options.seed,
            index=self._index,
            finish_reason="stop" if script.stopped else self._plan.at_limit,
            top_logprobs=self._top[: len(script.tokens)] if self._options.top_logprobs else None,
        )
        return self._piece(text, completion)

    def _piece(self, text: str, completion: Completion | None) -> Piece:
        return Piece(self._index, self._plan.prompt, text, completion)


def _limit(n_prompt: int, options: Options, n_ctx: int) -> tuple[int, FinishReason]:
    """How many tokens may follow a prompt, and why the sample ends there."""
    wanted = options.length
    if wanted is None:
        wanted = n_ctx // 2 if n_prompt else n_ctx
    room = n_ctx - n_prompt
    if wanted <= room or options.overflow == "slide":
        return wanted, "length"
    if options.length is None and room >= 0:
        return room, "context"
    if room < 0:
        what = f"the prompt has {n_prompt} tokens, the model's context {n_ctx}"
    else:
        what = f"after a prompt of {n_prompt} tokens the model's context of {n_ctx} has room for {room}, not {wanted}"
    raise ContextError(f"{what}: ask for less, or let the context slide (--overflow slide, in Python overflow='slide')")


def _check_id(id: int, config: ModelConfig) -> None:
    if not 0 <= id < config.n_vocab:
        raise UsageError(f"token id {id} is not in the model's vocabulary of {config.n_vocab}")


def _repeat(plans: Sequence[Plan], n: int | None) -> Iterator[Plan]:
    if n is not None:
        return (plan for plan in plans for _ in range(n))
    (plan,) = plans
    return iter(lambda: plan, None)


def make_request(plan: Plan, index: int, options: Options) -> Request:
    """What a scheduler is asked for: sample ``index`` of ``plan``, which draws one token at least."""
    return Request(
        plan.tokens,
        options.sampling,
        seed=options.seed,
        stream=index,
        limit=plan.limit,
        slide=options.overflow == "slide",
        implicit=plan.implicit,
        top=options.top_logprobs,
    )


def _seed(seed: int | None) -> int:
    if seed is None:
        return new_seed()
    value = whole("seed", seed, least=0)
    if value >= 2**63:
        raise SamplingError(f"seed must be below 2^63, got {seed}")
    return value


def whole(name: str, value: int, *, least: int) -> int:
    """``value`` as an int of at least ``least``; :class:`~gpt2lab.errors.UsageError` if it is none."""
    try:
        number = as_int(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {short_repr(value)}") from None
    if number < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")
    return number


def _whole_or_none(name: str, value: int | None, *, least: int) -> int | None:
    return None if value is None else whole(name, value, least=least)
