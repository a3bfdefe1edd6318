"""Requests for completions: the order that a worker carries out. :mod:`~gpt2lab.serving.answers` reports its result.

Sample i of prompt p draws from random stream p · best_of + i of the seed, as everywhere in gpt2lab, so it is the text
that ``gpt2lab generate`` writes, whatever else runs in the batch.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from gpt2lab.errors import ContextError, Gpt2LabError
from gpt2lab.generation.plan import OR_SLIDE, make_request, prompt_tokens, space_at_end, transcript_of
from gpt2lab.sampling.declaration import PARAMETERS
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.logprobs import id_of, spelled
from gpt2lab.serving.prompt_scores import score_prompt
from gpt2lab.serving.samples import Sample
from gpt2lab.serving.steering import check_steer, n_steer_tokens, steer_edits
from gpt2lab.serving.worker import Full, Job

if TYPE_CHECKING:
    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.protocol import CompletionRequest
    from gpt2lab.serving.settings import Settings

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""

AT_ONCE = 1 << 13
"""The most prompt characters or ids, and characters of biased texts, of a request that the event loop plans itself.

For so little, a thread would cost more.
"""

_SAMPLING = (
    *(*PARAMETERS, "seed", "stop", "stop_token_ids", "min_tokens", "ignore_eos"),
    *("add_special_tokens", "skip_special_tokens"),
)


@dataclass
class Order:
    """A request that has passed all checks."""

    served: ServedModel
    job: Job
    n: int
    """Number of choices for each prompt."""
    best_of: int
    """Number of samples for each prompt."""
    echoes: list[str]
    """The prompts' texts if the answer repeats them, else empty strings."""
    logprobs: int | None
    spell: Callable[[int], str]
    """How the answer spells a token."""
    seed: int
    prompt_tokens: int
    steer_tokens: int = 0
    """The number of tokens that are read for steering."""
    prompt_ids: Sequence[Sequence[int]] | None = None
    """The prompts' token ids if the answer holds token ids."""
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.perf_counter)
    first_token_seconds: float | None = None
    """Seconds to the first token of a stream."""
    warnings: list[str] = field(default_factory=list)
    completion_tokens: int = 0
    """Number of tokens drawn by samples that have ended; in a stream, up to their last chunk."""

    def head(self) -> dict[str, Any]:
        """Return the fields that begin every answer and every chunk."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
            "seed": self.seed,
        }

    def token_ids(self, prompt: int | None, ids: Sequence[int]) -> dict[str, Any]:
        """Return the fields of a choice with its token ids, if they are wanted, and those of ``prompt``, if given."""
        if self.prompt_ids is None:
            return {}
        before = {} if prompt is None else {"prompt_token_ids": list(self.prompt_ids[prompt])}
        return {**before, "token_ids": list(ids)}

    def most_drawn(self) -> int:
        """Return the most tokens that its samples may draw."""
        return sum(each[0].limit for each in self.job.samples if each)

    def n_drawn(self) -> int:
        """Return the number of tokens drawn so far, also by samples that have not ended."""
        return sum(each[1].n_tokens for each in self.job.samples if each)

    def cached_tokens(self) -> int:
        """Return how many tokens of the prompts were kept when the first sample of each began."""
        return sum(self.job.known.get(first, 0) for first in range(0, len(self.job.samples), self.best_of))

    def usage(self) -> dict[str, Any]:
        """Return the counts of tokens so far."""
        total = self.prompt_tokens + self.completion_tokens
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counts, "total_tokens": total, "prompt_tokens_details": {"cached_tokens": self.cached_tokens()}}

    def costs(self) -> dict[str, Any]:
        """Return the tokens and seconds that an answer or a stream ends with, and warnings if there are any."""
        warnings = {"warnings": self.warnings} if self.warnings else {}
        return {"usage": self.usage(), "timings": self.job.times.spent(), **warnings}


async def make_order(body: CompletionRequest, served: ServedModel, settings: Settings) -> Order:
    """Check ``body`` and prepare its samples. Raises :class:`ApiError`."""
    check_request(body, settings)
    size = sum(map(len, body.prompt)) + sum(len(key) for key in body.logit_bias or () if isinstance(key, str))
    if size <= AT_ONCE and body.allowed_token_ids is None:
        return _make_order(body, served, settings)
    return await run_in_threadpool(_make_order, body, served, settings)


def check_request(body: CompletionRequest, settings: Settings) -> None:
    """Check everything about a request that needs no model. Raises :class:`ApiError`."""
    n, best_of = body.n or 1, body.best_of or body.n or 1
    if body.suffix:
        raise ApiError(400, "suffix: GPT-2 reads from left to right and cannot fill in the middle", param="suffix")
    if best_of < n:
        raise ApiError(400, f"best_of must be at least n, got {best_of} and {n}", param="best_of")
    if body.stream and best_of > n:
        raise ApiError(400, "best_of cannot be streamed: the best is only known at the end", param="best_of")
    if body.steer and body.echo and body.logprobs is not None:
        raise ApiError(400, "steer changes drawn tokens only: it cannot go with echo and logprobs", param="steer")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options need stream: true", param="stream_options")
    if best_of * len(body.prompt) > settings.max_samples:
        what = f"{len(body.prompt)} prompts × {best_of}" if len(body.prompt) > 1 else f"{best_of}"
        param = "best_of" if best_of > n else "n" if n > 1 else "prompt"
        raise ApiError(
            400, f"{param}: {what} samples exceed the limit of {settings.max_samples} for a request", param=param
        )
    if settings.max_tokens is not None and (body.max_tokens or 0) > settings.max_tokens:
        message = f"max_tokens must be at most {settings.max_tokens} on this server, got {body.max_tokens}"
        raise ApiError(400, message, param="max_tokens")
    for place, prompt in enumerate(body.prompt):
        # A character has at least one byte, so a prompt with too many characters is refused without encoding it.
        if isinstance(prompt, str) and _too_long(prompt, settings.max_prompt_bytes):
            where = f"prompt[{place}]" if len(body.prompt) > 1 else "prompt"
            message = f"{where} is longer than this server's limit of {settings.max_prompt_bytes} bytes"
            raise ApiError(400, message, param="prompt", code="string_above_max_length")


def _too_long(text: str, limit: int) -> bool:
    return len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit


def _make_order(body: CompletionRequest, served: ServedModel, settings: Settings) -> Order:
    try:
        return _planned(body, served, settings)
    except ContextError as error:
        # Clients such as LiteLLM recognise a full context by these words of OpenAI's.
        reason = str(error).removesuffix(OR_SLIDE)  # which no request can ask for
        message = f"This model's maximum context length is {served.model.config.n_ctx} tokens: {reason}"
        raise ApiError(400, message, param="prompt", code="context_length_exceeded") from None
    except Gpt2LabError as error:
        name = str(error).partition(" ")[0].rstrip(":")
        param = name if name in type(body).model_fields else "prompt"
        raise ApiError(400, f"{'' if param == name else 'prompt: '}{error}", param=param) from None


def _planned(body: CompletionRequest, served: ServedModel, settings: Settings) -> Order:
    model, tokenizer = served.model, served.tokenizer
    steer = body.steer
    if steer:
        check_steer(steer, served)
    around = body.add_special_tokens is not False
    prompts = [prompt_tokens(prompt, model.config, tokenizer, add_special_tokens=around) for prompt in body.prompt]
    texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in body.prompt]
    n_top = min(body.logprobs or 0, model.config.n_vocab)
    given = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    given["logit_bias"] = logit_biases(body, served)
    length = body.max_tokens
    if length is None:
        room = model.config.n_ctx - max(map(len, prompts))
        length = max(1, min(DEFAULT_MAX_TOKENS, room, settings.max_tokens or room))
    options, plans = model.plan(prompts, length=length, top_logprobs=n_top, **given)
    n = body.n or 1
    best_of = body.best_of or n
    as_ids = bool(body.return_tokens_as_token_ids)
    samples = []
    for number in range(len(plans) * best_of):
        plan = plans[number // best_of]
        sample = Sample(
            number,
            transcript_of(plan, options, tokenizer),
            tokenizer,
            whole=not body.stream,
            logprobs=body.logprobs is not None,
            offset=len(texts[number // best_of]),
            every_token=as_ids,
            ids=bool(body.return_token_ids),
        )
        samples.append((make_request(plan, number, options), sample) if plan.limit else None)
    scored = body.echo and body.logprobs is not None
    readings = [partial(score_prompt, model.engine, tokenizer, prompt, n_top) for prompt in prompts]
    return Order(
        served,
        Job(samples, readings if scored else (), edits=partial(steer_edits, model.engine, steer) if steer else None),
        n,
        best_of,
        texts if body.echo else [""] * len(texts),
        body.logprobs,
        id_of if as_ids else partial(spelled, tokenizer),
        options.seed,
        sum(map(len, prompts)),
        steer_tokens=n_steer_tokens(steer),
        prompt_ids=prompts if body.return_token_ids else None,
        warnings=[hint] if (hint := space_at_end(texts)) else [],
    )


def logit_biases(body: CompletionRequest, served: ServedModel) -> dict[int, float]:
    """Return the number to add to each token's logit; -inf for those that ``allowed_token_ids`` leaves out.

    Raises :class:`ApiError` for an id in ``body`` that the model does not have, and a text that is not Unicode.
    """
    n_vocab = served.model.config.n_vocab
    biases: dict[int, float] = {}
    for key, bias in body.logit_bias.items():
        try:
            ids = [key] if isinstance(key, int) else served.tokenizer.encode(key, add_special_tokens=False)
        except Gpt2LabError as error:
            raise ApiError(400, f"logit_bias: {error}", param="logit_bias") from None
        biases |= dict.fromkeys(ids, bias)
    allowed = body.allowed_token_ids
    lists = {"logit_bias": biases, "allowed_token_ids": allowed or (), "stop_token_ids": body.stop_token_ids}
    for name, named in lists.items():
        if unknown := [id for id in named if id >= n_vocab]:
            raise ApiError(400, f"{name}: there is no token {unknown[0]}; ids go up to {n_vocab - 1}", param=name)
    if allowed is not None:
        biases |= dict.fromkeys(set(range(n_vocab)).difference(allowed), -math.inf)
    return biases


def submit(order: Order) -> None:
    """Hand ``order`` to its worker. Raises as :func:`hand_over` does."""
    hand_over(order.served, order.job, order.prompt_tokens + order.steer_tokens)


def hand_over(served: ServedModel, job: Job, prompt_tokens: int) -> None:
    """Give ``job`` to its worker and count its tokens. Raises :class:`ApiError` 429 if too many samples are waiting."""
    try:
        served.worker.submit(job)
    except Full:
        served.metrics.refused.inc()
        message = f"too many samples are waiting for {served.name}: try again in a moment"
        raise ApiError(429, message, code="queue_full", headers={"Retry-After": "1"}) from None
    served.metrics.prompt_tokens.inc(prompt_tokens)
