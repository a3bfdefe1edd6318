"""One prompt, one seed, several temperatures: samples side by side, with figures that show what changed.

Sample i of every setting uses random stream i of the same seed, so only the temperature differs, and ``gpt2lab
generate`` can reproduce each. This module knows nothing of how results are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import UsageError
from gpt2lab.exploring.copying import longest_runs, read_corpus, vocabulary
from gpt2lab.exploring.figures import Figures, figures
from gpt2lab.exploring.reading import Reading, read_sample
from gpt2lab.exploring.replay import generate_command
from gpt2lab.generation.options import new_seed
from gpt2lab.generation.run import in_order

if TYPE_CHECKING:
    from gpt2lab.exploring.copying import Run
    from gpt2lab.generation.completion import FinishReason
    from gpt2lab.model import LanguageModel
    from gpt2lab.sampling.declaration import SamplingParams

TEMPERATURES = (0.0, 0.5, 1.0, 1.1, 1.2, 1.3, 2.0, 100.0)
"""The default: the temperatures once tried by hand to find out what temperature does."""


@dataclass(frozen=True)
class Request:
    """The description of a sweep.

    Attributes:
        params: the sampling parameters; each of ``temperatures`` replaces their temperature.
        model: command-line options that name the model, for the commands that reproduce samples.
        against: a text, or a folder of .txt files, to search for copied passages.
        words: a word list or text (or a folder of .txt files) whose words count as known; None takes ``against``.
    """

    prompt: str
    params: SamplingParams
    temperatures: Sequence[float] = TEMPERATURES
    nsamples: int = 3
    length: int = 60
    seed: int | None = None
    ignore_eos: bool = False
    model: Sequence[str] = ()
    against: str | None = None
    words: str | None = None


@dataclass(frozen=True)
class Sample:
    """One sample: its text, the unmodified model's readings, and a command that prints it last."""

    text: str
    finish_reason: FinishReason
    readings: list[Reading]
    command: str
    copied: Run | None = None


@dataclass(frozen=True)
class Setting:
    """The samples of one temperature, their figures, and the command that reproduces them all."""

    params: SamplingParams
    samples: list[Sample]
    figures: Figures
    command: str

    @property
    def name(self) -> str:
        """The temperature, written as short as possible."""
        return f"{self.params.temperature:g}"


@dataclass(frozen=True)
class Sweep:
    """The result of a :class:`Request`, whose seed is now set."""

    request: Request
    model_name: str
    precision: str
    settings: list[Setting]


def sweep(model: LanguageModel, request: Request, model_name: str = "") -> Sweep:
    """Draw and read all samples.

    Raises a :class:`~gpt2lab.errors.Gpt2LabError` for invalid requests, before any work.
    """
    if not request.temperatures:
        raise UsageError("a sweep needs at least one temperature")
    request = replace(request, seed=new_seed() if request.seed is None else request.seed)
    settings = [replace(request.params, temperature=temperature) for temperature in request.temperatures]  # checked
    corpus = list(read_corpus(request.against)) if request.against is not None else None
    dictionary = request.words if request.words is not None else request.against
    known = vocabulary(read_corpus(dictionary)) if dictionary is not None else None
    drawn = [(params, list(_samples(model, request, params))) for params in settings]
    texts = [sample.text for _, samples in drawn for sample in samples]
    runs = iter(longest_runs(texts, corpus)) if corpus is not None else None
    results = []
    for params, samples in drawn:
        if runs is not None:
            samples = [replace(sample, copied=run) for sample, run in zip(samples, runs, strict=False)]
        found = [sample.copied for sample in samples if sample.copied is not None]
        numbers = figures([s.readings for s in samples], [s.text for s in samples], found, known)
        results.append(Setting(params, samples, numbers, _command(request, params, request.nsamples)))
    return Sweep(request, model_name, model.precision, results)


def _samples(model: LanguageModel, request: Request, params: SamplingParams) -> Iterator[Sample]:
    sampling: dict[str, Any] = dict(vars(params))
    pieces = model.pieces(
        [request.prompt],
        n=request.nsamples,
        length=request.length,
        seed=request.seed,
        ignore_eos=request.ignore_eos,
        **sampling,
    )
    for number, completion in enumerate(in_order(pieces), 1):
        yield Sample(
            text=completion.text,
            finish_reason=completion.finish_reason,
            readings=read_sample(model, request.prompt, completion.tokens, params) if completion.tokens else [],
            command=_command(request, params, number),
        )


def _command(request: Request, params: SamplingParams, nsamples: int) -> str:
    assert request.seed is not None
    return generate_command(
        request.prompt,
        params,
        length=request.length,
        seed=request.seed,
        nsamples=nsamples,
        ignore_eos=request.ignore_eos,
        model=request.model,
    )
