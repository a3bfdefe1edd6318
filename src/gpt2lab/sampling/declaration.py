"""The stages of sampling, declared once: their order, and the name, default, range and texts of each parameter.

The command line, the Python API, the server, the playground and the tables in the docs are generated from this module.
A new stage needs an entry in :data:`STAGES` and a field of :class:`SamplingParams` with its type in
:class:`ParameterArguments`; its arithmetic goes into ``rules.py``, ``native/sampler.cpp`` and ``page/sampling.js``.
Knows nothing of that arithmetic, or of how anything is displayed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypedDict

import numpy as np

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
    """The range in words, for errors: "must be …"."""
    help: str
    """For the command line, Python and the docs."""
    served: str
    """For the server's schema."""
    title: str
    """Of the playground's control."""
    hint: str
    """What that control does, in a few words."""
    slider: Sequence[float] | Mapping[int, float]
    """Values at even distances on the control's slider; or position, from 0 to 1000 → value."""
    least: float
    most: float
    """The range that the server takes."""
    digits: int = 4
    """Digits behind the point that the slider gives at most."""
    off_last: bool = False
    """Whether the last position of the slider turns the stage off, not the first."""
    shown_off: bool = True
    """Whether the playground says "off" of the default."""

    @property
    def whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.default, int)

    def check(self, value: Any) -> None:
        """Raise :class:`SamplingError` unless it may have ``value``."""
        value = value.item() if isinstance(value, np.generic) else value
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:  # NaN fails this comparison too
            raise SamplingError(f"{self.name} must be {self.allowed}, got {value!r}")


def _number(default: float, **declared: Any) -> Any:
    """A field of :class:`SamplingParams` that :data:`PARAMETERS` gets an entry of."""
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class SamplingParams:
    """How to choose a token. The defaults sample from the model's own distribution.

    The history is the prompt and the completion so far. Raises :class:`SamplingError` for a value out of range.

    Attributes:
        logit_bias: token id → what is added to its logit; ``-inf`` rules the token out.
    """

    temperature: float = _number(
        1.0,
        stage="temperature",
        low=0,
        high=_LARGEST,
        allowed="0 (always the most likely token) or positive",
        help="Divide logits by this: below 1 safer, above 1 wilder; 0 always takes the likeliest token.",
        served="0 takes the likeliest token. Default 1.",
        title="Temperature",
        hint="0 takes the likeliest; above 1 flattens",
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
        help="Keep the k likeliest tokens and all that tie with the last of them; 0 keeps all.",
        served="Keep the k likeliest tokens; 0 keeps all.",
        title="Top-k",
        hint="keep the k likeliest",
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
        help="Keep the likeliest tokens up to and with the one that brings their probability to p; 1 keeps all.",
        served="Keep the likeliest tokens up to this sum. Default 1.",
        title="Top-p",
        hint="keep the likeliest that reach p together",
        slider=(0, 0.5, 0.8, 0.9, 0.95, 0.99, 1),
    )
    min_p: float = _number(
        0.0,
        stage="min_p",
        low=0,
        high=1,
        allowed="between 0 (off) and 1",
        help="Drop tokens less likely than this fraction of the likeliest one's probability.",
        served="Drop what is less likely than this part of the likeliest.",
        title="Min-p",
        hint="drop what is below this share of the likeliest",
        slider=(0, 0.01, 0.05, 0.1, 0.2, 0.5, 1),
    )
    repetition_penalty: float = _number(
        1.0,
        stage="penalties",
        low=_SMALLEST,
        high=_LARGEST,
        allowed="positive; 1 is off",
        help="Divide positive logits of tokens already in the text by this (multiply negative); 1 is off.",
        served="Divides logits; 1 is off.",
        title="Repetition",
        hint="divides the logits of tokens that were there",
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
        help="Subtract this from the logits of tokens already in the text.",
        served="Against tokens of the text so far.",
        title="Presence",
        hint="taken off for having been there",
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
        help="Subtract this from a token's logit for each time it is already in the text.",
        served="The same, for each time they are there.",
        title="Frequency",
        hint="taken off for each time",
        slider=(-2, 2),
        least=-2,
        most=2,
        digits=1,
    )
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for parameter in PARAMETERS.values():
            parameter.check(getattr(self, parameter.name))
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int | np.integer) or token < 0:
                raise SamplingError(f"logit_bias: {token!r} is no token id")
            value = bias.item() if isinstance(bias, np.generic) else bias
            if isinstance(value, bool) or not isinstance(value, int | float) or not value < math.inf:
                raise SamplingError(f"logit_bias of token {token} must be a finite number or -inf, got {value!r}")

    def turns_on(self, stage: str) -> bool:
        """Whether ``stage``, one of :data:`STAGES`, has something to do."""
        if stage == "logit_bias":
            return bool(self.logit_bias)
        return any(getattr(self, p.name) != p.default for p in PARAMETERS.values() if p.stage == stage)

    @property
    def penalises(self) -> bool:
        """Whether the history matters."""
        return self.turns_on("penalties")

    @property
    def ruled_out(self) -> list[int]:
        """Ids that no stage may bring back."""
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
"""The numbers among the fields of :class:`SamplingParams`, by name, in their order."""

SamplingParams.__doc__ = f"{SamplingParams.__doc__}" + "".join(
    f"    {p.name}: {p.help} Default {p.default:g}.\n    " for p in PARAMETERS.values()
)
