"""The output of a job, and its finished parts, which wait for the others beside it, in ``<OUT>.parts``.

OUT is a file here or, through fsspec, an object elsewhere (``s3://`` …). Each part, and OUT itself, appears under its
name only when it is complete. This module knows nothing of what parts hold.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Protocol

from gpt2lab.data.remote import filesystem_of, is_local, is_remote
from gpt2lab.errors import CheckpointError, UsageError, first_line
from gpt2lab.system.atomic import PARTIAL, new_file, write_file
from gpt2lab.system.locks import Hold
from gpt2lab.system.marks import delete
from gpt2lab.weights.writing import destination_file

SUFFIX = ".parts"

RECORD = "job.json"
"""The file beside the parts that records which job they belong to."""


_PART = re.compile(r"part-\d{8}")


def part_name(number: int) -> str:
    """Return the name of a part."""
    return f"part-{number:08d}"


def _is_part(name: str) -> bool:
    return _PART.fullmatch(name) is not None


class Output(Protocol):
    """OUT and its parts. All methods raise :class:`~gpt2lab.errors.UsageError` if reading or writing fails."""

    name: str
    parts_name: str

    def held(self) -> AbstractContextManager[None]:
        """Return a context in which only this process may write parts, where locks exist."""

    def exists(self) -> bool:
        """Return whether OUT already exists."""

    def parts(self) -> set[str]:
        """Return the names of the existing parts."""

    def read(self, part: str) -> bytes:
        """Return the content of a part."""

    def write(self, part: str, data: bytes) -> None:
        """Make or replace a part."""

    def join(self, parts: Iterable[str], *, overwrite: bool) -> None:
        """Concatenate parts into OUT."""

    def forget(self) -> None:
        """Remove all parts."""


def output_at(out: str) -> Output:
    """Return the output at a path or an address. Raises :class:`~gpt2lab.errors.UsageError` if it is out of reach."""
    if not is_remote(out):
        return LocalOutput(Path(out))
    filesystem, path = filesystem_of(out, "writing")
    return LocalOutput(Path(path)) if is_local(filesystem) else RemoteOutput(out, filesystem, path)


class LocalOutput:
    """A file on this machine, or in a folder that it shares with others."""

    def __init__(self, path: Path) -> None:
        if not path.name:
            raise UsageError(f"{str(path)!r} is not a file name: give another --out")
        self.name = str(path)
        self._path = path
        self._folder = path.with_name(path.name + SUFFIX)
        self.parts_name = str(self._folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes, on all machines that share the folder's locks, from writing parts meanwhile."""
        with Hold() as hold:
            with self._complaining("write", self._folder):
                hold.take(self._folder, create=True)
            try:
                yield
            finally:
                with suppress(OSError):  # it stays if it is not empty
                    self._folder.rmdir()

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self._path.exists()

    def parts(self) -> set[str]:
        """Return the names of the part files."""
        with self._complaining("read", self._folder):
            return {path.name for path in self._folder.iterdir() if not path.name.startswith(".")}

    def read(self, part: str) -> bytes:
        """Read a part file."""
        with self._complaining("read", self._folder / part):
            return (self._folder / part).read_bytes()

    def write(self, part: str, data: bytes) -> None:
        """Write a part file, renamed when it is complete."""
        with self._complaining("write", self._folder / part):
            write_file(self._folder / part, data, sync=False)

    @contextmanager
    def writing(self, part: str) -> Iterator[IO[bytes]]:
        """Open a file for writing, which becomes a part when the block ends without an error."""
        with self._complaining("write", self._folder / part), new_file(self._folder / part, sync=False) as file:
            yield file

    @contextmanager
    def opened(self, part: str) -> Iterator[IO[bytes]]:
        """Open a part for reading bit by bit."""
        with self._complaining("read", self._folder / part), (self._folder / part).open("rb") as file:
            yield file

    def join(self, parts: Iterable[str], *, overwrite: bool) -> None:
        """Write OUT from the part files, renamed when it is complete."""
        with self._complaining("write", self._path), destination_file(self._path, overwrite=overwrite) as file:
            for part in parts:
                with (self._folder / part).open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)

    def forget(self) -> None:
        """Remove the part files, the record last, because it identifies what is left after a kill."""
        with self._complaining("remove", self._folder):
            names = sorted(path.name for path in self._folder.iterdir())
        delete(self._folder, [*(name for name in names if _is_part(name) or name.endswith(PARTIAL)), RECORD])

    @contextmanager
    def _complaining(self, verb: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(f"cannot {verb} {error.filename or path}: {error.strerror or error}") from None
        except CheckpointError as error:  # from destination_file, whose message is complete
            raise UsageError(str(error)) from None


class RemoteOutput:
    """An object in a store that fsspec supports; objects appear there only when complete."""

    def __init__(self, url: str, filesystem: Any, path: str) -> None:
        self.name = url
        self.parts_name = url + SUFFIX
        self._filesystem = filesystem
        self._path = path
        self._folder = path + SUFFIX

    def held(self) -> AbstractContextManager[None]:
        """Return an empty context: stores have no locks, and two processes would write the same content."""
        return nullcontext()

    def exists(self) -> bool:
        """Return whether the object exists."""
        with self._complaining("read", self.name):
            return bool(self._filesystem.exists(self._path))

    def parts(self) -> set[str]:
        """Return the names of the part objects, as the store lists them now."""
        with self._complaining("read", self.parts_name):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.ls(self._folder, detail=False)
            except FileNotFoundError:
                return set()
            return {path.rstrip("/").rpartition("/")[2] for path in found}

    def read(self, part: str) -> bytes:
        """Read a part object."""
        with self._complaining("read", f"{self.parts_name}/{part}"):
            return bytes(self._filesystem.cat_file(f"{self._folder}/{part}"))

    def write(self, part: str, data: bytes) -> None:
        """Write a part object in one request."""
        with self._complaining("write", f"{self.parts_name}/{part}"):
            self._filesystem.pipe_file(f"{self._folder}/{part}", data)

    def join(self, parts: Iterable[str], *, overwrite: bool) -> None:
        """Write the object, after joining the parts in a local file."""
        if self.exists() and not overwrite:
            raise UsageError(f"{self.name} already exists; give another name or --overwrite")
        with TemporaryFile() as whole:
            for part in parts:
                whole.write(self.read(part))
            whole.seek(0)
            with self._complaining("write", self.name):
                self._put(whole)

    def _put(self, whole: IO[bytes]) -> None:
        """Upload a file; an interrupted upload is discarded."""
        with self._filesystem.transaction, self._filesystem.open(self._path, "wb") as file:
            shutil.copyfileobj(whole, file, 8 << 20)

    def forget(self) -> None:
        """Remove the part objects."""
        with self._complaining("write", self.parts_name):
            self._filesystem.invalidate_cache()
            if self._filesystem.exists(self._folder):
                names = self.parts()
                for name in (*filter(_is_part, names), *(names & {RECORD})):
                    self._filesystem.rm(f"{self._folder}/{name}")
                if not self.parts() and self._filesystem.exists(self._folder):
                    self._filesystem.rm(self._folder, recursive=True)

    @contextmanager
    def _complaining(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except NotImplementedError:
            raise UsageError(f"cannot {verb} {name}: fsspec can only read addresses of this kind") from None
        except Exception as error:  # each store has its own classes
            raise UsageError(f"cannot {verb} {name}: {type(error).__name__}: {first_line(error)}") from error
