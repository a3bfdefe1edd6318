"""Options of generation: keyword arguments, their defaults and their checks.

This module knows nothing of prompts or models: :mod:`gpt2lab.generation.plan` checks the options against them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from operator import index as as_int
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gpt2lab.errors import SamplingError, UsageError
from gpt2lab.sampling.declaration import PARAMETERS, ParameterArguments, SamplingParams

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Unpack

    from gpt2lab.sampling.custom import CustomStage, StageFunction

Function = TypeVar("Function", bound=Callable[..., Any])

OVERFLOWS = ("error", "slide")
"""Behaviours to choose from when prompt and length do not fit the context."""

SPECULATIONS = ("auto", "off")
"""Choices for guessing tokens ahead."""


class SamplingArguments(ParameterArguments, total=False):
    """Keyword arguments that control how a token is chosen."""

    stages: Sequence[StageFunction | CustomStage]


class GenerationArguments(SamplingArguments, total=False):
    """Keyword arguments of generation, with the meanings and defaults of :class:`Options`."""

    length: int | None
    seed: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    special: bool
    add_special_tokens: bool
    skip_special_tokens: bool
    overflow: Literal["error", "slide"]
    batch_size: int | None
    logprobs: bool | None
    top_logprobs: int
    speculation: Literal["auto", "off"]


class SteeredArguments(GenerationArguments, total=False):
    """Keyword arguments of a model's methods that generate."""

    add: Mapping[int | str, npt.ArrayLike] | None


@dataclass(frozen=True)
class Options:
    """Checked options of generation.

    Raises :class:`~gpt2lab.errors.SamplingError` or :class:`~gpt2lab.errors.UsageError`.
    """

    sampling: SamplingParams
    seed: int
    """0 <= seed < 2**63; drawn by the system if none was given."""
    length: int | None = None
    """The most tokens to draw; None: n_ctx without a prompt, else n_ctx // 2 or what the context has room for."""
    stop: tuple[str, ...] = ()
    """Strings that end a sample and are left out of its text."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end a sample, besides the model's own."""
    min_tokens: int = 0
    """The number of tokens before which nothing ends a sample: its ids are not drawn, and its strings not found."""
    ignore_eos: bool = False
    """Whether the ids that end a text are tokens like any other, as ``<|endoftext|>`` was in the original."""
    special: bool = False
    """Whether special tokens in a prompt, such as ``<|endoftext|>``, become their ids; by default they are text."""
    add_special_tokens: bool = True
    """Whether a prompt's ids include those that the model's files put around every text; GPT-2's put none."""
    skip_special_tokens: bool = False
    """Whether special tokens that are drawn add nothing to the text."""
    overflow: Literal["error", "slide"] = "error"
    """Whether prompt and length may outgrow the context; if so, its older half is dropped whenever it is full."""
    batch_size: int | None = None
    """The most samples that run together; None: chosen by the scheduler. Changes only the speed."""
    logprobs: bool | None = None
    """Whether completions carry the log-probabilities of their tokens."""
    top_logprobs: int = 0
    """The number of likeliest ids that completions carry for each token."""
    speculation: Literal["auto", "off"] = "auto"
    """Whether tokens are guessed ahead where that pays. Changes only the speed."""
    stages: tuple[CustomStage, ...] = ()
    """The user's own sampling stages."""

    def __post_init__(self) -> None:
        self._make_whole("seed", least=0)
        if self.seed >= 2**63:
            raise SamplingError(f"seed must be below 2^63, got {self.seed}")
        if self.length is not None:
            self._make_whole("length", least=0)
        if self.batch_size is not None:
            self._make_whole("batch_size", least=1)
        self._make_whole("top_logprobs", least=0)
        self._make_whole("min_tokens", least=0)
        ids = tuple(whole("stop_token_ids", id, least=0) for id in self.stop_token_ids)
        object.__setattr__(self, "stop_token_ids", ids)
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise UsageError(f"stop strings must be non-empty text, got {list(self.stop)!r}")
        for name, choices in (("overflow", OVERFLOWS), ("speculation", SPECULATIONS)):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def _make_whole(self, name: str, *, least: int) -> None:
        """Convert a field, which may hold a NumPy integer, to an int."""
        object.__setattr__(self, name, whole(name, getattr(self, name), least=least))


def make_options(**arguments: Unpack[GenerationArguments]) -> Options:
    """Check keyword arguments of generation and fill in the defaults.

    Raises :class:`~gpt2lab.errors.SamplingError` or :class:`~gpt2lab.errors.UsageError`.
    """
    check_names(arguments, GenerationArguments)
    stop = arguments.get("stop", ())
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop must be a string or a list of strings, got {stop!r}")
    names = {field.name for field in fields(Options)}
    given: dict[str, Any] = {name: value for name, value in arguments.items() if name in names}
    given["sampling"] = sampling_params(arguments)
    if "stages" in arguments:
        from gpt2lab.sampling.custom import custom_stages  # imported only for custom stages, because it takes time

        given["stages"] = custom_stages(arguments["stages"])
    given["seed"] = new_seed() if given.get("seed") is None else given["seed"]
    given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return Options(**given)


def check_names(arguments: Mapping[str, object], known: type, where: str = "") -> None:
    """Raise TypeError, as Python does for its functions, for a keyword that the TypedDict ``known`` does not have."""
    for name in arguments:
        if name not in known.__annotations__ and name not in PARAMETERS:
            raise TypeError(f"{where}unexpected keyword argument {name!r}")


def documented(known: type) -> Callable[[Function], Function]:
    """Spell out a function's ``**options``, those of the TypedDict ``known``, in its signature and docstring.

    A line ``sampling: …`` in the docstring becomes one line for each parameter.
    """

    def decorate(function: Function) -> Function:
        own = signature(function)
        shown = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        for name, annotation in _annotations(known).items():
            if name not in own.parameters:
                shown.append(Parameter(name, Parameter.KEYWORD_ONLY, default=_default(name), annotation=annotation))
        setattr(function, "__signature__", own.replace(parameters=shown))  # noqa: B010 (mypy knows no such attribute)
        lines = "\n".join(f"{' ' * 12}{p.name}: {p.help}" for p in PARAMETERS.values())
        written = (function.__doc__ or "").split("\n")
        function.__doc__ = "\n".join(lines if line.lstrip().startswith("sampling: ") else line for line in written)
        return function

    return decorate


def _annotations(known: type) -> dict[str, str]:
    named = {name: getattr(kind, "__forward_arg__", str(kind)) for name, kind in known.__annotations__.items()}
    return {**{p.name: type(p.default).__name__ for p in PARAMETERS.values()}, **named}


def _default(name: str) -> Any:
    """Return an option's default as a caller sees it."""
    return PARAMETERS[name].default if name in PARAMETERS else getattr(Options, name, None)


def new_seed() -> int:
    """Return a seed from the system's randomness; only 32 bits, because users read it and type it again."""
    return int.from_bytes(os.urandom(4), "little")


def sampling_params(arguments: SamplingArguments) -> SamplingParams:
    """Make :class:`~gpt2lab.sampling.SamplingParams` from the keyword arguments that are its fields; ignore others."""
    given: Mapping[str, object] = arguments
    return SamplingParams(**{f.name: given[f.name] for f in fields(SamplingParams) if f.name in given})  # type: ignore[arg-type]


def whole(name: str, value: int, *, least: int) -> int:
    """Return ``value`` as an int; raise :class:`~gpt2lab.errors.UsageError` unless it is one of at least ``least``."""
    try:
        number = as_int(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {short_repr(value)}") from None
    if number < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")
    return number
