"""One prompt, one seed, several temperatures: samples side by side, with figures that show what changed.

Sample i of every setting uses random stream i of the same seed, so only the temperature differs, and ``gpt2lab
generate`` can reproduce each. This module knows nothing of how results are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import UsageError
from gpt2lab.exploring.copying import longest_runs, read_corpus, vocabulary
from gpt2lab.exploring.figures import figures
from gpt2lab.exploring.reading import read_sample
from gpt2lab.exploring.replay import generate_command
from gpt2lab.exploring.swept import TEMPERATURES, Request, Sample, Setting, Sweep
from gpt2lab.generation.options import new_seed
from gpt2lab.generation.run import in_order

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.sampling.declaration import SamplingParams

__all__ = ["TEMPERATURES", "Request", "sweep"]


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
