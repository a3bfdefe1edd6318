"""The playground's files: the folder ``page`` next to this module, and a module made from the sampling declaration.

Files are read again for each request, so a developer of the page only has to reload it. Pages name their files with a
digest of the content: a browser keeps these and asks for a file again only after it has changed. An import map does the
same for modules that import each other. Everything is sent compressed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gpt2lab.sampling.declaration import PARAMETERS, STAGES, Parameter

FOLDER = Path(__file__).parent / "page"

STAGES_MODULE = "stages.js"

_MOST = 1e6  # upper bound of a control for which the server has none

MEDIA_TYPES = {  # not Python's mimetypes: on Windows those depend on what else is installed
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
"""Media types of the files served, by suffix."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every page and its files: no other origin is loaded from or sent to, and none may frame the page."""


def add_page_files(app: FastAPI) -> None:
    """Add the routes ``/``, ``/glossary`` and ``/page/…`` to ``app``."""

    async def index(request: Request) -> Response:
        return await run_in_threadpool(file_response, request, "index.html")

    async def glossary(request: Request) -> Response:
        return await run_in_threadpool(file_response, request, "glossary.html")

    async def file(request: Request, name: str) -> Response:
        return await run_in_threadpool(file_response, request, name)

    for path, endpoint in (("/", index), ("/glossary", glossary), ("/page/{name}", file)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def file_response(request: Request, name: str) -> Response:
    """Return the page's file ``name``. Raises HTTPException 404 if it does not exist, or its type is not served."""
    kind = MEDIA_TYPES.get(Path(name).suffix)
    if kind is None or name not in _names():  # never outside it
        raise HTTPException(404)
    content, policy = _content(name), HEADERS["Content-Security-Policy"]
    if name.endswith(".html"):
        content, import_map = _with_digests(content.decode())
        policy = policy.replace("script-src 'self'", f"script-src 'self' 'sha256-{import_map}'")
    fixed = request.query_params.get("v") == digest(content)
    caching = "public, max-age=31536000, immutable" if fixed else "no-cache"
    headers = {**HEADERS, "Content-Security-Policy": policy, "ETag": f'"{digest(content)}"', "Cache-Control": caching}
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return compressed(request, content, headers, kind)


def compressed(
    request: Request, content: bytes, headers: Mapping[str, str], kind: str, *, once: bool = False
) -> Response:
    """Return ``content``, compressed if the client accepts that: quickly if it is sent only ``once``."""
    headers = {**headers, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, compresslevel=1, mtime=0) if once else _zipped(content)
        headers["Content-Encoding"] = "gzip"
    return Response(content, headers=headers, media_type=kind)


def digest(content: bytes) -> str:
    """Return a digest of a file's content, for its address and its ETag."""
    return hashlib.sha256(content).hexdigest()[:32]


@lru_cache(maxsize=128)
def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _names() -> set[str]:
    return {STAGES_MODULE, *(path.name for path in FOLDER.iterdir())}


def _content(name: str) -> bytes:
    return stages_module().encode() if name == STAGES_MODULE else (FOLDER / name).read_bytes()


def _with_digests(page: str) -> tuple[bytes, str]:
    """Return a page whose files have digests in their addresses, and the hash of its import map for its policy."""
    addresses = {name: f"page/{name}?v={digest(_content(name))}" for name in _names() if not name.endswith(".html")}
    modules = {f"./page/{name}": f"./{address}" for name, address in addresses.items() if name.endswith(".js")}
    text = json.dumps({"imports": dict(sorted(modules.items()))})
    page = re.sub(r'(?<=")page/([\w.]+)(?=")', lambda found: addresses.get(found[1], found[0]), page)
    page = page.replace("</title>\n", f'</title>\n<script type="importmap">{text}</script>\n', 1)
    return page.encode(), base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def stages_module() -> str:
    """Return an ES module with the stages' titles by name, and everything that the page shows of each parameter."""
    parameters = [_shown(parameter) for parameter in PARAMETERS.values()]
    data = {"STAGES": STAGES, "PARAMETERS": parameters}
    return "".join(f"export const {name} = {json.dumps(value)};\n" for name, value in data.items())


def _shown(parameter: Parameter) -> dict[str, Any]:
    slider = parameter.slider
    return {
        **parameter._asdict(),
        "whole": parameter.whole,
        "off": parameter.default if parameter.shown_off else None,
        "most": _MOST if math.isinf(parameter.most) else parameter.most,
        "slider": list(slider.items()) if isinstance(slider, Mapping) else slider,
    }


def not_modified(request: Request, etag: str) -> bool:
    """Return whether the client already has the version that ``etag`` names."""
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known
