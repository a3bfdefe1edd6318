"""Declare cases, and judge them. This module knows no format.

    @read("folder with model.safetensors", writer="transformers", note="all tensors, by name")
    def folder(path):
        return written(path, save(tiny(), path))

    @refused("folder with a LoRA adapter", writer="peft", note="merge it first", says=("adapter_config.json",))
    def adapter(path): ...        # returns the path that a user would give

A case is written by the real writer where that is a package; otherwise by a script that follows the published layout,
and ``writer`` names the program whose layout it is. transformers' logits and ids decide.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

import gpt2lab
import needs
from gpt2lab.cli.main import cli
from gpt2lab.weights import open_checkpoint

PROMPT = [5, 1, 4, 1, 3, 2, 6, 0]
"""Ids whose logits are compared."""
TOLERANCE = 1e-4
COMMANDS = ("info", "generate", "convert", "tokens")
"""Commands that must refuse what is refused."""


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk, and what is right about it.

    Attributes:
        path: what a user gives to ``--model``.
        logits: after each token of :data:`PROMPT`, ``[8, n_vocab]``, from transformers.
        ids: text → ids, from transformers' tokenizer.
        options: arguments of :func:`gpt2lab.load` that a user gives, and the options of the same names.
        says: words of each line that is logged when the checkpoint is opened, such as what was assumed.
    """

    path: Path
    logits: Any
    ids: Mapping[str, list[int]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A kind of checkpoint. ``refusal`` holds the words that the refusal contains; None: it is read."""

    kind: str
    writer: str
    note: str
    build: Callable[[Path], Any]
    refusal: tuple[str, ...] | None

    @property
    def name(self) -> str:
        return f"{Path(self.build.__code__.co_filename).stem}-{self.build.__name__}"


CASES: list[Case] = []


def read(kind: str, *, writer: str, note: str) -> Callable[[Callable[[Path], Written]], Callable[[Path], Written]]:
    """Register a function that writes a checkpoint into a new folder; it must be read right."""

    def register(build: Callable[[Path], Written]) -> Callable[[Path], Written]:
        CASES.append(Case(kind, writer, note, build, None))
        return build

    return register


def refused(
    kind: str, *, writer: str, note: str, says: tuple[str, ...]
) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Register a function that writes a checkpoint into a new folder; it must be refused in one line with ``says``."""

    def register(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(Case(kind, writer, note, build, says))
        return build

    return register


# ---- what builders share --------------------------------------------------------------------------------------------


def tiny(seed: int = 0, **config: Any) -> Any:
    """Return transformers' ``GPT2LMHeadModel``, small, with weights so large that every error shows in the logits."""
    torch, transformers = needs.package("torch"), needs.package("transformers")
    shape = {"vocab_size": 23, "n_positions": 16, "n_embd": 32, "n_head": 4, "n_layer": 2}
    shape |= {"bos_token_id": 22, "eos_token_id": 22}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**shape, **config})).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def safetensors_torch() -> Any:
    """Return the safetensors package's module for PyTorch."""
    needs.check("torch")
    return importlib.import_module("safetensors.torch")


def logits_of(model: Any) -> Any:
    """Return transformers' logits after each token of :data:`PROMPT`."""
    torch = needs.package("torch")
    with torch.no_grad():
        return model.float()(torch.tensor([PROMPT])).logits[0].numpy()


def saved(model: Any, folder: Path, **options: Any) -> Written:
    """Let transformers save a model; return the folder with the model's logits."""
    model.save_pretrained(folder, **options)
    return Written(folder, logits_of(model))


# ---- the judge ------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    """Run ``gpt2lab`` in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def flags(written: Written) -> list[str]:
    """Return the options of a command line for ``written``."""
    return [part for name, value in written.options.items() for part in (f"--{name}", str(value))]


def judge_read(written: Written) -> None:
    """Check logits in both engines, ids, ``info``, and that converted copies give the same."""
    check_logits(written.path, written.logits, written.options)
    model = check_ids(written.path, written)
    with logged() as lines:
        info = run("info", written.path, *flags(written))
    assert info.exit_code == 0, info.stderr
    assert len(lines) == len(written.says), lines
    for line, words in zip(lines, written.says, strict=True):
        assert words in line
    for name in copies(written):
        copy = written.path.parent / name
        conversion = run("convert", written.path, copy, "--precision", "float32", *flags(written))
        assert conversion.exit_code == 0, conversion.stderr
        check_logits(copy, written.logits, {})
        assert check_ids(copy, replace(written, options={})).eos == model.eos


def copies(written: Written) -> list[str]:
    """Return the names of copies in formats that can hold the tokenizer."""
    checkpoint = open_checkpoint(written.path, **written.options)
    other = checkpoint.other_tokenizer
    if other is None or other.json is not None:
        return ["a copy", "a copy.gguf"]
    return ["a copy"] if checkpoint.tokenizer_sources else []


def check_ids(path: Path, written: Written) -> Any:
    """Check token ids; return the model."""
    model = gpt2lab.load(path, **written.options)
    for text, ids in written.ids.items():
        assert model.tokenizer is not None and model.tokenizer.encode(text) == ids, text
    return model


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the lines that gpt2lab logs, which appear on stderr unless a program configures ``logging``."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("gpt2lab").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("gpt2lab").removeHandler(handler)


def check_logits(path: Path, expected: Any, options: Mapping[str, Any]) -> None:
    for device in ("cpu", "reference"):
        model = gpt2lab.load(path, device=device, **options)
        logits = model.logits(PROMPT)
        np.testing.assert_allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=device)


def judge_refused(path: Path, says: tuple[str, ...]) -> None:
    """Check that every command refuses in one line with ``says``, and writes nothing."""
    out = path.parent / "converted"
    arguments = {
        "info": ("info", path),
        "generate": ("generate", "--model", path),
        "convert": ("convert", path, out),
        "tokens": ("tokens", "a", "--model", path),
    }
    for command in COMMANDS:
        result = run(*arguments[command])
        assert result.exit_code == 2, f"{command}: {result.output}"
        assert result.stderr.startswith("gpt2lab: error: ") and result.stderr.count("\n") == 1, result.stderr
        for words in says:
            assert words in result.stderr, f"{command}: {words!r} is not in {result.stderr!r}"
    assert not out.exists()


def judge(case: Case, folder: Path) -> None:
    """Build a case in an empty folder. Raises ``AssertionError`` if it is not read or refused as registered."""
    built = case.build(folder)
    if case.refusal is None:
        judge_read(built)
    else:
        judge_refused(built, case.refusal)
