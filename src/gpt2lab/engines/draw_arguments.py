"""The flat lists and arrays in which the C++ core receives draw parameters and returns the tokens drawn.

Parameters change rarely, so their arrays are kept from step to step. The arrays are Python's own, so that generating
text does not need NumPy, the slowest import. This module knows nothing of engines or sequences; the core checks its
arguments (native/draw_arguments.cpp).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import NamedTuple

from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.errors import SamplingError
from gpt2lab.sampling.declaration import PARAMETERS, SamplingParams

_LARGEST = 2**31  # limit of whole numbers: more than any vocabulary has tokens, and exact in float64

NO_DRAW = Draw(SamplingParams(), 0, 0, 0, count=0)


class ParamArrays(NamedTuple):
    """The arrays that the core reads for ``n`` :class:`SamplingParams`."""

    numbers: array[float]  # float64 [n, parameters], in the order of PARAMETERS
    bias_ids: array[int]  # int32, all rows concatenated
    bias_values: array[float]  # float64
    bias_offsets: array[int]  # int64 [n + 1]: where each row's ids and values begin
    penalised: list[int]
    """The rows with penalties that need the history."""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], n_vocab: int) -> ParamArrays:
        """Make the arrays of ``params``. Raises :class:`SamplingError` for a biased id beyond int32."""
        numbers = array("d", chain.from_iterable(map(_numbers, params)))
        try:
            # Once for each object: the samples of a request share theirs, which may bias the whole vocabulary.
            biases = {id(p): _bias_arrays(p) for p in params}
        except OverflowError:
            largest = max(id for p in params for id in p.logit_bias)
            raise SamplingError(f"logit_bias names token {largest}, but the vocabulary ends at {n_vocab - 1}") from None
        bias_ids, bias_values = array("i"), array("d")
        for p in params:
            bias_ids += biases[id(p)][0]
            bias_values += biases[id(p)][1]
        bias_offsets = array("q", accumulate((len(p.logit_bias) for p in params), initial=0))
        penalised = [row for row, p in enumerate(params) if p.penalises]
        return cls(numbers, bias_ids, bias_values, bias_offsets, penalised)


class ParamCache:
    """A cache of the last parameters' arrays, for steps that draw with the same parameters as the step before."""

    def __init__(self, n_vocab: int) -> None:
        self._n_vocab = n_vocab
        # One tuple, read and replaced as a whole: several threads may be here. Biases are copies, because the caller
        # may change the originals later.
        nothing = ParamArrays.of([], n_vocab)
        self._last: tuple[list[SamplingParams], dict[int, dict[int, float]], ParamArrays] = ([], {}, nothing)

    def arrays(self, params: list[SamplingParams]) -> ParamArrays:
        """Return the arrays of ``params``. Raises as :meth:`ParamArrays.of` does."""
        known, biases, arrays = self._last
        if params != known or {id(p): p.logit_bias for p in params} != biases:
            biases = {id(p): dict(p.logit_bias) for p in params}
            arrays = ParamArrays.of(params, self._n_vocab)
            self._last = (params, biases, arrays)
        return arrays


def _bias_arrays(p: SamplingParams) -> tuple[array[int], array[float]]:
    """Return the biased ids, int32, and their biases, float64."""
    return array("i", p.logit_bias), array("d", p.logit_bias.values())


def penalised_histories(draws: Sequence[Draw], penalised: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the concatenated histories of the rows ``penalised``, the offset of every row in them, and their end."""
    if not penalised:
        return [], [0] * (len(draws) + 1)
    rows = set(penalised)
    return ragged([draw.history if row in rows else () for row, draw in enumerate(draws)])


def drawn_lists(
    ids: list[int],
    logprobs: list[float],
    counts: list[int],
    top: Sequence[int],
    top_ids: list[int],
    top_logprobs: list[float],
) -> list[list[Drawn]]:
    """Split concatenated draws into lists of ``counts[i]``; each draw of list i has ``top[i]`` likeliest tokens."""
    drawn: Iterator[Drawn]
    if top_ids:
        likeliest = zip(top_ids, top_logprobs, strict=True)
        sizes = [size for size, count in zip(top, counts, strict=True) for _ in range(count)]
        drawn = (Drawn(id, p, tuple(islice(likeliest, n))) for id, p, n in zip(ids, logprobs, sizes, strict=True))
    else:
        drawn = map(Drawn, ids, logprobs)
    return [list(islice(drawn, count)) for count in counts]


def _numbers(p: SamplingParams) -> list[float]:
    """Return the parameters in the order in which the core reads them."""
    return [
        min(getattr(p, parameter.name), _LARGEST) if parameter.whole else getattr(p, parameter.name)
        for parameter in PARAMETERS.values()
    ]


def ragged(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return the concatenated rows, and ``len(rows) + 1`` offsets: where each row begins, and where the last ends."""
    return [*chain.from_iterable(rows)], [*accumulate(map(len, rows), initial=0)]
