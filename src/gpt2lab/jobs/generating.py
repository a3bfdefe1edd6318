"""Samples of many prompts as a job: its description, and the workers that make its parts.

A part is the samples of ``part_size`` successive prompts, as they will appear in the output. Sample i of prompt p uses
random stream p·n + i on every machine, so parts may be made in any order, by any process, with any batch. Everything
else that text depends on (weights, precision, group of processors, versions) is fixed when the job begins, and every
worker checks it. This module knows nothing of clusters.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.engines.precision import (
    EVERY_PROCESSOR,
    MACHINE_GROUPS,
    MATRIX_UNIT_PRECISIONS,
    machine_group,
    machine_of,
)
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.generation.completion import Completion, Piece, Prompt
from gpt2lab.generation.options import make_options
from gpt2lab.generation.plan import make_plan, naming_prompt
from gpt2lab.generation.run import in_order
from gpt2lab.jobs.parts import Settings
from gpt2lab.version import CONTRACT, __version__

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer

TextOf = Callable[[Completion, "Tokenizer | None"], str]
"""A function that formats a sample; it is defined in a module, so that another process can import it."""

_SPEED_ALONE = ("batch_size", "speculation")  # options that change no text


@dataclass(frozen=True)
class Order:
    """Everything that a worker on any machine needs to know.

    Attributes:
        model: keyword arguments of :func:`gpt2lab.load`.
        options: keyword arguments of generation, with a seed.
        nsamples: the number of samples of each prompt.
        part_size: the number of prompts in a part.
        text_of: formats a sample.
        processors: the group of processors, or the machine with a GPU, that computes the same bits; None for the
            reference engine.
        digest: the digest of the checkpoint's files and configuration.
        version: the version of gpt2lab.
        contract: the version of the contract.
    """

    model: dict[str, Any]
    options: dict[str, Any]
    nsamples: int
    part_size: int
    text_of: TextOf
    processors: str | None
    digest: str
    version: str = __version__
    contract: int = CONTRACT

    def settings(self, prompts: Sequence[Prompt], model: LanguageModel) -> Settings:
        """Return everything that the output depends on, for the record of the job."""
        options = asdict(make_options(**self.options))
        sampling = options.pop("sampling")
        del sampling["logit_bias"], options["stages"]  # keyed by ids, and functions: the command line has neither
        held = {"precision": model.precision, "kv_precision": model.kv_precision, "processors": self.processors}
        settings = {
            "contract": self.contract,
            "version": self.version,
            "prompts": hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()[:16],
            "model": self.digest[:16],
            **held,
            "nsamples": self.nsamples,
            "part_size": self.part_size,
            "form": self.text_of.__name__.strip("_"),
            **{name: value for name, value in {**sampling, **options}.items() if name not in _SPEED_ALONE},
        }
        as_read: Settings = json.loads(json.dumps(settings))  # tuples become lists
        return as_read

    def n_parts(self, prompts: Sequence[Prompt]) -> int:
        """Return the number of parts that ``prompts`` make."""
        return -(-len(prompts) // self.part_size)

    def prompts_of(self, part: int, prompts: Sequence[Prompt], count: int = 1) -> Sequence[Prompt]:
        """Return the prompts of ``count`` parts from ``part`` on."""
        return prompts[part * self.part_size : (part + count) * self.part_size]


def check_prompts(prompts: Sequence[Prompt], order: Order, model: LanguageModel) -> None:
    """Check the prompts before any work is done; raises the errors of :meth:`LanguageModel.generate`."""
    options = make_options(**order.options)
    for number, prompt in enumerate(prompts, 1):
        with naming_prompt(number, len(prompts)):
            make_plan(prompt, options, model.config, model.tokenizer, model.eos)


def make_parts(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    first_part: int,
    order: Order,
    watch: Callable[[Iterable[Piece]], Iterable[Piece]] = iter,
) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of ``prompts``, which begin with part ``first_part``, each with its number.

    ``watch`` receives the pieces and passes them on.
    """
    size = order.part_size * order.nsamples
    first_index = first_part * size
    pieces = model.pieces(prompts, n=order.nsamples, first_index=first_index, **order.options)
    texts: list[str] = []
    number = first_part
    with closing(pieces):
        for completion in in_order(watch(pieces), first_index):
            texts.append(order.text_of(completion, model.tokenizer))
            if len(texts) == size:
                yield number, "".join(texts).encode()
                number, texts = number + 1, []
    if texts:
        yield number, "".join(texts).encode()


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending numbers as runs of successive ones: the first of each, and its length."""
    first = count = 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count


class Writer:
    """A worker that makes single parts in a process that knows only the :class:`Order`.

    Raises :class:`~gpt2lab.errors.UsageError` if its text would differ from that of the machine where the job began.
    """

    def __init__(self, order: Order) -> None:
        from gpt2lab.model import load

        if (order.version, order.contract) != (__version__, CONTRACT):
            raise UsageError(
                f"gpt2lab {order.version} (contract {order.contract}) started the job, but a worker has {__version__} "
                f"(contract {CONTRACT}): install the same version"
            )
        if order.processors in MACHINE_GROUPS:
            _join(order.processors)
        self._order = order
        self._model = load(**order.model)
        machine = None if order.processors in (None, *MACHINE_GROUPS) else order.processors
        if machine_of(self._model.engine) != machine:
            raise UsageError(f"the job began on {order.processors}, but a worker has {processors_of(self._model)}")
        if digest_of(self._model) != order.digest:
            name = order.model["name_or_path"]
            raise UsageError(
                f"a worker has different weights for the model {name} than the machine that started the job: copy that "
                "machine's files to it"
            )

    def __call__(self, number: int, data: bytes) -> Iterator[tuple[int, str, bytes]]:
        """Yield part ``number``, made of the prompts in ``data``, which is JSON."""
        for part, text in make_parts(self._model, json.loads(data), number, self._order):
            yield part, "", text


def digest_of(model: LanguageModel) -> str:
    """Return the digest of the model's files and configuration.

    Raises :class:`~gpt2lab.errors.CheckpointError` if reading fails.
    """
    from gpt2lab.engines import digests, packed_cache
    from gpt2lab.engines.origin import with_config

    files = model.checkpoint.files
    try:
        folder = packed_cache.default_folder()
        digest = digests.recorded_digest(folder, digests.stamp(files)) if folder else None
        return with_config(digest or digests.content_digest(files), model.config)
    except OSError as error:
        raise CheckpointError(f"cannot read {model.checkpoint.path}: {error.strerror or error}") from None


def processors_of(model: LanguageModel) -> str | None:
    """Return the group of processors that give the same text as this one; None for the reference engine."""
    if model.device != "cpu":
        return machine_of(model.engine)
    from gpt2lab.engines.native import instruction_set

    return machine_group(model.precision, instruction_set())


def _join(group: str) -> None:
    """Choose an instruction set of ``group`` for this process, if the one that it would use belongs to another."""
    from gpt2lab import _native
    from gpt2lab.engines.native import instruction_set

    dependent = MATRIX_UNIT_PRECISIONS[0]  # the groups differ in any of these
    if group in (EVERY_PROCESSOR, machine_group(dependent, instruction_set())):
        return
    suitable = [name for name in _native.instruction_sets() if machine_group(dependent, name) == group]
    if not suitable:
        raise UsageError(
            "the job began on a processor with a matrix unit, which a worker lacks: start it with another GPT2LAB_ISA, "
            "such as avx512vnni, or with --precision float32"
        )
    os.environ["GPT2LAB_ISA"] = suitable[0]
