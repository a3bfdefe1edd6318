"""How the next token is chosen from the logits: the rules, in NumPy and float64, to be read.

In this order: logit bias, penalties, temperature, top-k, top-p, min-p, draw. The engines have faster versions of
their own; tests hold them to this one. Random numbers come from Philox4x32-10, a function of (seed, stream,
position) without state, so a sample depends on nothing that was drawn before it or beside it.
Knows nothing of text, of models, or of when to stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.errors import SamplingError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SamplingParams:
    """How to choose a token. The defaults sample from the model's own distribution.

    Attributes:
        temperature: 0 takes the most likely token (the lowest id of several); below 1 sharpens, above 1 flattens.
        top_k: keep the k most likely tokens, and all that tie with the k-th; 0 or at least n_vocab is off.
        top_p: keep the most likely tokens until their probabilities reach p, the one that crosses p included
            (nucleus sampling, Holtzman et al. 2019); 1 is off, 0 keeps one token.
        min_p: drop tokens less likely than min_p times the most likely one; 0 is off.
        repetition_penalty: positive logits of tokens in the history are divided by it, negative ones multiplied
            (CTRL, Keskar et al. 2019); 1 is off.
        presence_penalty: subtracted from the logit of every token in the history.
        frequency_penalty: subtracted from a token's logit once for each time it is in the history.
        logit_bias: token id → what is added to its logit; ``-inf`` rules the token out.

    The history is the prompt and the completion so far. Raises :class:`SamplingError` for a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        largest = math.nextafter(math.inf, 0)
        _check_number("temperature", self.temperature, 0, largest, "0 (always the most likely token) or positive")
        if not _is_natural(self.top_k):
            raise SamplingError(f"top_k must be 0 (off) or a positive whole number, got {self.top_k!r}")
        _check_number("top_p", self.top_p, 0, 1, "between 0 and 1 (off)")
        _check_number("min_p", self.min_p, 0, 1, "between 0 (off) and 1")
        smallest = math.nextafter(0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, smallest, largest, "positive; 1 is off")
        _check_number("presence_penalty", self.presence_penalty, -largest, largest, "a finite number; 0 is off")
        _check_number("frequency_penalty", self.frequency_penalty, -largest, largest, "a finite number; 0 is off")
        for token, bias in self.logit_bias.items():
            if not _is_natural(token):
                raise SamplingError(f"logit_bias: {token!r} is no token id")
            _check_number(f"logit_bias of token {token}", bias, -math.inf, largest, "a finite number or -inf")


@dataclass(frozen=True)
class Stage:
    """Logits and probabilities (float64 ``[n_vocab]``) after the stage ``name``.

    Tokens that are ruled out have -inf and 0. From ``temperature`` on, logits are relative to the largest.
    """

    name: str
    logits: Floats
    probabilities: Floats


def stages(logits: ArrayLike, params: SamplingParams, history: Sequence[int] = ()) -> list[Stage]:
    """The way from a model's logits ``[n_vocab]`` to the distribution drawn from.

    First ``model``, then those of ``logit_bias``, ``penalties``, ``temperature``, ``top_k``, ``top_p``, ``min_p``
    that ``params`` turns on, in this order; each works on what the one before left, renormalised.
    Raises :class:`SamplingError` for NaN or +inf among the logits, if no token is left, or for ids beyond n_vocab.
    """
    current = _checked(np.asarray(logits, dtype=np.float64), "model")
    result = [Stage("model", current, _softmax(current))]

    def add(name: str, changed: Floats) -> None:
        result.append(Stage(name, _checked(changed, name), _softmax(changed)))

    if params.logit_bias:
        add("logit_bias", _bias(result[-1].logits, params.logit_bias))
    if params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0:
        add("penalties", _penalise(result[-1].logits, params, history))
    if params.temperature != 1:
        add("temperature", _temper(result[-1].logits, params.temperature))
    if 0 < params.top_k < current.size:
        add("top_k", _top_k(result[-1].logits, params.top_k))
    if params.top_p < 1:
        add("top_p", _top_p(result[-1], params.top_p))
    if params.min_p > 0:
        add("min_p", _min_p(result[-1], params.min_p))
    return result


def distribution(logits: ArrayLike, params: SamplingParams, history: Sequence[int] = ()) -> Floats:
    """Probabilities ``[n_vocab]`` of the next token, float64, after all stages. Raises as :func:`stages`."""
    return stages(logits, params, history)[-1].probabilities


def sample(
    logits: ArrayLike,
    params: SamplingParams,
    *,
    seed: int,
    stream: int,
    position: int,
    history: Sequence[int] = (),
) -> int:
    """The id of the next token: :func:`draw` from :func:`distribution` with :func:`uniform`."""
    return draw(distribution(logits, params, history), uniform(seed, stream, position))


def logprob(logits: ArrayLike, token: int) -> float:
    """Natural log of the model's own probability of ``token``: temperature 1, nothing filtered or penalised."""
    raw = _checked(np.asarray(logits, dtype=np.float64), "model")
    with np.errstate(over="ignore"):
        shifted = raw - raw.max()
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


def draw(probabilities: ArrayLike, u: float) -> int:
    """The smallest id whose cumulative probability exceeds ``u`` times the total; ``u`` in [0, 1).

    Never an id of probability 0. The probabilities need not add up to 1.
    """
    cumulative = np.cumsum(np.asarray(probabilities, dtype=np.float64))
    if not 0 <= u < 1:
        raise SamplingError(f"u must be in [0, 1), got {u!r}")
    if not 0 < cumulative[-1] < math.inf:
        raise SamplingError(f"probabilities add up to {cumulative[-1]}: nothing to draw from")
    return int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))


# ---- the stages -----------------------------------------------------------------------------------------------------


def _bias(logits: Floats, logit_bias: Mapping[int, float]) -> Floats:
    biased: Floats = logits.copy()
    for token, bias in logit_bias.items():
        if token >= logits.size:
            raise SamplingError(f"logit_bias names token {token}, but the vocabulary ends at {logits.size - 1}")
        biased[token] += bias
    return biased


def _penalise(logits: Floats, params: SamplingParams, history: Sequence[int]) -> Floats:
    tokens, counts = np.unique(np.asarray(history, dtype=np.int64), return_counts=True)
    if tokens.size and not 0 <= tokens[0] <= tokens[-1] < logits.size:
        raise SamplingError(f"the history has token ids outside 0 to {logits.size - 1}")
    penalised: Floats = logits.copy()
    seen = logits[tokens]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd penalties give inf, which is reported later
        seen = np.where(seen > 0, seen / params.repetition_penalty, seen * params.repetition_penalty)
        penalised[tokens] = seen - params.presence_penalty - params.frequency_penalty * counts
    return penalised


def _temper(logits: Floats, temperature: float) -> Floats:
    if temperature == 0:
        greedy = np.full_like(logits, -np.inf)
        greedy[np.argmax(logits)] = 0.0  # argmax takes the lowest id on ties
        return greedy
    # Taking the largest off first changes no probability, and a temperature of 1e-300 cannot overflow.
    with np.errstate(over="ignore"):
        tempered: Floats = (logits - logits.max()) / temperature
    return tempered


def _top_k(logits: Floats, k: int) -> Floats:
    kth_largest = np.partition(logits, -k)[-k]
    kept: Floats = np.where(logits >= kth_largest, logits, -np.inf)
    return kept


def _top_p(stage: Stage, p: float) -> Floats:
    order = np.argsort(-stage.probabilities, kind="stable")  # most likely first, the lower id first on ties
    weights = stage.probabilities[order] / stage.probabilities.max()  # equal ones sum up without rounding
    cumulative = np.cumsum(weights)
    kept = 1 + np.count_nonzero(cumulative[:-1] < p * weights.sum())  # while those before have not reached p
    filtered = np.full_like(stage.logits, -np.inf)
    filtered[order[:kept]] = stage.logits[order[:kept]]
    return filtered


def _min_p(stage: Stage, min_p: float) -> Floats:
    likely = stage.probabilities >= min_p * stage.probabilities.max()
    kept: Floats = np.where(likely, stage.logits, -np.inf)
    return kept


def _softmax(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        exponentials = np.exp(logits - logits.max())
    probabilities: Floats = exponentials / exponentials.sum()
    return probabilities


def _checked(logits: Floats, stage: str) -> Floats:
    """``logits`` if a distribution can be made of them: no NaN, no +inf, not all -inf."""
    if logits.ndim != 1 or logits.size == 0:
        raise SamplingError(f"logits must be one row [n_vocab], got the shape {list(logits.shape)}")
    bad = ~(logits < np.inf)
    if bad.any():
        token = int(np.argmax(bad))
        raise SamplingError(f"the logit of token {token} is {logits[token]} after {stage}: nothing can be sampled")
    if logits.max() == -np.inf:
        raise SamplingError(f"no token is left after {stage}: every logit is -inf")
    return logits


def _check_number(name: str, value: Any, low: float, high: float, allowed: str) -> None:
    value = value.item() if isinstance(value, np.generic) else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN is not between either
        raise SamplingError(f"{name} must be {allowed}, got {value!r}")


def _is_natural(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


# ---- random numbers -------------------------------------------------------------------------------------------------


def uniform(seed: int, stream: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, the same for the same three arguments on every machine.

    ``seed`` below 2^63, ``stream`` (index of the sample) below 2^64, ``position`` (number of tokens before the one
    drawn: prompt and completion so far, the implicit start token counted) below 2^32. Raises :class:`SamplingError`.
    """
    for name, value, bits in (("seed", seed, 63), ("stream", stream, 64), ("position", position, 32)):
        if not 0 <= value < 1 << bits:
            raise SamplingError(f"{name} must be a whole number from 0 to 2^{bits} - 1, got {value!r}")
    low = 0xFFFFFFFF
    x = philox4x32((position, 0, stream & low, stream >> 32), (seed & low, seed >> 32))
    return float((x[0] >> 5) * 2**26 + (x[1] >> 6)) / 2**53


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four random 32-bit words from a counter and a key (Salmon et al., SC 2011)."""
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & low, (product0 >> 32) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0, c1, c2, c3
