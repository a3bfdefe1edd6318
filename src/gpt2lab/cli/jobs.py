"""``gpt2lab generate --prompts … --out …``: a job in parts, here or on a Ray cluster."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.cli.output import json_line, plain
from gpt2lab.cli.progress import Progress
from gpt2lab.cli.prompts import hint_at_space
from gpt2lab.errors import UsageError
from gpt2lab.generation.options import make_options
from gpt2lab.system.paths import expanded

if TYPE_CHECKING:
    from gpt2lab.cli.job_options import JobOptions
    from gpt2lab.generation.completion import Completion, Prompt
    from gpt2lab.jobs.generating import Order
    from gpt2lab.jobs.parts import Parts
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer

_TELL_SECONDS = 30


def run_job(
    prompts: Sequence[Prompt],
    out: str,
    load: Callable[[], LanguageModel],
    make_order: Callable[[LanguageModel, int | None], Order],
    how: JobOptions,
) -> None:
    """Write all samples of ``prompts`` to ``out``, continuing an interrupted run.

    ``make_order`` receives the model and the seed of that run, None if there was none.
    """
    from gpt2lab.jobs.generating import check_prompts
    from gpt2lab.jobs.outputs import output_at
    from gpt2lab.jobs.parts import Parts, recorded_settings

    output = output_at(out)
    with output.held():
        recorded = {} if how.overwrite else recorded_settings(output) or {}
        model = load()
        order = make_order(model, recorded.get("seed"))
        check_prompts(prompts, order, model)
        parts = Parts(output, order.n_parts(prompts))
        missing = parts.begin(order.settings(prompts, model), overwrite=how.overwrite)
        print(f"gpt2lab: seed {order.options['seed']}", file=sys.stderr)
        hint_at_space(prompts)
        if there := order.n_parts(prompts) - len(missing):
            print(f"gpt2lab: {there:,} of {there + len(missing):,} parts are already complete", file=sys.stderr)
        try:
            with parts.kept():
                if how.ray and missing:
                    _on_ray(prompts, order, parts, missing, how)
                elif missing:
                    _here(prompts, order, parts, missing, model)
        except KeyboardInterrupt:
            print(f"gpt2lab: {parts.state()}", file=sys.stderr)
            raise
        parts.finish(overwrite=how.overwrite)
    print(f"gpt2lab: {len(prompts) * order.nsamples:,} samples written to {out}", file=sys.stderr)


def order_maker(
    model_arguments: dict[str, Any], options: dict[str, Any], nsamples: int, as_json: bool, how: JobOptions
) -> Callable[[LanguageModel, int | None], Order]:
    """Return the function that makes the order for :func:`run_job`. Raises :class:`UsageError` for invalid options."""
    from gpt2lab.jobs.generating import Order, digest_of, processors_of

    if not nsamples:
        raise UsageError("--nsamples 0 never ends: with --prompts and --out, give a number of samples")
    drawn = make_options(**options).seed  # raises before a model is opened or downloaded

    def order_of(model: LanguageModel, recorded_seed: int | None) -> Order:
        seed = drawn if options["seed"] is not None or recorded_seed is None else recorded_seed
        return Order(
            model=_found_from_anywhere(
                {**model_arguments, "device": model.device},  # auto may be another one on another machine
                threads=1 if how.ray else None,
            ),
            options={**options, "seed": seed},
            nsamples=nsamples,
            part_size=how.part_size,
            text_of=_json if as_json else plain,
            processors=processors_of(model),
            digest=digest_of(model),
        )

    return order_of


def _here(prompts: Sequence[Prompt], order: Order, parts: Parts, missing: list[int], model: LanguageModel) -> None:
    from gpt2lab.jobs.generating import make_parts, runs

    n_samples = sum(len(order.prompts_of(part, prompts)) for part in missing) * order.nsamples
    with Progress(n_samples, live=True) as progress:
        for first, count in runs(missing):
            of_run = order.prompts_of(first, prompts, count)
            for number, data in make_parts(model, of_run, first, order, progress.watch):
                parts.add(number, data)


def _on_ray(prompts: Sequence[Prompt], order: Order, parts: Parts, missing: list[int], how: JobOptions) -> None:
    from gpt2lab.jobs.cluster import Row, Stage, connected, rows
    from gpt2lab.jobs.generating import Writer

    given = [Row(part, "", json.dumps(order.prompts_of(part, prompts)).encode()) for part in missing]
    stage = Stage(Writer, {"order": order}, cpus=order.model["threads"], workers=how.workers)
    with connected(how.ray_address) as ray:
        for part in told(rows(ray, given, [stage]), len(given), "parts"):
            parts.add(part.number, part.data)


def told(items: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """Yield ``items`` unchanged, and report their number on stderr now and then."""
    shown = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - shown > _TELL_SECONDS:
            shown = time.monotonic()
            print(f"gpt2lab: {number:,} of {total:,} {what}", file=sys.stderr, flush=True)


def _found_from_anywhere(model_arguments: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """Return ``model_arguments`` with existing paths made absolute, and with ``threads`` if they set none."""
    found = dict(model_arguments)
    for key in ("name_or_path", "draft"):
        name = found[key]
        if name is not None and (
            here := next((p for p in (Path(expanded(name)), Path("models", name)) if p.exists()), None)
        ):
            found[key] = str(here.absolute())
    return {**found, "threads": found["threads"] or threads}


def _json(completion: Completion, _: Tokenizer | None) -> str:
    return json_line(completion)
