"""The next token, stage by stage down to the draw: the tokens that each stage cuts, and the number that picks one.

The stages are :mod:`gpt2lab.sampling`'s; this module measures them. This module knows nothing of how results are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.distribution import token_text
from gpt2lab.exploring.reading import Doubles, entropy, last_logits, likeliest
from gpt2lab.exploring.replay import generate_command
from gpt2lab.generation.options import new_seed, whole
from gpt2lab.generation.plan import prompt_tokens
from gpt2lab.generation.run import in_order
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import draw, stages, uniform

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.sampling.rules import Stage


@dataclass(frozen=True)
class Measured:
    """The distribution after one stage, renormalized to sum to 1.

    Attributes:
        name: the stage's name.
        kept: the number of tokens with a probability above 0.
        cut, cut_probability: the number of tokens that this stage ruled out, and their probability before it.
        entropy: the entropy in nats; e to its power is the number of equally likely tokens with the same entropy.
        logits, probabilities: those of :attr:`NextToken.shown`, in its order; the logit of a token ruled out is None.
    """

    name: str
    kept: int
    cut: int
    cut_probability: float
    entropy: float
    logits: list[float | None]
    probabilities: list[float]


@dataclass(frozen=True)
class Drawn:
    """The draw: the token whose interval of [0, 1), in order of ids, contains the number.

    Attributes:
        number: Philox's number for this seed, sample 0 and position.
        low, high: the token's interval.
        generated: the id that ``generate`` drew with this seed; it differs only if its precision differs and the
            number is close to the end of an interval.
    """

    seed: int
    position: int
    number: float
    id: int
    text: str
    probability: float
    low: float
    high: float
    generated: int
    generated_text: str
    command: str


@dataclass(frozen=True)
class Token:
    """A token to show."""

    id: int
    text: str


@dataclass(frozen=True)
class Staged:
    """The stages and the draw under one set of sampling parameters."""

    params: SamplingParams
    stages: list[Measured]
    drawn: Drawn


@dataclass(frozen=True)
class NextToken:
    """The possible tokens after ``prompt``, for each of several settings; ``shown`` are the tokens that tables list."""

    prompt: str
    n_tokens: int
    shown: list[Token]
    settings: list[Staged]


def next_token(
    model: LanguageModel,
    prompt: str,
    params: SamplingParams,
    *,
    temperatures: Sequence[float] = (),
    seed: int | None = None,
    top: int = 10,
    options: Sequence[str] = (),
) -> NextToken:
    """Return the stages of the next token under ``params``, once for each of ``temperatures`` (default: its own).

    The ``top`` likeliest tokens are shown, and the tokens drawn. ``options`` name the model in the command that
    reproduces the draw. Raises a :class:`~gpt2lab.errors.Gpt2LabError` for invalid arguments.
    """
    whole("top", top, least=1)
    seed = new_seed() if seed is None else seed
    settings = [replace(params, temperature=t) for t in temperatures] or [params]
    tokens = prompt_tokens(prompt, model.config, model.tokenizer)
    uniform(seed, 0, 0)  # raises before the model runs
    logits = last_logits(model, prompt)
    all_stages = [stages(logits, each, tokens) for each in settings]
    position = max(1, len(tokens))  # the token that starts an empty text counts
    drawn = [
        _draw(model, prompt, each, found[-1].probabilities, seed, position, options)
        for each, found in zip(settings, all_stages, strict=True)
    ]
    shown = [each.id for each in likeliest(all_stages[0][0].probabilities, top, None)]
    for id in (*(d.id for d in drawn), *(d.generated for d in drawn)):
        if id not in shown:
            shown.append(id)
    return NextToken(
        prompt=prompt,
        n_tokens=len(tokens),
        shown=[Token(id, token_text(model.tokenizer, id)) for id in shown],
        settings=[
            Staged(each, _measured(found, shown), what)
            for each, found, what in zip(settings, all_stages, drawn, strict=True)
        ],
    )


def _measured(found: list[Stage], shown: list[int]) -> list[Measured]:
    result = []
    before = found[0].probabilities
    for stage in found:
        cut = (before > 0) & (stage.probabilities == 0)
        result.append(
            Measured(
                name=stage.name,
                kept=int(np.count_nonzero(stage.probabilities)),
                cut=int(np.count_nonzero(cut)),
                cut_probability=float(before[cut].sum()),
                entropy=float(entropy(stage.probabilities)),
                logits=[float(logit) if np.isfinite(logit) else None for logit in stage.logits[shown]],
                probabilities=stage.probabilities[shown].tolist(),
            )
        )
        before = stage.probabilities
    return result


def _draw(
    model: LanguageModel,
    prompt: str,
    params: SamplingParams,
    probabilities: Doubles,
    seed: int,
    position: int,
    options: Sequence[str],
) -> Drawn:
    number = uniform(seed, 0, position)
    id = draw(probabilities, number)
    cumulative = np.cumsum(probabilities)
    sampling: dict[str, Any] = dict(vars(params))
    (completion,) = in_order(model.pieces([prompt], length=1, seed=seed, ignore_eos=True, **sampling))
    generated = completion.tokens[0]
    return Drawn(
        seed=seed,
        position=position,
        number=number,
        id=id,
        text=token_text(model.tokenizer, id),
        probability=float(probabilities[id]),
        low=float(cumulative[id - 1] / cumulative[-1]) if id else 0.0,
        high=float(cumulative[id] / cumulative[-1]),
        generated=generated,
        generated_text=token_text(model.tokenizer, generated),
        command=generate_command(prompt, params, length=1, seed=seed, model=options),
    )
