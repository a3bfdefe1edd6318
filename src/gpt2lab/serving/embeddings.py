"""``POST /v1/embeddings`` in the shape of OpenAI's API: hidden states of the served model, in its precision."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import AfterValidator, Field, WithJsonSchema
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from gpt2lab.errors import Gpt2LabError
from gpt2lab.generation.plan import prompt_tokens
from gpt2lab.inside.embedding import embed_in_parts
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.fields import IDS_SCHEMA, STRINGS_SCHEMA, check_prompt
from gpt2lab.serving.long_json import dumps
from gpt2lab.serving.protocol import BUSY, REFUSALS, Strict, Told
from gpt2lab.serving.reading import read

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    import numpy.typing as npt

    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.service import Service
    from gpt2lab.serving.settings import Settings
    from gpt2lab.serving.worker import Reading

ROUTE = "/v1/embeddings"
MAX_TEXTS = 2048
"""The largest number of texts in a request, as in OpenAI's API."""


def _check_input(value: Any) -> list[str | list[int]]:
    """Return one text or several as a list. Raises ValueError for anything else, and for an empty text."""
    if value is None or value in ("", []):
        raise ValueError("input must not be empty")
    texts = check_prompt(value, "input")
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"input must have at most {MAX_TEXTS} texts, got {len(texts)}")
    for place, text in enumerate(texts):
        if not text:
            raise ValueError(f"input[{place}] is empty")
    return texts


_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {**STRINGS_SCHEMA, "maxItems": MAX_TEXTS},
        IDS_SCHEMA,
        {"type": "array", "items": IDS_SCHEMA, "minItems": 1, "maxItems": MAX_TEXTS},
    ]
}
InputField = Annotated[Any, AfterValidator(_check_input), WithJsonSchema(_SCHEMA)]


class EmbeddingRequest(Strict):
    """Body of ``POST /v1/embeddings``. null means the default."""

    model: str | None = Field(None, description="A model that /v1/models lists. Default: the first.")
    input: InputField = Field(description="Text or token ids, or a list of either.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float: numbers (the default). base64: little-endian float32."
    )
    pooling: Literal["mean", "last"] | None = Field(
        None, description="The mean of the hidden states (the default), or that of the last token."
    )
    dimensions: int | None = Field(None, ge=1, description="Refused unless it is the model's n_embd.")
    user: str | None = Field(None, description="Accepted for compatibility; neither used nor logged.")


class Embedding(Told):
    """The embedding of one text."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Told):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(Told):
    """The answer to a request for embeddings, in the order of the texts."""

    object: str
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def add_embeddings(app: FastAPI, service: Service) -> None:
    """Add the route to ``app``."""

    @app.post(ROUTE, response_model=EmbeddingResponse, responses={**REFUSALS, **BUSY}, tags=["OpenAI"])
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Return hidden states after the final layer norm; their length is not scaled to 1."""
        served = service.models.get(body.model)
        texts = await run_in_threadpool(_ids_of, body, served, service.settings)
        n_tokens = sum(map(len, texts))
        readings = [partial(_embedded, served, ids, body.pooling or "mean") for ids in texts]
        found = await read(request, service, served, readings, n_tokens)
        if found is None:
            return Response(status_code=499)
        how = body.encoding_format or "float"
        content = await run_in_threadpool(_answer, found, how, {"model": served.name, "usage": _usage(n_tokens)})
        return Response(content, media_type="application/json")


def _usage(n_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": n_tokens, "total_tokens": n_tokens}


def _answer(rows: Sequence[npt.NDArray[np.float32]], how: str, more: dict[str, Any]) -> str:
    data = [{"object": "embedding", "index": index, "embedding": _encoded(row, how)} for index, row in enumerate(rows)]
    return dumps({"object": "list", "data": data, **more})


def _ids_of(body: EmbeddingRequest, served: ServedModel, settings: Settings) -> list[tuple[int, ...]]:
    """Return each text's ids. Raises :class:`ApiError` for a text that cannot be read or is too long."""
    config = served.model.config
    if body.dimensions not in (None, config.n_embd):
        message = f"dimensions: {served.name} has {config.n_embd}, which cannot be changed to {body.dimensions}"
        raise ApiError(400, message, param="dimensions")
    texts = []
    for place, text in enumerate(body.input):
        where = f"input[{place}]" if len(body.input) > 1 else "input"
        if isinstance(text, str) and len(text.encode("utf-8", "surrogatepass")) > settings.max_prompt_bytes:
            message = f"{where} is longer than this server's limit of {settings.max_prompt_bytes} bytes"
            raise ApiError(400, message, param="input", code="string_above_max_length")
        try:
            ids = prompt_tokens(text, config, served.tokenizer)
        except Gpt2LabError as error:
            raise ApiError(400, f"{where}: {error}", param="input") from None
        if len(ids) > config.n_ctx:
            message = f"This model's maximum context length is {config.n_ctx} tokens: {where} has {len(ids)}"
            raise ApiError(400, message, param="input", code="context_length_exceeded")
        texts.append(ids)
    return texts


def _embedded(served: ServedModel, ids: tuple[int, ...], pooling: Any, account: Hashable) -> Reading:
    return (yield from embed_in_parts(served.model.engine, served.model.checkpoint, ids, pooling))


def _encoded(row: npt.NDArray[np.float32], how: str) -> list[float] | str:
    return row.tolist() if how == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()
