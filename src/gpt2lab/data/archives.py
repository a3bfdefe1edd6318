"""Zip and tar archives: list their members, and open one.

Members that an operating system adds for itself (``__MACOSX``, ``._a.txt``) are left out, like all hidden files. This
module knows nothing of what members contain.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

from gpt2lab.errors import Gpt2LabError, UsageError, first_line
from gpt2lab.weights.checkpoint import check_not_pointer

_BLOCK = 1 << 20  # bytes
_MAX_NAME = 1 << 20  # bytes
_MAX_DICTIONARY = 1 << 27  # bytes
_NAMES = (b"L", b"K", b"x", b"g", b"X")  # types of headers that describe the next member
ARCHIVES = (".zip", ".tgz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Return whether the name of ``path`` ends like that of an archive."""
    return path.name.lower().endswith(ARCHIVES)


def is_hidden(path: PurePath) -> bool:
    """Return whether a part of a relative path is hidden, or a name that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def members(path: Path) -> list[tuple[str, int]]:
    """Return the name and stored size of each file in an archive, sorted; raises :class:`UsageError` if damaged."""
    check_not_pointer(path)
    with readable(path):
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                named = [info for info in archive.infolist() if info.filename]  # is_dir() fails without a name
                found = [(info.filename, info.compress_size) for info in named if not info.is_dir()]
        else:
            with tarfile.open(path, tarinfo=_Member) as tar:
                found = [(info.name, info.size) for info in tar if info.isfile()]
                while tar.fileobj and tar.fileobj.read(_BLOCK):  # to the end, where the compression's checksum is
                    pass
    return sorted((name, size) for name, size in found if name and not is_hidden(PurePath(name)))


def open_member(path: Path, member: str) -> io.BufferedReader:
    """Open a file in an archive; closing it closes the archive. Reading may raise :class:`UsageError`."""
    with readable(path), ExitStack() as stack:
        if path.suffix.lower() == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            _check_dictionary(path, archive.getinfo(member))
            file: Any = stack.enter_context(archive.open(member))
        else:
            tar = stack.enter_context(tarfile.open(path, tarinfo=_Member))
            file = stack.enter_context(tar.extractfile(member) or io.BytesIO())
        return io.BufferedReader(_Opened(path, file, stack.pop_all()))
    raise AssertionError  # not reached: readable() re-raises every error


def _check_dictionary(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise :class:`zipfile.BadZipFile` for an LZMA member that asks for a dictionary of gigabytes."""
    if info.compress_type != zipfile.ZIP_LZMA:
        return
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)  # of the name and the extra field, which come before the data
        file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little") + 5, 1)
        if (size := int.from_bytes(file.read(4), "little")) > _MAX_DICTIONARY:
            raise zipfile.BadZipFile(f"unpacking needs a dictionary of {size} bytes")


class _Member(tarfile.TarInfo):
    """A member of a tar archive. Refuses a name so long that it would fill memory, because tarfile reads it whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Parse a header. Raises :class:`tarfile.ReadError` if it announces a name or attributes of over a megabyte."""
        found = super().frombuf(buf, encoding, errors)
        if found.size > _MAX_NAME and found.type in _NAMES:
            raise tarfile.ReadError(f"it has a name of {found.size} bytes")
        return found


class _Opened(io.RawIOBase):
    """A file in an archive."""

    def __init__(self, path: Path, file: IO[bytes], opened: ExitStack) -> None:
        self._path, self._file, self._opened = path, file, opened

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with readable(self._path):
            return self._file.read(size)
        raise AssertionError

    def readinto(self, buffer: Any) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn every error of reading or unpacking an archive into one line."""
    try:
        yield
    except (Gpt2LabError, MemoryError):
        raise
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, or a password
        raise UsageError(f"{path} cannot be unpacked ({first_line(error)})") from None
    except Exception as error:  # tarfile, zipfile and their decompressors document no classes for damaged files
        if isinstance(error, OSError) and error.errno is not None:  # decompressors raise OSError too, without a number
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        raise UsageError(
            f"{path} is damaged or not an archive of this kind ({first_line(error) or 'damaged'})"
        ) from None
