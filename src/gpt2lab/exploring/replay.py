"""The ``gpt2lab generate`` command that reproduces a sample. This module knows nothing of how samples are made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields

from gpt2lab.sampling.declaration import SamplingParams


def generate_command(
    prompt: str,
    params: SamplingParams,
    *,
    length: int,
    seed: int,
    nsamples: int = 1,
    ignore_eos: bool = False,
    model: Sequence[str] = (),
) -> str:
    """Return a line for a POSIX shell that writes ``nsamples`` samples, of which the last has the number ``nsamples``.

    ``model`` are the options for the model and its precision.
    """
    options: list[str] = []
    for field in fields(params):
        value = getattr(params, field.name)
        if not isinstance(value, Mapping) and (value != field.default or field.name == "temperature"):
            options += [f"--{field.name}", repr(value).removesuffix(".0")]
    options += ["--length", str(length), "--seed", str(seed)]
    options += ["--nsamples", str(nsamples)] if nsamples != 1 else []
    options += ["--ignore_eos"] if ignore_eos else []
    if prompt == "-":  # as an argument it would mean standard input
        return f"echo - | {shlex.join(['gpt2lab', 'generate', '-', *options, *model])}"
    if prompt.startswith("-"):
        return shlex.join(["gpt2lab", "generate", *options, *model, "--", prompt])
    return shlex.join(["gpt2lab", "generate", *([prompt] if prompt else []), *options, *model])
