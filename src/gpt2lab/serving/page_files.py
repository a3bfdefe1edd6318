"""The playground's files: the folder ``page`` next to this module, and a module made from the sampling declaration.

Files are read again for each request, so a developer of the page only has to reload it. ETags let browsers ask whether
a file has changed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
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
    """Add the routes ``/`` and ``/page/…`` to ``app``."""

    async def index(request: Request) -> Response:
        return await run_in_threadpool(file_response, request, "index.html")

    async def file(request: Request, name: str) -> Response:
        return await run_in_threadpool(file_response, request, name)

    for path, endpoint in (("/", index), ("/page/{name}", file)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def file_response(request: Request, name: str) -> Response:
    """Return the page's file ``name``. Raises HTTPException 404 if it does not exist, or its type is not served."""
    kind = MEDIA_TYPES.get(Path(name).suffix)
    if kind is None or name not in {STAGES_MODULE, *(path.name for path in FOLDER.iterdir())}:  # never outside it
        raise HTTPException(404)
    content = stages_module().encode() if name == STAGES_MODULE else (FOLDER / name).read_bytes()
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


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
