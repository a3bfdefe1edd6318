"""The common part of all writers: tensors as they will be stored, and files that appear only when complete.

Existing files stay unless ``overwrite`` is set; :mod:`gpt2lab.system.atomic` replaces them. This module knows no
format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from gpt2lab.errors import CheckpointError
from gpt2lab.system.atomic import new_file, new_files, new_folder
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.precisions import Precision
from gpt2lab.weights.quantization import encode


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write: ``items`` returns its stored items, in one row, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    precision: Precision
    items: Callable[[], NDArray[Any]]


def encoded(checkpoint: Checkpoint, name: str, precision: Precision, *, transposed: bool = False) -> NDArray[Any]:
    """Encode tensor ``name`` as items of ``precision``. Raises :class:`CheckpointError` if a value does not fit."""
    values = checkpoint.tensors[name]
    try:
        return encode(values.T if transposed else values, precision)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {name} cannot be stored: {error}") from None


@contextmanager
def destination_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes ``path`` when the block ends without an error."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise CheckpointError(
            f"{path} already exists; give another name" + ("" if path.is_dir() else " or --overwrite")
        )
    with _complaining(path), new_file(path, sync=False) as file:
        yield file
        if path.exists() and not overwrite:
            raise CheckpointError(f"another process has created {path} meanwhile; give another name or --overwrite")


@contextmanager
def destination_folder(path: Path, *, overwrite: bool = False, marker: str) -> Iterator[Path]:
    """Yield a folder whose files appear under ``path`` when the block ends without an error.

    An existing folder is used if it is empty, or with ``overwrite`` if it holds a file named ``marker`` (so it is of
    the kind being written): then files of the same name are replaced one by one, and others stay.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file, not a folder; give another name")
    occupied = path.is_dir() and any(path.iterdir())
    if occupied and not overwrite:
        raise CheckpointError(f"{path} already exists; give another name or --overwrite")
    if occupied and not (path / marker).is_file():
        raise CheckpointError(f"{path} is another kind of folder (it has no {marker}); give another name")
    writer = new_files if occupied else new_folder
    with _complaining(path), writer(path, sync=False) as folder:
        yield folder


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
