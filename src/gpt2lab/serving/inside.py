"""The routes that look inside: the activations at a token, and the effect of patching or steering.

Keys, limits and the drain apply as for completions. :mod:`~gpt2lab.serving.inside_reader` computes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from gpt2lab.errors import Gpt2LabError
from gpt2lab.generation.plan import or_start
from gpt2lab.inside.patching import Patch, check_patch, patch_edits
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.fields import IdsField
from gpt2lab.serving.inside_reader import change, look
from gpt2lab.serving.long_json import dumps
from gpt2lab.serving.page_files import compressed
from gpt2lab.serving.protocol import BUSY, REFUSALS, Steer, Strict, Told
from gpt2lab.serving.reading import read
from gpt2lab.serving.steering import check_read, check_steer, n_steer_tokens, steer_edits

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.service import Service
    from gpt2lab.serving.worker import Reading

ROUTES = ("/playground/inside", "/playground/patch")
MAX_PARTS = 4096
"""The largest number of heads, MLPs or positions in a request."""


class InsideRequest(Strict):
    """Body of ``POST /playground/inside``."""

    model: str | None = None
    tokens: IdsField = Field(description="The tokens so far, at most 512; empty at the start of a text.")
    token: int | None = Field(None, ge=0, description="The token whose logit is explained. Default: the likeliest.")
    top: int = Field(5, ge=1, le=50, description="Number of tokens in each list.")


class PatchRequest(InsideRequest):
    """Body of ``POST /playground/patch``."""

    heads: list[list[int]] = Field(
        default_factory=list, max_length=MAX_PARTS, description="Pairs of a layer and a head, both counted from 0."
    )
    mlps: list[int] = Field(default_factory=list, max_length=MAX_PARTS, description="Layers, counted from 0.")
    method: Literal["zero", "mean", "copy"] | None = Field(
        None, description="Zero by default; with a source, copy: the activation at the same position of the source."
    )
    source: IdsField | None = Field(None, description="The ids of another text, at most 512.")
    positions: list[int] | None = Field(None, max_length=MAX_PARTS, description="Default: all.")
    steer: Steer | None = None
    length: int = Field(0, ge=0, le=64, description="Length of greedy text, in tokens, without and with the change.")


class Lens(Told):
    """The logit lens before one layer, or at the end."""

    probability: float
    rank: int = Field(description="1 for the likeliest.")
    top: list[list[float]] = Field(description="Pairs of an id and its probability.")


class Parts(Told):
    """Direct logit attribution."""

    logit: float
    embedding: float
    position: float
    attention: list[float]
    mlp: list[float]
    heads: list[list[float]]
    norm_bias: float
    rest: float


class InsideResponse(Told):
    """What happens at the last token."""

    model: str
    token: int
    lens: list[Lens] = Field(description="Before each layer, and at the end.")
    attention: list[list[list[float]]] = Field(description="[n_layer][n_head][tokens]: the last token's weights.")
    contributions: Parts
    neighbours: list[list[float]] = Field(
        description="Pairs of an id and the cosine of its embedding with the token's."
    )


class Outcome(Told):
    """The next token in one of two cases."""

    logit: float | None
    probability: float
    top: list[list[float]] = Field(description="Pairs of an id and its probability.")
    tokens: list[int] = Field(description="The ids of the greedy text.")


class PatchResponse(Told):
    """The next token without and with a change."""

    model: str
    token: int
    kl: float = Field(description="The divergence, in nats, of the changed distribution from the plain one.")
    before: Outcome
    after: Outcome


def add_inside(app: FastAPI, service: Service) -> None:
    """Add the two routes to ``app``."""

    @app.post(ROUTES[0], response_model=InsideResponse, responses={**REFUSALS, **BUSY}, tags=["playground"])
    async def inside(request: Request, body: InsideRequest) -> Response:
        """Return the logit lens, attention, contributions and neighbours at the last of ``tokens``."""
        served = service.models.get(body.model)
        tokens = _tokens(body, served)
        reading = partial(look, served, tokens, body.token, body.top)
        return await _answer(request, served, await read(request, service, served, [reading], len(tokens)))

    @app.post(ROUTES[1], response_model=PatchResponse, responses={**REFUSALS, **BUSY}, tags=["playground"])
    async def patch(request: Request, body: PatchRequest) -> Response:
        """Return the next token after ``tokens`` without and with heads or MLPs changed, or a direction added."""
        served = service.models.get(body.model)
        tokens, patched = _tokens(body, served), _patch(body, served)
        n_more = len(body.source or ()) + n_steer_tokens(body.steer)
        reading = partial(_changed, served, tokens, patched, body)
        n_tokens = 2 * (len(tokens) + body.length) + n_more
        return await _answer(request, served, await read(request, service, served, [reading], n_tokens))


def _changed(
    served: ServedModel, tokens: Sequence[int], patch: Patch | None, body: PatchRequest, client: Hashable
) -> Reading:
    edits = patch_edits(served.model.engine, patch) if patch else []
    yield
    if body.steer:
        edits += yield from steer_edits(served.model.engine, body.steer)
    return (yield from change(served, tokens, edits, body.token, body.top, body.length, client))


async def _answer(request: Request, served: ServedModel, found: Sequence[Any] | None) -> Response:
    if found is None:
        return Response(status_code=499)
    return await run_in_threadpool(_encoded, request, {"model": served.name, **found[0]})


def _encoded(request: Request, answer: dict[str, Any]) -> Response:
    """Return an answer as JSON. The attention of a long text is too much for the event loop to encode."""
    return compressed(request, dumps(answer).encode(), {}, "application/json", once=True)


def _tokens(body: InsideRequest, served: ServedModel) -> tuple[int, ...]:
    """Return the ids to read. Raises :class:`ApiError` for ids that the model cannot read."""
    check_read("tokens", body.tokens, served)
    known = served.tokenizer.n_vocab
    if body.token is not None and body.token >= known:
        raise ApiError(400, f"token: there is no token {body.token}; ids go up to {known - 1}", param="token")
    if not body.tokens and served.tokenizer.start is None:
        raise ApiError(400, "tokens must not be empty: this model has no start token", param="tokens")
    return or_start(body.tokens, served.tokenizer)


def _patch(body: PatchRequest, served: ServedModel) -> Patch | None:
    """Return the patch that ``body`` asks for, if any. Raises :class:`ApiError` for one that does not fit."""
    config, steer = served.model.config, body.steer
    check_read("source", body.source or (), served)
    if steer:
        check_steer(steer, served)
    if (len(body.heads) + len(body.mlps)) * max(1, len(body.positions or ())) > MAX_PARTS:
        message = f"a patch changes at most {MAX_PARTS} heads and MLPs, each counted once for every position"
        raise ApiError(400, message, param="positions")
    if any(len(pair) != 2 for pair in body.heads):
        raise ApiError(400, "heads must be pairs of a layer and a head", param="heads")
    if steer and not body.heads and not body.mlps:
        _refuse_patch_of_nothing(body)
        return None
    try:
        patch = Patch(
            tuple((layer, head) for layer, head in body.heads),
            tuple(body.mlps),
            body.method or ("copy" if body.source else "zero"),
            tuple(body.source or ()),
            None if body.positions is None else tuple(body.positions),
        )
        check_patch(patch, config)
    except Gpt2LabError as error:
        raise ApiError(400, str(error)) from None
    return patch


def _refuse_patch_of_nothing(body: PatchRequest) -> None:
    for name in ("method", "source", "positions"):
        if getattr(body, name) is not None:
            raise ApiError(400, f"{name} belongs to heads or mlps, and there are none", param=name)
