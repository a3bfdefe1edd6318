"""The rules that choose the next token from the logits, in NumPy and float64, written to be read.

:mod:`gpt2lab.sampling.declaration` declares the stages, in order; the draw follows. The engines have faster versions of
their own; tests compare them with this one. From the same logits it draws the same token on every processor. Random
numbers come from Philox4x32-10, a stateless function of (seed, stream, position), so a sample does not depend on other
draws, earlier or in the same batch. This module knows nothing of text, of models, or of when to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpt2lab.errors import SamplingError
from gpt2lab.sampling.declaration import STAGES, SamplingParams
from gpt2lab.sampling.exponential import exp

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpt2lab.sampling.custom import CustomStage

Floats: TypeAlias = "NDArray[np.float64]"

ROUNDING = 1e-12
"""Top-p and min-p ignore smaller relative differences between probabilities or their sums: rounding may cause them."""


@dataclass(frozen=True)
class Stage:
    """Logits and probabilities (float64 ``[n_vocab]``) after the stage ``name``.

    Excluded tokens have logit -inf and probability 0. From ``temperature`` on, logits are relative to the largest.
    """

    name: str
    logits: Floats

    @cached_property
    def probabilities(self) -> Floats:
        """The softmax of the logits, computed when it is first asked for: most stages need only logits."""
        return _softmax(self.logits)


def stages(
    logits: ArrayLike, params: SamplingParams, history: Sequence[int] = (), custom: Sequence[CustomStage] = ()
) -> list[Stage]:
    """Return every stage between a model's logits ``[n_vocab]`` and the distribution to draw from.

    ``model`` comes first, then the :data:`~gpt2lab.sampling.declaration.STAGES` that ``params`` turns on, in their
    order, with the ``custom`` ones at their places; each works on the renormalised result of the previous one.
    Raises :class:`SamplingError` for NaN or +inf among the logits, if no token is left, or for ids beyond n_vocab, and
    :class:`~gpt2lab.errors.StageError` if a custom stage fails.
    """
    result: list[Stage] = []

    def add(name: str, changed: Floats) -> None:
        result.append(Stage(name, _checked(changed, name)))

    add("model", np.asarray(logits, dtype=np.float64))
    for name in (*STAGES, "draw"):
        for stage in custom:
            if stage.place == name:
                ruled_out = () if name == "logit_bias" else params.ruled_out
                add(stage.name, stage.apply(result[-1].logits, history, ruled_out))
        if name != "draw" and params.turns_on(name):
            changed = _RULES[name](result[-1], params, history)
            if changed is not None:
                add(name, changed)
    return result


def distribution(
    logits: ArrayLike, params: SamplingParams, history: Sequence[int] = (), custom: Sequence[CustomStage] = ()
) -> Floats:
    """Return the probabilities ``[n_vocab]`` of the next token, float64, after all stages. Raises as :func:`stages`."""
    return stages(logits, params, history, custom)[-1].probabilities


def sample(
    logits: ArrayLike,
    params: SamplingParams,
    *,
    seed: int,
    stream: int,
    position: int,
    history: Sequence[int] = (),
    custom: Sequence[CustomStage] = (),
) -> int:
    """Return the id of the next token: :func:`draw` from :func:`distribution` with :func:`uniform`."""
    return draw(distribution(logits, params, history, custom), uniform(seed, stream, position))


def logprob(logits: ArrayLike, token: int) -> float:
    """Return the natural log of the model's own probability of ``token``: temperature 1, no filters, no penalties."""
    return float(log_softmax(_checked(np.asarray(logits, dtype=np.float64), "model"))[token])


def log_softmax(logits: ArrayLike) -> Floats:
    """Return the natural log of softmax over the last axis, in float64."""
    raw = np.asarray(logits, dtype=np.float64)
    with np.errstate(over="ignore"):
        shifted = raw - raw.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def largest(values: NDArray[np.floating[Any]], n: int) -> NDArray[np.intp]:
    """Return the ids of the ``n`` largest ``values [n_vocab]``, largest first; among ties, the lower id comes first."""
    n = min(n, values.size)
    if not n:
        return np.empty(0, np.intp)
    candidates = np.flatnonzero(values >= np.partition(values, -n)[-n])  # in id order, including all ties of the n-th
    return candidates[np.argsort(-values[candidates], kind="stable")][:n]


def draw(probabilities: ArrayLike, u: float) -> int:
    """Return the smallest id whose cumulative probability exceeds ``u`` times the total; ``u`` in [0, 1).

    Never returns an id of probability 0. The probabilities need not add up to 1.
    """
    cumulative = np.cumsum(np.asarray(probabilities, dtype=np.float64))
    if not 0 <= u < 1:
        raise SamplingError(f"u must be in [0, 1), got {u!r}")
    if not 0 < cumulative[-1] < math.inf:
        raise SamplingError(f"probabilities add up to {cumulative[-1]}: nothing to draw from")
    return int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))


# ---- the stages -----------------------------------------------------------------------------------------------------


def _bias(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    biased: Floats = stage.logits.copy()
    for token, bias in params.logit_bias.items():
        if token >= biased.size:
            raise SamplingError(f"logit_bias names token {token}, but the vocabulary ends at {biased.size - 1}")
        biased[token] += bias
    return biased


def _penalise(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    logits = stage.logits
    tokens, counts = np.unique(np.asarray(history, dtype=np.int64), return_counts=True)
    if tokens.size and not 0 <= tokens[0] <= tokens[-1] < logits.size:
        raise SamplingError(f"the history has token ids outside 0 to {logits.size - 1}")
    penalised: Floats = logits.copy()
    seen = logits[tokens]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd penalties give inf, which is reported later
        seen = np.where(seen > 0, seen / params.repetition_penalty, seen * params.repetition_penalty)
        penalised[tokens] = seen - params.presence_penalty - params.frequency_penalty * counts
    return penalised


def _temper(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    logits = stage.logits
    if params.temperature == 0:
        greedy = np.full_like(logits, -np.inf)
        greedy[np.argmax(logits)] = 0.0  # argmax takes the lowest id on ties
        return greedy
    # Subtracting the largest first changes no probability, and a temperature of 1e-300 cannot overflow.
    with np.errstate(over="ignore"):
        tempered: Floats = (logits - logits.max()) / params.temperature
    return tempered


def _top_k(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats | None:
    if params.top_k >= stage.logits.size:
        return None
    kth_largest = np.partition(stage.logits, -params.top_k)[-params.top_k]
    kept: Floats = np.where(stage.logits >= kth_largest, stage.logits, -np.inf)
    return kept


def _top_p(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    # The logits order the tokens: whether two probabilities tie depends on their rounding.
    order = np.argsort(-stage.logits, kind="stable")  # on ties, the lower id first
    weights = stage.probabilities[order] / stage.probabilities.max()  # equal weights add up without rounding
    cumulative = np.cumsum(weights)
    enough = params.top_p * (1 - ROUNDING) * cumulative[-1]
    kept = 1 + np.count_nonzero(cumulative[:-1] < enough)  # a token stays while the sum before it is below p
    filtered = np.full_like(stage.logits, -np.inf)
    filtered[order[:kept]] = stage.logits[order[:kept]]
    return filtered


def _min_p(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    likely = stage.probabilities >= params.min_p * (1 - ROUNDING) * stage.probabilities.max()
    kept: Floats = np.where(likely, stage.logits, -np.inf)
    return kept


_RULES: dict[str, Callable[[Stage, SamplingParams, Sequence[int]], Floats | None]] = {
    "logit_bias": _bias,
    "penalties": _penalise,
    "temperature": _temper,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
}
"""Each stage's rule, applied to the previous stage's result; a rule returns None if it changes nothing."""


def _softmax(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        exponentials = exp(logits - logits.max())
    probabilities: Floats = exponentials / np.cumsum(exponentials)[-1]  # unlike sum(), it has one order everywhere
    return probabilities


def _checked(logits: Floats, stage: str) -> Floats:
    """Return ``logits`` if they give a distribution: no NaN, no +inf, not all -inf."""
    if logits.ndim != 1 or logits.size == 0:
        raise SamplingError(f"logits must be one row [n_vocab], got the shape {list(logits.shape)}")
    bad = ~(logits < np.inf)
    if bad.any():
        token = int(np.argmax(bad))
        raise SamplingError(f"the logit of token {token} is {logits[token]} after {stage}: nothing can be sampled")
    if logits.max() == -np.inf:
        raise SamplingError(f"no token is left after {stage}: every logit is -inf")
    return logits


# ---- random numbers -------------------------------------------------------------------------------------------------


def uniform(seed: int, stream: int, position: int) -> float:
    """Return a number in [0, 1) with 53 random bits, the same for the same three arguments on every machine.

    ``seed`` must be below 2^63, ``stream`` (the sample's index) below 2^64, and ``position`` (the number of tokens
    before the one drawn: prompt and completion so far, including the implicit start token) below 2^32. Raises
    :class:`SamplingError`.
    """
    check_stream(seed, stream, position)
    low = 0xFFFFFFFF
    x = philox4x32((position, 0, stream & low, stream >> 32), (seed & low, seed >> 32))
    return float((x[0] >> 5) * 2**26 + (x[1] >> 6)) / 2**53


def check_stream(seed: int, stream: int, position: int) -> None:
    """Raise :class:`SamplingError` unless :func:`uniform` takes these arguments."""
    for name, value, bits in (("seed", seed, 63), ("stream", stream, 64), ("position", position, 32)):
        if not isinstance(value, int | np.integer) or not 0 <= value < 1 << bits:
            raise SamplingError(f"{name} must be a whole number from 0 to 2^{bits} - 1, got {value!r}")


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return four random 32-bit words of Philox4x32-10 from a counter and a key (Salmon et al., SC 2011)."""
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & low, (product0 >> 32) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0, c1, c2, c3
