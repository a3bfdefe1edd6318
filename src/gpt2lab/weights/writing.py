"""What every writer shares: tensors as they will be stored, and files that are whole or not there.

Everything goes to a temporary neighbour first and is renamed at the end; an error, a full disk or Ctrl-C removes the
neighbour. What exists is left alone unless ``overwrite`` says otherwise. Knows no format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.quantization import Precision, encode


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: ``items`` makes its stored items, in one row, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    precision: Precision
    items: Callable[[], NDArray[Any]]


def encoded(checkpoint: Checkpoint, name: str, precision: Precision, *, transposed: bool = False) -> NDArray[Any]:
    """The checkpoint's tensor ``name`` as items of ``precision``; :class:`CheckpointError` where it cannot hold it."""
    values = checkpoint.tensors[name]
    try:
        return encode(values.T if transposed else values, precision)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {name} cannot be stored: {error}") from None


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` when the block ends without an error."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise CheckpointError(
            f"{path} exists already; give another name" + ("" if path.is_dir() else " or --overwrite")
        )
    import tempfile  # here, as it takes 4 ms that readers need not wait

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file
        if path.exists() and not overwrite:
            raise CheckpointError(f"{path} was made by somebody else meanwhile; give another name or --overwrite")
        _publish(temporary, path)
        temporary = None
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False, marker: str) -> Iterator[Path]:
    """A folder whose files are found under ``path`` when the block ends without an error.

    An existing folder is taken if it is empty, or with ``overwrite`` if it holds a file named ``marker`` (so it is of
    the kind being written): then files of the same name are replaced one by one and others stay.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file, not a folder; give another name")
    occupied = path.is_dir() and any(path.iterdir())
    if occupied and not overwrite:
        raise CheckpointError(f"{path} exists already; give another name or --overwrite")
    if occupied and not (path / marker).is_file():
        raise CheckpointError(f"{path} holds something else (it has no {marker}); give another name")
    import shutil
    import tempfile

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        if occupied:
            for file in sorted(temporary.iterdir()):
                _publish(file, path / file.name)
        else:
            for file in temporary.iterdir():
                _readable(file)
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, path: Path) -> None:
    _readable(temporary)
    temporary.replace(path)


def _readable(path: Path) -> None:
    """Give a temporary file, private by default, the permissions that any new file has."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
