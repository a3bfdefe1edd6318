"""Fields of request bodies that may have several types: their checks, and their schemas in the OpenAPI document.

A check raises ValueError, which becomes the answer 400. This module knows nothing of models.
"""

from __future__ import annotations

import re
from reprlib import repr as short_repr
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1000
MAX_BIASES = 1024
LARGEST_ID = 1 << 31
MAX_PROMPTS = 1 << 14  # a server's own limit is far lower, but is only compared once all prompts have been checked
_NUMBER = re.compile(r"\s*[-+]?[\d.]+\s*")

STRINGS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1}
IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def check_ids(name: str, value: Any) -> list[int]:
    """Return ``value`` if it is a list of whole numbers that may be token ids. Raises ValueError otherwise."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of token ids, got {short_repr(value)}")
    # The loop is for the message: it would stop the event loop for too long over a list that fills the largest body.
    if set(map(type, value)) <= {int} and (not value or (min(value) >= 0 and max(value) < LARGEST_ID)):
        return value
    for place, id in enumerate(value):
        if type(id) is not int or not 0 <= id < LARGEST_ID:
            raise ValueError(f"{name}[{place}] is not a token id: {short_repr(id)}")
    return value


def check_prompt(value: Any, name: str = "prompt") -> list[str | list[int]]:
    """Return one prompt or several, text or ids, as a list of prompts. Raises ValueError for anything else."""
    if value is None:
        return [""]
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"{name} must be a string, a list of strings, a list of token ids, or a list of these, not empty; "
            f"got {short_repr(value)}"
        )
    if type(value[0]) is int:
        return [check_ids(name, value)]
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"{name} must have at most {MAX_PROMPTS} prompts, got {len(value)}")
    kind = type(value[0])
    for place, prompt in enumerate(value):
        if type(prompt) is not kind or kind not in (str, list):
            raise ValueError(
                f"{name}[{place}] is {short_repr(prompt)}: a list holds strings, or token ids, or lists of token ids"
            )
        if kind is list:
            check_ids(f"{name}[{place}]", prompt)
    return value


def _check_stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"stop must be a string or a list of up to {MAX_STOPS} strings, got {short_repr(value)}")
    if not all(0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise ValueError(f"stop strings must have from 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _check_bias(value: Any) -> dict[int | str, float]:
    """Return the biases of ids and of texts: a key that is no number is a text, as in llama.cpp's server."""
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise ValueError(f"logit_bias must be an object of up to {MAX_BIASES} token ids, got {short_repr(value)}")
    biases: dict[int | str, float] = {}
    for key, bias in value.items():
        is_id = key.isascii() and key.isdecimal() and len(key) < 11 and int(key) < LARGEST_ID
        if not is_id and (_NUMBER.fullmatch(key) or not 0 < len(key) <= MAX_STOP_CHARACTERS):
            raise ValueError(f"logit_bias: {short_repr(key)} is neither a token id nor a short text")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:  # NaN fails the comparison too
            raise ValueError(f"logit_bias[{key}] must be a number from -100 to 100, got {short_repr(bias)}")
        biases[int(key) if is_id else key] = float(bias)
    return biases


def _check_stop_ids(value: Any) -> list[int]:
    ids = check_ids("stop_token_ids", [] if value is None else value)
    if len(ids) > MAX_BIASES:
        raise ValueError(f"stop_token_ids must have at most {MAX_BIASES} ids, got {len(ids)}")
    return ids


def _check_allowed(value: Any) -> list[int] | None:
    if value is not None and not check_ids("allowed_token_ids", value):
        raise ValueError("allowed_token_ids must not be empty: omit it to allow all tokens")
    return value


def _one_of(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


PromptField = Annotated[
    Any,
    AfterValidator(check_prompt),
    _one_of(
        {"type": "string"},
        STRINGS_SCHEMA,
        IDS_SCHEMA,
        {"type": "array", "items": IDS_SCHEMA, "minItems": 1},
        {"type": "null"},
    ),
]
StopField = Annotated[
    Any,
    AfterValidator(_check_stop),
    _one_of(
        {"type": "string", "minLength": 1}, {**STRINGS_SCHEMA, "minItems": 0, "maxItems": MAX_STOPS}, {"type": "null"}
    ),
]
BiasField = Annotated[
    Any,
    AfterValidator(_check_bias),
    _one_of(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        {"type": "null"},
    ),
]
StopIdsField = Annotated[
    Any,
    AfterValidator(_check_stop_ids),
    _one_of({**IDS_SCHEMA, "minItems": 0, "maxItems": MAX_BIASES}, {"type": "null"}),
]
AllowedField = Annotated[Any, AfterValidator(_check_allowed), _one_of(IDS_SCHEMA, {"type": "null"})]
IdsField = Annotated[
    Any, AfterValidator(lambda value: check_ids("tokens", value)), WithJsonSchema({**IDS_SCHEMA, "minItems": 0})
]
