"""The exponential of the sampling rules: the native core's bits, on every processor.

NumPy's own differs between processors in the last bit, so a draw near the edge of a token's share could differ too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST = -708.0
"""The exponential of anything lower is 0."""

TO_WHOLE = 1.5 * 2.0**52 + 1023  # adding it rounds to a whole number, and leaves a float's biased exponent in its bits
PER_LN_2 = 1.4426950408889634
LN_2 = 0.693147180369123816490, 1.90821492927058770002e-10  # in two parts: multiples of the first are exact
COEFFICIENTS = (
    *(2.510038549551032e-08, 2.7620088445409746e-07, 2.7557268459997064e-06, 2.4801521295954376e-05),
    *(0.00019841269863053618, 0.0013888888917213717, 0.008333333333330062, 0.04166666666662413),
    *(0.16666666666666669, 0.5, 1.0, 1.0),
)


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return e^x for numbers of 0 or less, to about one unit in the last place; 0 below -708.

    e^x = 2^n · e^r with n = round(x / ln 2), and e^r is a polynomial. The order of operations is that of
    native/sampling.inl; IEEE 754 defines each of them.
    """
    result = np.zeros(x.shape)
    there = x >= LOWEST
    x = x[there]  # after a filter, few are left
    shifted = x * PER_LN_2 + TO_WHOLE
    n = shifted - TO_WHOLE
    r = (x - n * LN_2[0]) - n * LN_2[1]
    power = np.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        power *= r
        power += coefficient
    result[there] = power * (shifted.view(np.int64) << 52).view(np.float64)
    return result
