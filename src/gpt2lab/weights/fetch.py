"""Download of one file over HTTP: an interrupted download resumes, and an error page is never taken for the file.

Bytes go to ``NAME.gpt2lab.partial``, which is renamed once it is complete; after an interruption, a ``Range`` request
fetches the rest. This module knows nothing of models.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gpt2lab.errors import DownloadError
from gpt2lab.system.atomic import PARTIAL, replace
from gpt2lab.system.hashing import sha256_of

Progress = Callable[[int, int], None]
"""A callback that gets the bytes fetched so far and the total bytes."""

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 3  # in a row without a new byte


def fetch(url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None) -> None:
    """Download ``url`` to ``path``, resuming from its partial file if there is one.

    Raises :class:`DownloadError` if there is no connection, the server refuses, or the response is a web page, differs
    from the announced length or does not match ``sha256``. A partial file that can be resumed is kept.
    """
    partial = path.with_name(path.name + PARTIAL)
    failures = 0
    while True:
        before, problem = _size(partial), None
        try:
            if _go_on(url, partial, progress or (lambda done, total: None)):
                break
        except (http.client.HTTPException, OSError) as error:
            problem = error
        failures = 0 if _size(partial) > before else failures + 1
        if failures == _ATTEMPTS or _is_final(problem):
            raise _explained(url, partial, problem)
    if sha256 is not None and sha256_of(partial) != sha256:
        partial.unlink()
        raise DownloadError(f"{url}: the downloaded file has another sha256 than {sha256} and was deleted; try again")
    replace(partial, path)


def fetch_beginning(url: str, size: int) -> bytes:
    """Return the first ``size`` bytes of ``url``, without fetching the rest where the server can cut a file.

    Raises :class:`DownloadError` if there is no connection, the server refuses, or it has fewer bytes.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes=0-{size - 1}"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(size)
    except (http.client.HTTPException, OSError) as error:
        reason = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else error
        raise DownloadError(f"cannot fetch {url} ({reason or type(error).__name__})") from None
    if len(content) < size:
        raise DownloadError(f"{url} has {len(content):,} bytes, fewer than {size:,}")
    return content


def _go_on(url: str, partial: Path, progress: Progress) -> bool:
    """Request the missing bytes once; return whether the file is now complete."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        complete = error.headers.get("Content-Range") == f"bytes */{have}"
        if not complete:
            partial.unlink()  # longer than the server's file, so not its beginning
        return complete
    with response:
        total = _announced_size(url, response, have)
        if response.status != 206:
            have = 0
        with _opened(partial, have) as file:
            while chunk := response.read(_CHUNK):
                if have == 0:
                    _refuse_page(url, chunk)
                _write(file, chunk, partial)
                have += len(chunk)
                progress(have, total)
    return have == total


def _opened(partial: Path, have: int) -> IO[bytes]:
    """Open the file unbuffered, truncate it to its first ``have`` bytes, and continue writing there."""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab" if have else "wb", buffering=0)
        file.truncate(have)
        return file
    except OSError as error:
        raise DownloadError(f"cannot write {partial}: {error.strerror or error}") from None


def _write(file: IO[bytes], chunk: bytes, partial: Path) -> None:
    try:
        while chunk:
            chunk = chunk[file.write(chunk) :]
    except OSError as error:
        raise DownloadError(
            f"cannot write {partial}: {error.strerror or error}; the part that has arrived is kept"
        ) from None


def _announced_size(url: str, response: http.client.HTTPResponse, have: int) -> int:
    """Return the file's whole size, from the response headers."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml", "application/xml", "text/xml"):
        raise DownloadError(f"{url}: the server sent a web page ({kind}) instead of the file; check the address")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise DownloadError(f"{url}: the server sent a different part of the file than requested")
        return int(match[2])
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        raise DownloadError(f"{url}: the server does not report the length of the file")
    return int(length)


def _refuse_page(url: str, start: bytes) -> None:
    text = start[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        raise DownloadError(f"{url}: the server sent a web page instead of the file; check the address")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_final(problem: Exception | None) -> bool:
    """Return whether an immediate retry is pointless: the server refused, or cannot be reached."""
    if isinstance(problem, urllib.error.HTTPError):
        return problem.code < 500
    return isinstance(problem, urllib.error.URLError) and not isinstance(problem.reason, TimeoutError | ConnectionError)


def _explained(url: str, partial: Path, problem: Exception | None) -> DownloadError:
    size = _size(partial)
    kept = f"; {size:,} bytes are kept: run it again to continue" if size else ""
    if isinstance(problem, urllib.error.HTTPError):
        return DownloadError(f"{url}: the server answered {problem.code} {problem.reason}{kept}")
    if problem is None:
        return DownloadError(f"{url}: the download was cut short{kept}")
    reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    return DownloadError(f"cannot reach {url} ({reason or type(problem).__name__}): is this machine online?{kept}")
