"""Remote data: ``s3://``, ``gs://``, ``hf://``, ``https://`` … fetched once, then read like any file.

fsspec handles the protocols, some with an extra package (s3fs, gcsfs, adlfs). Files are copied into the cache folder,
so that shards can be memory-mapped and the next run, or another process on this machine, starts at once. Each file
appears under its name only when it is complete. This module knows nothing of the files' contents.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gpt2lab.data.fetched import kept, read_record, write_record
from gpt2lab.errors import DownloadError, UsageError, first_line
from gpt2lab.system.atomic import new_file
from gpt2lab.system.caches import cache_folder
from gpt2lab.system.marks import delete

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "mtime", "LastModified", "last_modified", "created")


def is_remote(path: str) -> bool:
    """Return whether ``path`` is an address with a protocol, not a file name."""
    return _ADDRESS.match(path) is not None


def filesystem_of(url: str, doing: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    Error messages begin with ``doing``, which is ``reading`` or ``writing``.

    Raises :class:`UsageError` if the protocol is unknown or needs a package, and :class:`DownloadError` if the address
    cannot be reached.
    """
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:
        package = re.search(r"[Ii]nstall (\w+)", str(error))
        wanted = package[1] if package else f"'fsspec[{protocol.removesuffix('s')}]'"  # https is in the extra "http"
        raise UsageError(f"{doing} {protocol}:// needs {wanted}: pip install {wanted}") from error
    except ValueError as error:
        raise UsageError(f"{url}: {first_line(error)}") from error
    except Exception as error:
        raise _unreadable(url, error) from error
    return filesystem, path


def is_local(filesystem: Any) -> bool:
    """Return whether an fsspec file system is this machine's own."""
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def fetch(url: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return a local copy of the file or folder at ``url``; fetch files that are missing here or have changed.

    ``say`` gets a line when there is something to fetch. Several processes may call this at once: one fetches, the
    others wait. Each call lists the remote files, except for single files on the web.

    Raises :class:`UsageError` if the protocol is unknown or needs a package, or if there is nothing at ``url``, and
    :class:`DownloadError` if it cannot be read or stored.
    """
    if re.match(r"https?://", url) and not url.endswith("/"):
        return _fetch_http_file(url, say)
    source = _Source.at(url)
    if is_local(source.filesystem):
        return Path(source.path)
    files = source.files()
    with kept(_folder_of(url), url) as folder:
        _complete(source, files, folder, say)
    return folder / next(iter(files)) if source.is_file else folder


def _fetch_http_file(url: str, say: Callable[[str], None]) -> Path:
    """Fetch one file from a web server: fsspec would need another package and could not resume a download.

    Servers do not always report a file's version, so the file is fetched only once.
    """
    from gpt2lab.weights.fetch import fetch as fetch_http

    name = PurePosixPath(unquote(urlsplit(url).path)).name or "file"
    with kept(_folder_of(url), url) as folder:
        if not (folder / name).exists():
            write_record(folder, {name: None})
            say(f"Fetching {url} into {folder}")
            fetch_http(url, folder / name)
    return folder / name


@dataclass(frozen=True)
class _Source:
    url: str
    filesystem: Any  # fsspec's
    path: str  # within the file system
    is_file: bool = False

    @classmethod
    def at(cls, url: str) -> _Source:
        filesystem, path = filesystem_of(url, "reading")
        try:
            return cls(url, filesystem, path, filesystem.isfile(path))
        except Exception as error:
            raise _unreadable(url, error) from error

    def files(self) -> dict[str, tuple[int | None, str]]:
        """Return the size in bytes (None if unknown) and version of each file, by its path below the address."""
        try:
            found = self.filesystem.find(self.path, detail=True)
            if self.is_file and not found:
                found = {self.path: self.filesystem.info(self.path)}
        except Exception as error:
            raise _unreadable(self.url, error) from error
        if not found:
            raise UsageError(f"there are no files at {self.url}")
        return {self._below(path): (info.get("size"), _version(info)) for path, info in sorted(found.items())}

    def get(self, name: str, path: Path) -> None:
        remote = self.path if self.is_file else f"{self.path.rstrip('/')}/{name}"
        try:
            self.filesystem.get_file(remote, str(path))
        except Exception as error:
            raise _unreadable(f"{self.url} ({name})", error) from error

    def _below(self, path: str) -> str:
        name = PurePosixPath(path).name if self.is_file else path[len(self.path.rstrip("/")) :].lstrip("/")
        if not name or ".." in PurePosixPath(name).parts:  # would escape our folder
            raise DownloadError(f"{self.url} has a file whose name is not allowed here: {path}")
        return name


def _complete(
    source: _Source, files: Mapping[str, tuple[int | None, str]], folder: Path, say: Callable[[str], None]
) -> None:
    """Fetch the ``files`` that ``folder`` lacks, and delete those that no longer exist remotely."""
    here = read_record(folder)
    missing = {name: file for name, file in files.items() if not _is_here(folder / name, file, here.get(name))}
    if not missing and here.keys() == files.keys():
        return
    size = sum(file[0] or 0 for file in missing.values())
    room = shutil.disk_usage(folder).free
    if size > room:
        raise DownloadError(
            f"{source.url} needs {size:,} bytes, but {folder} has {room:,} free: set GPT2LAB_CACHE to another folder"
        )
    if missing:
        say(f"Fetching {source.url}: {len(missing)} files, {size / 1e6:,.1f} MB, into {folder}")
    delete(folder, here.keys() - files.keys())
    record = {name: None if name in missing else here[name] for name in files}
    write_record(folder, record)
    for name, (size_there, version) in missing.items():
        record[name] = [_get_whole(source, name, size_there, folder / name), version]
        write_record(folder, record)


def _get_whole(source: _Source, name: str, size: int | None, path: Path) -> int:
    with new_file(path, sync=False) as file:
        partial = Path(file.name)
        source.get(name, partial)
        got = partial.stat().st_size
        if size is not None and got != size:
            raise DownloadError(f"{source.url} ({name}): received {got:,} of {size:,} bytes; try again")
    return got


def _is_here(path: Path, there: tuple[int | None, str], recorded: Any) -> bool:
    with suppress(OSError, TypeError, ValueError):  # the record may not be ours
        size, version = recorded
        return there in ((size, version), (None, version)) and path.stat().st_size == size
    return False


def _version(info: Mapping[str, Any]) -> str:
    """Return the value by which an object store marks changed contents (its version); empty if it reports none."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")


def _name(url: str) -> str:
    """Return a folder name for ``url``: readable, and different for each address."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-60:].strip("-")
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def _folder_of(url: str) -> Path:
    """Return the folder for copies of ``url``, even if caches are off, because the data is read from there."""
    folder = cache_folder("data", even_if_off=True)
    if folder is None:
        raise UsageError("there is no home folder to store data in: set GPT2LAB_CACHE to a folder")
    return folder / _name(url)


def _unreadable(url: str, error: Exception) -> DownloadError:
    return DownloadError(f"cannot read {url}: {type(error).__name__}: {first_line(error)}")
