"""Sampling in PyTorch, many rows at once: the stages and the draw of :mod:`gpt2lab.sampling.rules`, in float64.

Each rule here is its namesake there, for several rows; a stage changes only the rows whose parameters turn it on. From
the same logits a CPU draws the same token as there. A GPU adds probabilities up in another order, so it may draw a
neighbouring token if a random number hits the edge of a token's share to about 15 digits. This module knows nothing of
how logits are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from gpt2lab.engines.draw_arguments import ParamCache
from gpt2lab.engines.protocol import Drawn
from gpt2lab.errors import SamplingError
from gpt2lab.sampling import rules
from gpt2lab.sampling.declaration import PARAMETERS
from gpt2lab.sampling.exponential import COEFFICIENTS, LN_2, LOWEST, PER_LN_2, TO_WHOLE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpt2lab.engines.draw_arguments import ParamArrays
    from gpt2lab.sampling.declaration import SamplingParams


class Row(NamedTuple):
    """A row of logits to draw from; its fields are those of :class:`~gpt2lab.engines.protocol.Draw`."""

    params: SamplingParams
    seed: int
    stream: int
    position: int
    history: Sequence[int]
    top: int


class TorchSampler:
    """A sampler for logits on ``device``; it runs on the CPU for a device without float64."""

    def __init__(self, n_vocab: int, device: torch.device) -> None:
        self._n_vocab = n_vocab
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._params = ParamCache(n_vocab)

    def draw(self, logits: Tensor, rows: Sequence[Row]) -> list[Drawn | None]:
        """Draw a token for each row of ``logits [rows, n_vocab]``; None where they give no distribution.

        :meth:`error` says why. Raises :class:`~gpt2lab.errors.SamplingError` for arguments out of range.
        """
        arrays = self._params.arrays([row.params for row in rows])
        numbers = self._to_device(_uniforms(rows)[:, None])
        raw = logits.to(self._device).double()
        x = self._penalised(self._biased(raw, arrays), arrays, rows)
        largest = x.amax(-1)  # NaN if any is
        usable = (largest < torch.inf) & (largest > -torch.inf)  # no later stage makes a row unusable
        x, columns = self._staged(x, np.reshape(arrays.numbers, (-1, len(PARAMETERS))))
        cumulative = softmax(x).cumsum(-1)
        place = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True).clamp_max(x.shape[1] - 1)
        ids = place if columns is None else columns[place]
        total = raw.logsumexp(-1, keepdim=True)
        found = torch.cat([ids.double(), raw.gather(1, ids) - total, usable[:, None].double()], dim=1)
        top = _likeliest(raw, total, [row.top for row in rows])
        return [
            Drawn(int(id), logprob, likeliest) if good else None
            for (id, logprob, good), likeliest in zip(found.tolist(), top, strict=True)
        ]

    def error(self, logits: Tensor, row: Row) -> SamplingError:
        """Return the error of a row of ``logits [n_vocab]`` from which nothing can be drawn."""
        try:
            rules.stages(logits.cpu().numpy(), row.params, row.history)
        except SamplingError as error:
            return error
        return SamplingError("the logits give no distribution")

    def _to_device(self, values: ArrayLike) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _biased(self, x: Tensor, arrays: ParamArrays) -> Tensor:
        ids = np.asarray(arrays.bias_ids)
        if not len(ids):
            return x
        if ids.max() >= self._n_vocab:
            raise SamplingError(f"logit_bias names token {ids.max()}, but the vocabulary ends at {self._n_vocab - 1}")
        rows = np.repeat(np.arange(len(x)), np.diff(arrays.bias_offsets))
        place = self._to_device(rows), self._to_device(ids.astype(np.int64))
        return x.index_put(place, x[place] + self._to_device(arrays.bias_values))

    def _penalised(self, x: Tensor, arrays: ParamArrays, rows: Sequence[Row]) -> Tensor:
        parts: list[NDArray[np.float64]] = []  # row, token, count, and the three penalties
        for n in arrays.penalised:
            tokens, counts = np.unique(np.asarray(rows[n].history, np.int64), return_counts=True)
            if tokens.size and not 0 <= tokens[0] <= tokens[-1] < self._n_vocab:
                raise SamplingError(f"the history has token ids outside 0 to {self._n_vocab - 1}")
            p = rows[n].params
            fixed = [p.repetition_penalty, p.presence_penalty, p.frequency_penalty]
            parts.append(np.column_stack([np.full(len(tokens), n), tokens, counts, np.tile(fixed, (len(tokens), 1))]))
        if not parts:
            return x
        table = self._to_device(np.concatenate(parts))
        place, (count, repetition, presence, frequency) = tuple(table[:, :2].long().T), table[:, 2:].T
        seen = x[place]
        seen = torch.where(seen > 0, seen / repetition, seen * repetition)
        return x.index_put(place, seen - presence - frequency * count)

    def _staged(self, x: Tensor, numbers: NDArray[np.float64]) -> tuple[Tensor, Tensor | None]:
        """Apply the stages from the temperature on; ``numbers`` is float64 ``[rows, parameters]``.

        Returns the logits and the ids that their columns stand for (None: all). If every row is greedy or has a top-k,
        only the ids that some row keeps are left: sums in the order of ids are the same without zeros, and quicker.
        """
        columns, few = None, np.zeros(len(x), bool)
        for (name, parameter), column in zip(PARAMETERS.items(), numbers.T, strict=True):
            if name not in _RULES:
                continue
            on = np.flatnonzero(column != parameter.default)
            if len(on):
                values, which = column[on], self._to_device(on)
                some = x if len(on) == len(x) else x[which]
                changed = _RULES[name](some, self._to_device(values[:, None]), values)
                x = changed if len(on) == len(x) else x.index_copy(0, which, changed)
                few |= (name == "temperature") & (column == 0) | (name == "top_k") & (column > 0)
            if name == "top_k" and few.all():
                kept = (x > -torch.inf).any(0)
                kept[0] |= ~kept.any()  # no row is usable: any column will do
                columns = kept.nonzero()[:, 0]
                x = x[:, columns]
        return x, columns


# ---- the stages: x float64 [rows, n_vocab], and the parameter, on the device [rows, 1] and in NumPy [rows] -----------


def _temper(x: Tensor, temperature: Tensor, values: NDArray[np.float64]) -> Tensor:
    if values.all():
        return (x - x.amax(-1, keepdim=True)) / temperature
    likeliest = torch.full_like(x, -torch.inf).scatter_(1, x.argmax(-1, keepdim=True), 0.0)  # the lowest id on ties
    greedy = temperature == 0
    return torch.where(greedy, likeliest, (x - x.amax(-1, keepdim=True)) / temperature.masked_fill(greedy, 1.0))


def _top_k(x: Tensor, k: Tensor, values: NDArray[np.float64]) -> Tensor:
    best = x.topk(min(int(values.max()), x.shape[1])).values
    least = best.gather(1, k.long().clamp_max(x.shape[1]) - 1)
    return x.masked_fill(x < least, -torch.inf)


def _top_p(x: Tensor, p: Tensor, values: NDArray[np.float64]) -> Tensor:
    order = x.argsort(dim=-1, descending=True, stable=True)  # on ties, the lower id first
    probabilities = softmax(x)
    cumulative = (probabilities.gather(1, order) / probabilities.amax(-1, keepdim=True)).cumsum(-1)
    enough = p * (1 - rules.ROUNDING) * cumulative[:, -1:]
    dropped = torch.nn.functional.pad(cumulative[:, :-1] >= enough, (1, 0))
    return x.masked_fill(torch.empty_like(dropped).scatter_(1, order, dropped), -torch.inf)


def _min_p(x: Tensor, p: Tensor, values: NDArray[np.float64]) -> Tensor:
    probabilities = softmax(x)
    return x.masked_fill(probabilities < p * (1 - rules.ROUNDING) * probabilities.amax(-1, keepdim=True), -torch.inf)


_RULES: dict[str, Callable[[Tensor, Tensor, NDArray[np.float64]], Tensor]] = {
    "temperature": _temper,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
}


def softmax(x: Tensor) -> Tensor:
    """Return the probabilities of logits, float64 ``[rows, n_vocab]``."""
    exponentials = exp(x - x.amax(-1, keepdim=True))
    return exponentials / exponentials.cumsum(-1)[:, -1:]


def exp(x: Tensor) -> Tensor:
    """Return e^x of float64 numbers of 0 or less, with the bits of :func:`gpt2lab.sampling.exponential.exp`."""
    there = x.clamp_min(LOWEST)
    shifted = there * PER_LN_2 + TO_WHOLE
    n = shifted - TO_WHOLE
    r = (there - n * LN_2[0]) - n * LN_2[1]
    power = torch.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        power.mul_(r).add_(coefficient)
    power *= (shifted.view(torch.int64) << 52).view(torch.float64)
    return power.masked_fill_(x < LOWEST, 0.0)


def _likeliest(raw: Tensor, total: Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    """Return the likeliest ``counts[i]`` ids of each row, and their log-probabilities; on ties, the lower id first."""
    most = max(counts, default=0)
    if not most:
        return [()] * len(counts)
    order = raw.argsort(dim=-1, descending=True, stable=True)[:, :most]
    pairs = zip(order.tolist(), (raw.gather(1, order) - total).tolist(), counts, strict=True)
    return [tuple(zip(ids[:n], values[:n], strict=True)) for ids, values, n in pairs]


def _uniforms(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return :func:`gpt2lab.sampling.rules.uniform` of each row."""
    for row in rows:
        rules.check_stream(row.seed, row.stream, row.position)
    low = 0xFFFFFFFF
    seed, stream, position = np.array([row[1:4] for row in rows], np.uint64).reshape(-1, 3).T
    counter: Any = (position, np.zeros_like(position), stream & low, stream >> 32)
    key: Any = (seed & low, seed >> 32)
    x = cast("list[NDArray[np.uint64]]", rules.philox4x32(counter, key))  # its operations are those of arrays too
    return ((x[0] >> 5) * 2**26 + (x[1] >> 6)).astype(np.float64) / 2**53
