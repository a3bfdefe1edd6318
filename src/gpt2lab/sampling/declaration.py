"""The stages of sampling, declared once: their order, and the name, default, range and texts of each parameter.

The command line, the Python API, the server, the playground and the tables in the docs are generated from this module.
A new stage needs an entry in :data:`STAGES` and a field of :class:`SamplingParams` with its type in
:class:`ParameterArguments`; its arithmetic goes into ``rules.py``, ``native/sampler.cpp`` and ``page/sampling.js``.
This module knows nothing of that arithmetic, or of how anything is displayed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypedDict

from gpt2lab.errors import SamplingError

STAGES = {
    "logit_bias": "bias",
    "penalties": "penalties",
    "temperature": "temperature",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
}
"""Name → title of each stage, in the order in which they are applied."""

_LARGEST = math.nextafter(math.inf, 0)
_SMALLEST = math.nextafter(0, 1)


class Parameter(NamedTuple):
    """A number that a stage takes; at its default the stage does nothing."""

    name: str
    default: float
    stage: str
    """One of :data:`STAGES`."""
    low: float
    high: float
    """The range, both ends included."""
    allowed: str
    """The range as text; it completes "must be …" in errors."""
    help: str
    """The effect, for the command line, Python, the server's schema and the docs."""
    title: str
    """The label of the playground's control."""
    hint: str
    """The control's tooltip: its effect in a few words."""
    slider: Sequence[float] | Mapping[int, float]
    """Evenly spaced values of the control's slider, or a mapping from position (0 to 1000) to value."""
    least: float
    most: float
    """The range that the server accepts, both ends included."""
    digits: int = 4
    """The most decimal places that the slider sets."""
    off_last: bool = False
    """Whether the last position of the slider turns the stage off, instead of the first."""
    shown_off: bool = True
    """Whether the playground shows the default as "off"."""

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.default, int)

    def check(self, value: Any) -> None:
        """Raise :class:`SamplingError` if the parameter cannot take ``value``."""
        value = value.item() if isinstance(value, _numpy_scalars()) else value
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:  # NaN fails this comparison too
            raise SamplingError(f"{self.name} must be {self.allowed}, got {value!r}")


def _numpy_scalars() -> Any:
    """Return the class of NumPy's scalars, or ``()`` while nothing has imported NumPy: then no value is one."""
    return getattr(sys.modules.get("numpy"), "generic", ())


def _number(default: float, **declared: Any) -> Any:
    """Return a field of :class:`SamplingParams` that gets an entry in :data:`PARAMETERS`."""
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class SamplingParams:
    """Parameters for the choice of a token. The defaults sample from the model's own distribution.

    The history is the prompt and the completion so far. Raises :class:`SamplingError` for a value out of range.

    Attributes:
        logit_bias: token id → number added to its logit; ``-inf`` excludes the token.
    """

    temperature: float = _number(
        1.0,
        stage="temperature",
        low=0,
        high=_LARGEST,
        allowed="0 (always the most likely token) or positive",
        help="Divide logits by this: below 1 is safer, above 1 is wilder; 0 always takes the likeliest token.",
        title="Temperature",
        hint="0 takes the likeliest token; above 1 flattens the distribution",
        slider={
            **{0: 0, 140: 0.5, 280: 1, 380: 1.1, 480: 1.2, 580: 1.3, 700: 2},
            **{790: 5, 850: 10, 900: 20, 950: 50, 1000: 100},
        },
        most=math.inf,
        shown_off=False,
    )
    top_k: int = _number(
        0,
        stage="top_k",
        low=0,
        high=math.inf,
        allowed="0 (off) or a positive whole number",
        help="Keep the k likeliest tokens, and any that tie with the last of them; 0 keeps all.",
        title="Top-k",
        hint="keeps the k likeliest tokens",
        slider=(1, 10, 40, 100, 200, 500, 1000, 5000, 20_000, 50_000),
        most=2**31 - 1,
        digits=0,
        off_last=True,
    )
    top_p: float = _number(
        1.0,
        stage="top_p",
        low=0,
        high=1,
        allowed="between 0 and 1 (off)",
        help="Keep the smallest set of likeliest tokens whose probabilities add up to at least p; 1 keeps all.",
        title="Top-p",
        hint="keeps the likeliest tokens that together reach probability p",
        slider=(0, 0.5, 0.8, 0.9, 0.95, 0.99, 1),
    )
    min_p: float = _number(
        0.0,
        stage="min_p",
        low=0,
        high=1,
        allowed="between 0 (off) and 1",
        help="Drop tokens less probable than this fraction of the likeliest token's probability; 0 keeps all.",
        title="Min-p",
        hint="drops tokens below this fraction of the likeliest token's probability",
        slider=(0, 0.01, 0.05, 0.1, 0.2, 0.5, 1),
    )
    repetition_penalty: float = _number(
        1.0,
        stage="penalties",
        low=_SMALLEST,
        high=_LARGEST,
        allowed="positive; 1 is off",
        help="For tokens already in the text, divide positive logits by this and multiply negative ones; 1 is off.",
        title="Repetition",
        hint="divides the logits of tokens already in the text",
        slider=(0.5, 1, 1.1, 1.2, 1.5, 2),
        least=0.01,
        most=100,
        digits=2,
    )
    presence_penalty: float = _number(
        0.0,
        stage="penalties",
        low=-_LARGEST,
        high=_LARGEST,
        allowed="a finite number; 0 is off",
        help="Subtract this from the logit of each token already in the text.",
        title="Presence",
        hint="subtracted from the logit of each token already in the text",
        slider=(-2, 2),
        least=-2,
        most=2,
        digits=1,
    )
    frequency_penalty: float = _number(
        0.0,
        stage="penalties",
        low=-_LARGEST,
        high=_LARGEST,
        allowed="a finite number; 0 is off",
        help="Subtract this from a token's logit for each time it already occurs in the text.",
        title="Frequency",
        hint="subtracted for each time the token already occurs",
        slider=(-2, 2),
        least=-2,
        most=2,
        digits=1,
    )
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for parameter in PARAMETERS.values():
            parameter.check(getattr(self, parameter.name))
        scalars = _numpy_scalars()
        for token, bias in self.logit_bias.items():
            id, value = (number.item() if isinstance(number, scalars) else number for number in (token, bias))
            if isinstance(id, bool) or not isinstance(id, int) or id < 0:
                raise SamplingError(f"logit_bias: {token!r} is not a token id")
            if isinstance(value, bool) or not isinstance(value, int | float) or not value < math.inf:
                raise SamplingError(f"logit_bias of token {token} must be a finite number or -inf, got {value!r}")

    def turns_on(self, stage: str) -> bool:
        """Return whether ``stage``, one of :data:`STAGES`, has an effect."""
        if stage == "logit_bias":
            return bool(self.logit_bias)
        return any(getattr(self, p.name) != p.default for p in PARAMETERS.values() if p.stage == stage)

    @property
    def penalises(self) -> bool:
        """Whether a stage depends on the history."""
        return self.turns_on("penalties")

    @property
    def ruled_out(self) -> list[int]:
        """The ids that ``logit_bias`` excludes; no stage may bring them back."""
        return [token for token, bias in self.logit_bias.items() if bias == -math.inf]


class ParameterArguments(TypedDict, total=False):
    """Keyword arguments that become a :class:`SamplingParams`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None


def _declared(name: str, default: Any, declared: Mapping[str, Any]) -> Parameter:
    least, most = declared["low"], declared["high"]
    return Parameter(name, default, **{"least": least, "most": most, **declared})


PARAMETERS = {f.name: _declared(f.name, f.default, f.metadata) for f in fields(SamplingParams) if f.metadata}
"""The numeric fields of :class:`SamplingParams`, by name, in their order."""

SamplingParams.__doc__ = f"{SamplingParams.__doc__}" + "".join(
    f"    {p.name}: {p.help} Default {p.default:g}.\n    " for p in PARAMETERS.values()
)
