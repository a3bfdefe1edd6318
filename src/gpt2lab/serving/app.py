"""The routes: OpenAI's completions and models, tokens, health, metrics, the API's documentation.

FastAPI derives from the request models the OpenAPI document that clients and schemathesis read. Its own page of
documentation is replaced, because it loads scripts from other hosts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response

from gpt2lab.errors import Gpt2LabError
from gpt2lab.serving import answers, completions, embeddings, inside, page_files, playground
from gpt2lab.serving.errors import ApiError, nothing_at, of_validation, stopping
from gpt2lab.serving.guards import RECORD, REQUEST_ID, Guard, Record
from gpt2lab.serving.hosts import HostCheck, usual_origin
from gpt2lab.serving.keys import ACCOUNT
from gpt2lab.serving.logprobs import spelled
from gpt2lab.serving.long_json import dumps
from gpt2lab.serving.models import ServedModel
from gpt2lab.serving.pages import docs_page
from gpt2lab.serving.protocol import (
    BUSY,
    REFUSALS,
    CompletionRequest,
    CompletionResponse,
    DetokenizeRequest,
    Health,
    ModelCard,
    ModelList,
    StreamOptions,
    Text,
    TokenizeRequest,
    Tokens,
)
from gpt2lab.serving.service import Service
from gpt2lab.serving.streams import EventStream, unless_left
from gpt2lab.serving.watch import routes
from gpt2lab.version import __version__

ROUTES = (
    "/",
    "/glossary",
    "/docs",
    "/openapi.json",
    "/health",
    "/metrics",
    "/tokenize",
    "/detokenize",
    "/v1/models",
    embeddings.ROUTE,
    *playground.ROUTES,
    *inside.ROUTES,
    *routes.ROUTES,
)
COMPLETIONS = "/v1/completions"


def make_app(service: Service) -> FastAPI:
    """Make the application; its lifespan starts and stops the models' threads."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for served in service.models:
            served.worker.start()
        yield
        for served in service.models:
            served.stop()

    middleware = [Middleware(Record, metrics=service.metrics, routes=(*ROUTES, COMPLETIONS))]
    middleware.append(Middleware(HostCheck, settings=service.settings))
    if service.settings.cors:
        origins = [usual_origin(origin) for origin in service.settings.cors]
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],  # those that a preflight asks for: OpenAI's client sends a dozen of its own
                expose_headers=[playground.FINGERPRINT, REQUEST_ID, "Retry-After"],
            )
        )
    middleware.append(Middleware(Guard, settings=service.settings, keys=service.keys))
    app = FastAPI(
        title="gpt2lab",
        version=__version__,
        summary="GPT-2 behind OpenAI's completions API.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=middleware,
    )
    _answer_errors(app)
    _add_completions(app, service)
    _add_tokens(app, service)
    _add_models(app, service)
    embeddings.add_embeddings(app, service)
    playground.add_playground(app, service)
    inside.add_inside(app, service)
    _add_operation(app, service)
    if service.settings.ui:
        _add_docs(app, service)
        page_files.add_page_files(app)
        routes.add_watching(app, service)
    _forget_422(app)
    _answer_head(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return of_validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        accepted = (error.headers or {}).get("Allow", "other methods")
        message = {
            404: nothing_at(request.url.path),
            405: f"this address does not accept {request.method[:20]}, only {accepted}",
        }
        text = message.get(error.status_code, str(error.detail))
        code = "unknown_url" if error.status_code == 404 else None
        return ApiError(error.status_code, text, code=code, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> Response:
        return ApiError(500, "internal error: see the server's log").response()


def _add_completions(app: FastAPI, service: Service) -> None:
    @app.post(COMPLETIONS, response_model=CompletionResponse, responses={**REFUSALS, **BUSY}, tags=["OpenAI"])
    async def complete(request: Request, body: CompletionRequest) -> Response:
        """Complete prompts. With ``stream``, the answer is a ``text/event-stream`` of partial objects."""
        served = service.models.get(body.model)
        order = await completions.make_order(body, served, service.settings)
        if service.draining:
            raise stopping()
        order.job.client = account = request.scope[ACCOUNT]
        reserved = account.reserve(order.prompt_tokens + order.steer_tokens + order.most_drawn())
        try:
            completions.submit(order)
        except ApiError:
            reserved.settle(0)
            raise
        record = request.scope[RECORD]
        record |= {"model": served.name, "id": order.id, "samples": len(order.job.samples)}

        def ended() -> None:
            served.worker.cancel(order.job)  # does nothing if it has ended
            drawn = order.n_drawn()
            read = order.prompt_tokens + order.steer_tokens
            reserved.settle(read + drawn)
            cached = order.cached_tokens()
            served.metrics.cached_tokens.inc(cached)
            record.update(read=read, cached=cached, drawn=drawn)
            if order.first_token_seconds is not None:
                record["first"] = f"{order.first_token_seconds:.3f}s"

        if body.stream:
            return EventStream(answers.stream(order, body.stream_options or StreamOptions()), ended)
        try:
            answer = await unless_left(request.receive, answers.collect(order))
        finally:
            ended()
        if answer is None:
            record["gone"] = True
            return Response(status_code=499)  # only the log reads it
        return Response(answer, media_type="application/json")


def _add_tokens(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize", response_model=Tokens, responses={**REFUSALS, 429: BUSY[429]}, tags=["tokens"])
    async def tokenize(body: TokenizeRequest) -> Response:
        """Return the token ids of a text."""
        return await _or_400("prompt", _tokenized, body, service.models.get(body.model))

    @app.post("/detokenize", response_model=Text, responses={**REFUSALS, 429: BUSY[429]}, tags=["tokens"])
    async def detokenize(body: DetokenizeRequest) -> Response:
        """Return the text of token ids."""
        return await _or_400("tokens", _detokenized, body, service.models.get(body.model))


def _tokenized(body: TokenizeRequest, served: ServedModel) -> Response:
    tokens = served.tokenizer.encode(body.prompt, add_special_tokens=body.add_special_tokens is not False)
    answer = {"count": len(tokens), "max_model_len": served.model.config.n_ctx, "tokens": tokens}
    if body.return_token_strs:
        answer["token_strs"] = [spelled(served.tokenizer, token) for token in tokens]
    return Response(dumps(answer), media_type="application/json")


def _detokenized(body: DetokenizeRequest, served: ServedModel) -> Response:
    return JSONResponse({"prompt": served.tokenizer.decode(body.tokens)})


async def _or_400(param: str, function: Any, *arguments: Any) -> Any:
    """Run ``function(*arguments)`` in a thread, as it may take seconds; answer 400 to what it rejects."""
    try:
        return await run_in_threadpool(function, *arguments)
    except Gpt2LabError as error:
        raise ApiError(400, f"{param}: {error}", param=param) from None


def _add_models(app: FastAPI, service: Service) -> None:
    def card(served: ServedModel) -> dict[str, Any]:
        facts = {"id": served.name, "object": "model", "created": served.created, "owned_by": "gpt2lab"}
        return {**facts, "max_model_len": served.model.config.n_ctx, "gpt2lab": served.facts()}

    @app.get("/v1/models", response_model=ModelList, responses={401: REFUSALS[401]}, tags=["OpenAI"])
    async def models() -> Response:
        """List the served models."""
        return JSONResponse({"object": "list", "data": [card(served) for served in service.models]})

    @app.get("/v1/models/{model}", response_model=ModelCard, responses=REFUSALS, tags=["OpenAI"])
    async def model(model: str) -> Response:
        """Describe one served model."""
        return JSONResponse(card(service.models.get(model)))


def _add_operation(app: FastAPI, service: Service) -> None:
    draining: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "The server is shutting down."}}

    @app.get("/health", response_model=Health, responses=draining, tags=["operation"])
    async def health() -> Response:
        """Report whether the server accepts new requests."""
        return JSONResponse({"status": "draining"}, 503) if service.draining else JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=Response, responses={401: REFUSALS[401]}, tags=["operation"])
    async def metrics() -> Response:
        """Report counters and timings to Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_docs(app: FastAPI, service: Service) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi(), service.models), headers=page_files.HEADERS)


def _answer_head(app: FastAPI) -> None:
    """Let every address that answers GET answer HEAD, except one whose answer has no end."""
    for route in app.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods and route.path != routes.EVENTS:
            route.methods.add("HEAD")


def _forget_422(app: FastAPI) -> None:
    """Remove the status 422 that FastAPI documents for invalid requests; here it is 400, as in OpenAI's API."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            body = operation["responses"].get("200", {}).get("content", {})
            if operation["operationId"].startswith("complete_"):
                body["text/event-stream"] = {}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
