"""The page's routes besides completions: a model's vocabulary, and logits from which the page computes the stages.

Both are open to any client: they are in the API's document, and keys, limits and the drain apply to them too.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from gpt2lab.generation.plan import or_start
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.page_files import compressed, not_modified
from gpt2lab.serving.protocol import BUSY, REFUSALS, LogitsRequest, Vocabulary
from gpt2lab.serving.reading import read

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.service import Service

ROUTES = ("/playground/vocabulary", "/playground/logits")
FINGERPRINT = "X-Gpt2lab-Fingerprint"
"""Header of an answer: :func:`~gpt2lab.serving.models.fingerprint` of the model that made it."""

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client already has this version."}}
_LOGITS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Little-endian float32 logits, one for each id of the vocabulary. With `top`: the N ids with "
        "the highest logits as little-endian uint32, their logits as float32, and one more logit: if every other id "
        "had it, together they would have the right probability.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {FINGERPRINT: {"schema": {"type": "string"}, "description": "The fingerprint on the model's card."}},
    }
}


def add_playground(app: FastAPI, service: Service) -> None:
    """Add the two routes to ``app``."""
    vocabularies: dict[str, tuple[bytes, str]] = {}

    @app.get(ROUTES[0], response_model=Vocabulary, responses={**_NOT_MODIFIED, **REFUSALS}, tags=["playground"])
    async def vocabulary(request: Request, model: str | None = None) -> Response:
        """Return the bytes of every token."""
        served = service.models.get(model)
        if served.name not in vocabularies:
            vocabularies[served.name] = await run_in_threadpool(vocabulary_of, served)
        body, tag = vocabularies[served.name]
        headers = {
            "ETag": tag,
            "Cache-Control": "private, no-cache",
            FINGERPRINT: served.fingerprint,
        }
        if not_modified(request, tag):
            return Response(status_code=304, headers=headers)
        return compressed(request, body, headers, "application/json")

    @app.post(ROUTES[1], response_class=Response, responses={**_LOGITS, **REFUSALS, **BUSY}, tags=["playground"])
    async def logits(request: Request, body: LogitsRequest) -> Response:
        """Return the logits from which a completion of the prompt ``tokens`` draws its first token, before sampling."""
        served = service.models.get(body.model)
        check(body, served)
        tokens = or_start(body.tokens, served.tokenizer)
        found = await read(request, service, served, [partial(served.logits.read, tokens)], len(body.tokens))
        if found is None:
            return Response(status_code=499)
        row = found[0].astype("<f4", copy=False)
        content = row.tobytes() if body.top is None else await run_in_threadpool(highest, row, body.top)
        return Response(content, headers={FINGERPRINT: served.fingerprint}, media_type="application/octet-stream")


def highest(row: npt.NDArray[np.float32], n: int) -> bytes:
    """Return the ``n`` highest logits of ``row`` [n_vocab]: their ids, the logits, and one logit for all others."""
    order = np.argsort(-row, kind="stable")[:n]  # among equal logits, the lower id first
    others = np.delete(row, order).astype(np.float64)
    most = others.max(initial=-np.inf)
    shared = most if np.isinf(most) else most + np.log(np.exp(others - most).mean())
    return order.astype("<u4").tobytes() + np.append(row[order], shared).astype("<f4").tobytes()


def vocabulary_of(served: ServedModel) -> tuple[bytes, str]:
    """Return the JSON of all tokens, in which a token that stands for no text is empty, and an ETag."""
    tokenizer = served.tokenizer
    known = min(tokenizer.n_vocab, served.model.config.n_vocab)
    tokens = [tokenizer.token_bytes(id).decode("latin-1") for id in range(known)]
    tokens += [""] * (served.model.config.n_vocab - known)
    body = json.dumps({"model": served.name, "tokens": tokens}, ensure_ascii=False).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def check(body: LogitsRequest, served: ServedModel) -> None:
    """Raise :class:`ApiError` for tokens that the model cannot read."""
    config = served.model.config
    if len(body.tokens) > config.n_ctx:
        message = f"This model's maximum context length is {config.n_ctx} tokens: tokens has {len(body.tokens)}"
        raise ApiError(400, message, param="tokens", code="context_length_exceeded")
    if unknown := [id for id in body.tokens if id >= config.n_vocab]:
        message = f"tokens: there is no token {unknown[0]}; ids go up to {config.n_vocab - 1}"
        raise ApiError(400, message, param="tokens")
    if not body.tokens and served.tokenizer.start is None:
        raise ApiError(400, "tokens must not be empty: this model has no start token", param="tokens")
