"""A training run's folder: saving models and states, and finding them again.

    <run>/model.safetensors, config.json     the best model so far, a Hugging Face style folder
    <run>/state-<step>/                       everything needed to resume: weights, optimizer, counters, checksums
    <run>/counter                             the step of the last state, as the original wrote it

Files are written beside their final place, one tensor at a time, and moved there in one step. A kill, a power cut or a
full disk at any moment therefore leaves the previous files intact. This module knows nothing of the training loop.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.system.atomic import PARTIAL, new_files, new_folder, replace, write_file
from gpt2lab.system.files import utf8_name
from gpt2lab.system.marks import is_plain
from gpt2lab.weights.huggingface import config_json
from gpt2lab.weights.huggingface_special import GENERATION, TOKENIZER_FILES
from gpt2lab.weights.huggingface_weights import canonical_name, stored_name
from gpt2lab.weights.precisions import PRECISIONS
from gpt2lab.weights.safetensors_file import write_safetensors
from gpt2lab.weights.tokenizer_copy import TokenizerCopy
from gpt2lab.weights.writing import NewTensor

Tensors = Mapping[str, Tensor]
WEIGHTS = ("model", "adapter")
"""The file with a state's weights: the whole model, or with LoRA only the adapter."""
_FILES = frozenset(
    [
        *(f"{part}.safetensors" for part in (*WEIGHTS, "optimizer")),
        *("progress.json", "config.json", *TOKENIZER_FILES, GENERATION),
    ]
)
COUNTER = "counter"
"""The file in a run folder with the number of updates of the last saved state."""
_BLOCK = 1 << 24  # bytes per read when computing a checksum


@dataclass(frozen=True)
class State:
    """A checked state folder. ``weights`` are canonical tensors, or an adapter's if ``kind`` is "adapter"."""

    path: Path
    kind: str
    weights: Tensors
    optimizer: Tensors
    progress: dict[str, Any]


def write_model(folder: Path, config: ModelConfig, tensors: Tensors, vocabulary: TokenizerCopy | None = None) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``vocabulary``, if given, as a Hugging Face style folder.

    Raises :class:`CheckpointError` on failure; the previous files then stay.
    """
    with _complaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with new_files(folder, sync=True) as partial:
            described = _write_description(partial, config, vocabulary)
            _write_tensors(partial / "model.safetensors", named_as_stored(tensors))
            if (folder / "config.json").exists() and (folder / "config.json").read_bytes() != described:
                (folder / "model.safetensors").unlink(missing_ok=True)  # a kill must not leave it with another config


def save_state(
    run: Path,
    config: ModelConfig,
    kind: str,
    weights: Tensors,
    optimizer: Tensors,
    progress: Mapping[str, Any],
    *,
    keep: int,
    hours: float = 0.0,
    vocabulary: TokenizerCopy | None = None,
) -> Path:
    """Write ``state-<step>`` of a run, and its step to ``counter``; delete all but the last ``keep`` states.

    States with further files stay, and so does one for every ``hours`` of training, unless that is 0.

    ``kind`` is one of :data:`WEIGHTS`; ``progress`` has ``step`` and ``generation`` (see :func:`states`) and anything
    else that JSON can hold. Raises :class:`CheckpointError` on failure; earlier states then stay.
    """
    name = f"{progress['step']:07}"
    final = run / f"state-{name}"
    with _complaining(final):
        _sweep(run)
        aside = _place_aside(run, name, replacing=final.exists())
        with new_folder(final, sync=True, aside=aside) as partial:
            if kind == "model":  # every command can then load the folder
                _write_description(partial, config, vocabulary)
            parts = {kind: weights, "optimizer": dict(sorted(optimizer.items()))}
            files = {
                f"{part}.safetensors": _write_tensors(
                    partial / f"{part}.safetensors", named_as_stored(tensors) if part == "model" else tensors
                )
                for part, tensors in parts.items()
            }
            content = {**progress, "files": files, "crc32": _json_crc({**progress, "files": files})}
            (partial / "progress.json").write_bytes(_json_bytes(content))
        write_file(
            run / COUNTER, f"{progress['step']}\n".encode(), sync=False
        )  # as the original; nothing here reads it
        found = states(run)
        lasting = _one_every(hours, found)
        for old in (aside, *[state for state in found if state not in (final, aside)][: -(keep - 1) or None]):
            if old not in lasting and _is_own(old):
                _remove(old)
    return final


def states(run: Path) -> list[Path]:
    """Return the states of a run, oldest first.

    A run that starts over, or goes back to an earlier state, repeats step numbers: its states have a higher
    ``generation``. A state whose ``progress.json`` cannot be read counts as one of the last generation.
    """
    found = [(_generation(state), state) for state in run.glob("state-*") if _step(state) is not None]
    last = max((generation for generation, _ in found if generation is not None), default=0)
    return [state for _, _, state in sorted((last if g is None else g, _step(s) or 0, s) for g, s in found)]


def is_state(path: Path) -> bool:
    """Return whether ``path`` is a state folder, complete or not."""
    return (path / "progress.json").is_file() or _step(path) is not None


def next_generation(run: Path) -> int:
    """Return a generation that makes new states count as newer than all existing ones."""
    return max((_generation(state) or 0 for state in states(run)), default=-1) + 1


def load_state(state: Path) -> State:
    """Open a state folder and compare its files with their checksums; tensors are read on access.

    Raises :class:`CheckpointError` if the folder is not a state or is damaged.
    """
    try:
        progress: dict[str, Any] = json.loads((state / "progress.json").read_text(encoding="utf-8"))
        if progress.pop("crc32") != _json_crc(progress):
            raise ValueError("progress.json does not match its checksum")
        files = progress.pop("files")
        for name, expected in files.items():
            if _checksum(state / name) != expected:
                raise ValueError(f"{name} does not match its checksum")
        for name in ("step", "generation"):
            if type(progress[name]) is not int:
                raise ValueError(f"its {name} is {progress[name]!r}")
        kind = next(kind for kind in WEIGHTS if f"{kind}.safetensors" in files)
        weights = TensorFile(state / f"{kind}.safetensors", of_model=kind == "model")
        return State(state, kind, weights, TensorFile(state / "optimizer.safetensors"), progress)
    except OSError as error:
        what = f"{Path(error.filename).name if error.filename else 'it'}: {error.strerror or error}"
        raise CheckpointError(f"{state} cannot be resumed ({what})") from None
    except (
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
        StopIteration,
        SafetensorError,
    ) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or "it lists no weights"
        raise CheckpointError(f"{state} cannot be resumed ({what})") from None


def load_latest(run: Path, say: Callable[[str], None]) -> State | None:
    """Return the newest intact state, None if the run has no states; damaged ones are reported through ``say``.

    Raises :class:`CheckpointError` if there are states but none is intact.
    """
    every = states(run)
    for state in reversed(every):
        try:
            return load_state(state)
        except CheckpointError as error:
            say(f"{error}: trying the previous state")
    if every:
        raise CheckpointError(f"every state of {run} is damaged: give --restore_from fresh to start again")
    return None


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read on access; those of a model under their canonical names."""

    def __init__(self, path: Path, *, of_model: bool = False) -> None:
        with path.open("rb") as file:
            self._file = cast("Any", safe_open(utf8_name(path, file), framework="pt"))
        stored = list(self._file.keys())
        self._stored = {canonical_name(name) if of_model else name: name for name in stored}

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(self._stored[name])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class _Summed:
    """A file being written, with its size and CRC-32 so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.crc = file, 0, 0

    def write(self, data: bytes | memoryview) -> int:
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        return self._file.write(data)


def _write_description(folder: Path, config: ModelConfig, vocabulary: TokenizerCopy | None) -> bytes:
    """Write a model folder's files other than the weights; return the content of ``config.json``."""
    described = _json_bytes(config_json(config, "float32", vocabulary.ids if vocabulary else {}))
    (folder / "config.json").write_bytes(described)
    if vocabulary is not None:
        vocabulary.write(folder)
    return described


def named_as_stored(tensors: Tensors) -> Tensors:
    """Return a model's tensors under their names in Hugging Face's files."""
    return {stored_name(name): tensor for name, tensor in tensors.items()}


def _write_tensors(path: Path, tensors: Tensors) -> dict[str, int]:
    """Write a file of tensors; return its size and CRC-32."""

    def stored(name: str, tensor: Tensor) -> NewTensor:
        def items() -> NDArray[Any]:
            return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy()).reshape(-1)

        return NewTensor(name, tuple(tensor.shape), PRECISIONS["float32"], items)

    with path.open("wb") as file:
        out = _Summed(file)
        write_safetensors(cast("IO[bytes]", out), [stored(name, tensor) for name, tensor in tensors.items()])
    return {"bytes": out.size, "crc32": out.crc}


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _json_crc(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    """Turn the system's errors into a one-line :class:`CheckpointError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(f"cannot write {path}: {why}; earlier saves are intact") from None


def _sweep(run: Path) -> None:
    """Delete what a killed run left behind while it wrote or removed a state."""
    for leftover in run.glob(f".*{PARTIAL}"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _place_aside(run: Path, name: str, *, replacing: bool) -> Path:
    """Return a free place to rename a state to; :func:`states` reads the same step there and sorts it before others."""
    place = run / f"state-0{name}"
    while replacing and place.exists():
        if _is_own(place):
            _remove(place)
        else:
            place = place.with_name(place.name.replace("-", "-0"))
    return place


def _is_own(state: Path) -> bool:
    """Return whether ``state`` is a folder that holds only the files of a state."""
    if state.is_symlink() or not state.is_dir():
        return False
    return all(file.name in _FILES and is_plain(file) for file in state.iterdir())


def _remove(state: Path) -> None:
    """Rename a state before deleting its files, so that a kill leaves no partial state under its name."""
    doomed = state.with_name(f".{state.name}{PARTIAL}")
    replace(state, doomed)
    shutil.rmtree(doomed)


def _step(state: Path) -> int | None:
    digits = state.name.removeprefix("state-")
    return int(digits) if digits.isdecimal() and state.is_dir() else None


def _one_every(hours: float, found: Sequence[Path]) -> set[Path]:
    """Return the first of the states ``found`` in each period of ``hours`` of training after the first one."""
    lasting: set[Path] = set()
    last = 0.0
    for state in found if hours else ():
        period = (_recorded(state, "seconds") or 0.0) // (3600 * hours)
        if period > last:
            lasting.add(state)
            last = period
    return lasting


def _generation(state: Path) -> int | None:
    number = _recorded(state, "generation")
    return None if number is None else int(number)


def _recorded(state: Path, name: str) -> float | None:
    """Return a number in a state's ``progress.json``, 0 if it is not there; None if the file cannot be read."""
    try:
        number = float(json.loads((state / "progress.json").read_text(encoding="utf-8")).get(name, 0))
    except (OSError, ValueError, OverflowError, AttributeError, TypeError, RecursionError):
        return None
    return number if math.isfinite(number) else None


def _checksum(path: Path) -> dict[str, int]:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"bytes": size, "crc32": crc}
