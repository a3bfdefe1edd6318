"""Refusals in the shape that OpenAI's clients expect: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from gpt2lab.serving.worker import Refused

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
_LONGEST = 500  # characters of a message, which may repeat what a client sent


class ApiError(Exception):
    """A request that is answered with ``status`` and one line."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error as a JSON object."""
        message = str(self)
        return {
            "error": {
                "message": message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…",
                "type": _TYPES.get(self.status, _TYPES[400 if self.status < 500 else 500]),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """Return the whole answer."""
        # Escaped to ASCII: parts of the request in it may hold an unpaired surrogate, which has no UTF-8.
        return Response(json.dumps(self.body()), self.status, self.headers, "application/json")


class UnknownField(ValueError):
    """The error raised for a field ``name`` that a body may not have; ``meant`` is a field with a similar name."""

    def __init__(self, name: str, meant: str | None) -> None:
        super().__init__(f"there is no field {name!r}")
        self.name = name
        self.meant = meant


def nothing_at(path: str) -> str:
    """Return the message for a ``path`` that does not exist, with a hint if clients of OpenAI's API try it."""
    name = path.rstrip("/").removeprefix("/v1")
    if name in ("/chat/completions", "/responses", "/messages"):
        return (
            "GPT-2 is not a chat model; it continues a text: send the text as 'prompt' to /v1/completions "
            "(client.completions.create in OpenAI's client)"
        )
    if name in ("/completions", "/models"):  # /v1 is missing: with it the route would have matched
        return f"there is nothing at {path}: make the client's base_url end with /v1"
    return "there is nothing at this address: /docs lists what is here"


def stopping() -> ApiError:
    """Return the error for new work while the server drains."""
    return ApiError(503, "the server is shutting down", code="draining", headers={"Retry-After": "5"})


def failed(error: Exception) -> ApiError:
    """Return the API error that reports an error in the model, or the end of a drain, to a client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Refused):
        return ApiError(400, str(error))
    if isinstance(error, MemoryError):
        return ApiError(503, "not enough memory: ask for fewer samples or tokens", code="out_of_memory")
    return ApiError(500, "the model failed; the server's log says why", code="model_failed")


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the first of pydantic's errors, with the name of its field."""
    first = errors[0]
    kind = first["type"]
    path = [part for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', 'it cannot be parsed')}")
    if isinstance(unknown := first.get("ctx", {}).get("error"), UnknownField):
        name = ".".join(map(str, [*path, unknown.name]))
        hint = f"did you mean {unknown.meant!r}?" if unknown.meant else "leave it out"
        return ApiError(400, f"there is no field {name!r}: {hint}", param=name, code="unknown_field")
    if not path:
        return ApiError(400, "the body must be a JSON object")
    name = str(path[0])
    where = name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[1:])
    if kind == "missing":
        return ApiError(400, f"{where} is missing", param=name)
    message = first["msg"].removeprefix("Value error, ")
    message = message if message.startswith(name) else f"{where}: {message[:1].lower()}{message[1:]}"
    return ApiError(400, message, param=name)
