"""Plans for prompts: a prompt's ids, how many tokens may follow, and the request that a scheduler takes.

Every possible mistake in a prompt is found here, before any work is done. This module draws nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from operator import index as as_int
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, NamedTuple, TypeGuard, cast

from gpt2lab.errors import ContextError, Gpt2LabError, TokenizerError, UsageError
from gpt2lab.generation.completion import FinishReason, Prompt, Transcript
from gpt2lab.generation.requests import Request

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.generation.options import Options
    from gpt2lab.sampling.declaration import SamplingParams
    from gpt2lab.tokenizer import Tokenizer


OR_SLIDE = ", or let the context slide (--overflow slide, in Python overflow='slide')"
"""The end of the error for a full context. Callers that offer no sliding leave it out."""


class Plan(NamedTuple):
    """The work to do for one prompt."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Ids to feed: the prompt's, or the id that starts a text if the prompt is empty."""
    implicit: int
    """1 if the first of ``tokens`` is not part of the text."""
    limit: int
    """The most tokens to draw."""
    at_limit: FinishReason
    """The finish reason of a sample that reaches ``limit``."""
    ends: frozenset[int] = frozenset()
    """Ids that end a sample."""


def make_plans(
    prompts: Sequence[Prompt],
    options: Options,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    eos: Collection[int] | None = None,
) -> list[Plan]:
    """Plan several prompts. Raises as :func:`make_plan` does, with the number of the prompt."""
    plans = []
    for number, prompt in enumerate(prompts, 1):
        with naming_prompt(number, len(prompts)):
            plans.append(make_plan(prompt, options, config, tokenizer, eos))
    return plans


def make_plan(
    prompt: Prompt,
    options: Options,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    eos: Collection[int] | None = None,
) -> Plan:
    """Encode ``prompt`` and determine how many tokens may follow.

    ``eos`` are the ids that end the model's texts; default: the tokenizer's.
    Raises :class:`~gpt2lab.errors.ContextError` if prompt and length do not fit the context and it may not slide.
    """
    if options.stop and tokenizer is None:
        raise UsageError("stop strings need text, but this model has no tokenizer")
    for id in (*options.sampling.logit_bias, *options.stop_token_ids):
        _check_id(id, config)
    if options.top_logprobs > config.n_vocab:
        raise UsageError(f"top_logprobs must be at most the vocabulary's {config.n_vocab}, got {options.top_logprobs}")
    tokens = prompt_tokens(
        prompt, config, tokenizer, special=options.special, add_special_tokens=options.add_special_tokens
    )
    limit, at_limit = _limit(len(tokens), options, config.n_ctx)
    if options.min_tokens > limit:
        raise UsageError(f"min_tokens must be at most the {limit} tokens that are drawn, got {options.min_tokens}")
    if eos is None:
        eos = tokenizer.eos if tokenizer else ()
    ends = frozenset(options.stop_token_ids).union(() if options.ignore_eos else eos)
    return Plan(prompt, or_start(tokens, tokenizer), int(not tokens), limit, at_limit, ends)


def make_request(plan: Plan, index: int, options: Options) -> Request:
    """Return the scheduler request for sample ``index`` of ``plan``, which draws at least one token."""
    return Request(
        plan.tokens,
        options.sampling,
        seed=options.seed,
        stream=index,
        limit=plan.limit,
        slide=options.overflow == "slide",
        implicit=plan.implicit,
        top=options.top_logprobs,
        stages=options.stages,
        early=_early(plan, options),
        n_early=options.min_tokens,
    )


def transcript_of(plan: Plan, options: Options, tokenizer: Tokenizer | None) -> Transcript:
    """Return the transcript of a sample of ``plan``, before its first token."""
    hidden = tokenizer.special_ids if tokenizer and options.skip_special_tokens else frozenset[int]()
    before = plan.tokens[plan.implicit :]
    return Transcript(tokenizer, plan.ends, options.stop, hidden=hidden, n_unstopped=options.min_tokens, after=before)


def _early(plan: Plan, options: Options) -> SamplingParams:
    """Return the parameters for the first ``min_tokens`` draws, which draw no id that ends the sample."""
    params = options.sampling
    if not options.min_tokens or not plan.ends:
        return params
    return replace(params, logit_bias={**params.logit_bias, **dict.fromkeys(plan.ends, -inf)})


def prompt_tokens(
    prompt: Prompt,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    *,
    special: bool = False,
    add_special_tokens: bool = True,
) -> tuple[int, ...]:
    """Return the ids of a prompt; the options are those of :meth:`~gpt2lab.tokenizer.Tokenizer.encode`.

    Raises :class:`~gpt2lab.errors.UsageError` for an id that the model does not have, or a text if it has no tokenizer.
    """
    if isinstance(prompt, str):
        if tokenizer is None:
            raise UsageError("this model has no tokenizer: give the prompt as token ids")
        return tuple(tokenizer.encode(prompt, special=special or None, add_special_tokens=add_special_tokens))
    if isinstance(prompt, bytes | bytearray | Mapping) or not hasattr(prompt, "__getitem__"):
        raise not_a_prompt(prompt)  # even if iterating over it gives whole numbers
    try:
        ids = tuple(as_int(id) for id in prompt)
    except TypeError:
        raise not_a_prompt(prompt) from None
    for id in ids:
        _check_id(id, config)
    return ids


def space_at_end(prompts: Sequence[Prompt]) -> str | None:
    """Return a hint if a prompt ends in a space, where a model expects a rare token; None if no prompt does."""
    number = next((n for n, prompt in enumerate(prompts, 1) if isinstance(prompt, str) and prompt.endswith(" ")), None)
    if number is None:
        return None
    which = f"prompt {number}" if len(prompts) > 1 else "the prompt"
    return f"{which} ends in a space, but GPT-2's words begin with one: leave it out for better text"


def warn_of_space(prompts: Prompt | Sequence[Prompt]) -> None:
    """Warn the caller's caller if the prompt, or one of several, ends in a space."""
    several = [prompts] if is_prompt(prompts) else cast("Sequence[Prompt]", prompts)
    if hint := space_at_end(several):
        warnings.warn(hint, stacklevel=3)


@contextmanager
def naming_prompt(number: int, count: int) -> Iterator[None]:
    """Prefix errors of the block with the prompt's number, if there are several prompts."""
    try:
        yield
    except Gpt2LabError as error:
        if count == 1:
            raise
        raise type(error)(f"prompt {number}: {error}") from None


def is_prompt(prompt: Prompt | Sequence[Prompt]) -> TypeGuard[Prompt]:
    """Return whether this is one prompt (text or ids), not a list of prompts. An empty list is a list of no prompts."""
    if isinstance(prompt, str):
        return True
    try:
        return len(prompt) > 0 and not hasattr(prompt[0], "__len__")
    except (TypeError, LookupError):  # not a sequence: a number, an iterator, a set, a dict
        raise not_a_prompt(prompt) from None


def not_a_prompt(prompt: object) -> UsageError:
    """Return the error for an object that is not a prompt, shown on one line."""
    return UsageError(f"a prompt is text or a sequence of token ids, got {short_repr(prompt)}")


def or_start(tokens: Sequence[int], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Return ``tokens`` or, if there are none, the id that starts a text: ``<|endoftext|>`` in GPT-2."""
    if tokens:
        return tuple(tokens)
    if tokenizer is None or tokenizer.start is None:
        raise TokenizerError("this model's vocabulary has no <|endoftext|> to start from: give a prompt")
    return (tokenizer.start,)


def fed_tokens(prompt: Prompt, config: ModelConfig, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Return the ids to feed for a prompt, at least one: see :func:`or_start`. Raises as :func:`prompt_tokens` does."""
    return or_start(prompt_tokens(prompt, config, tokenizer), tokenizer)


def context_tokens(
    prompt: Prompt, config: ModelConfig, tokenizer: Tokenizer | None, *, special: bool = False
) -> tuple[int, ...]:
    """Return the ids to feed for a prompt that is read as a whole.

    Raises :class:`~gpt2lab.errors.ContextError` if it does not fit the context, and as :func:`prompt_tokens` does.
    """
    tokens = prompt_tokens(prompt, config, tokenizer, special=special)
    if len(tokens) > config.n_ctx:
        raise ContextError(
            f"the prompt has {len(tokens)} tokens, more than the model's context of {config.n_ctx}: shorten it"
        )
    return or_start(tokens, tokenizer)


def opened_tokens(
    text: Prompt, config: ModelConfig, tokenizer: Tokenizer | None, *, special: bool = False
) -> list[int]:
    """Return the ids of a text to score, after the id that starts a text, ``<|endoftext|>``, if there is one.

    Raises as :func:`prompt_tokens` does.
    """
    start = [] if tokenizer is None or tokenizer.start is None else [tokenizer.start]
    tokens = prompt_tokens(text, config, tokenizer, special=special)
    if isinstance(text, str) and tokenizer and tokenizer.special.before:  # the tokenizer has begun the text itself
        return list(tokens)
    return [*start, *tokens]


def _limit(n_prompt: int, options: Options, n_ctx: int) -> tuple[int, FinishReason]:
    """Return how many tokens may follow a prompt, and the finish reason of a sample that reaches that number."""
    wanted = options.length
    if wanted is None:
        wanted = n_ctx // 2 if n_prompt else n_ctx
    room = n_ctx - n_prompt
    if wanted <= room or options.overflow == "slide":
        return wanted, "length"
    if options.length is None and room >= 0:
        return room, "context"
    if room < 0:
        what = f"the prompt has {n_prompt} tokens, more than the model's context of {n_ctx}: shorten it"
    else:
        tokens = "1 token" if n_prompt == 1 else f"{n_prompt} tokens"
        what = (
            f"after a prompt of {tokens} the model's context of {n_ctx} has room for {room}, not {wanted}: "
            "ask for fewer"
        )
    raise ContextError(what + OR_SLIDE)


def _check_id(id: int, config: ModelConfig) -> None:
    if not 0 <= id < config.n_vocab:
        raise UsageError(f"token id {id} is not in the model's vocabulary of {config.n_vocab}")
