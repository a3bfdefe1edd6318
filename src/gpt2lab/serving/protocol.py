"""The models of requests and answers: OpenAI's legacy completions, plus gpt2lab's own sampling parameters.

Numbers are strict: neither ``true`` nor ``"1"`` is a number; NaN and infinities are refused. The OpenAPI document is
made from these models. :mod:`~gpt2lab.serving.completions` checks the limits that a server's settings set.
"""

from __future__ import annotations

from math import isinf
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from gpt2lab.sampling.declaration import PARAMETERS

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1000
MAX_LOGPROBS = 20
MAX_BIASES = 1024
LARGEST_ID = 1 << 31

_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_ID


def check_ids(name: str, value: Any) -> list[int]:
    """Return ``value`` if it is a list of whole numbers that may be token ids. Raises ValueError otherwise."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of token ids, got {short_repr(value)}")
    for place, id in enumerate(value):
        if not _is_id(id):
            raise ValueError(f"{name}[{place}] is not a token id: {short_repr(id)}")
    return value


def check_prompt(value: Any) -> list[str | list[int]]:
    """Return one prompt or several, text or ids, as a list of prompts. Raises ValueError for anything else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError(
            "prompt must be a string, a list of strings, a list of token ids, or a list of these, not empty; "
            f"got {short_repr(value)}"
        )
    if type(value[0]) is int:
        return [check_ids("prompt", value)]
    kind = type(value[0])
    for place, prompt in enumerate(value):
        if type(prompt) is not kind or kind not in (str, list):
            raise ValueError(
                f"prompt[{place}] is {short_repr(prompt)}: a list holds strings, or token ids, or lists of token ids"
            )
        if kind is list:
            check_ids(f"prompt[{place}]", prompt)
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


def _check_bias(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise ValueError(f"logit_bias must be an object of up to {MAX_BIASES} token ids, got {short_repr(value)}")
    biases: dict[int, float] = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 11 and int(key) < LARGEST_ID):
            raise ValueError(f"logit_bias: {short_repr(key)} is not a token id")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:  # NaN fails the comparison too
            raise ValueError(f"logit_bias[{key}] must be a number from -100 to 100, got {short_repr(bias)}")
        biases[int(key)] = float(bias)
    return biases


def _one_of(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


PromptField = Annotated[
    Any,
    AfterValidator(check_prompt),
    _one_of({"type": "string"}, _STRINGS, _IDS, {"type": "array", "items": _IDS, "minItems": 1}),
]
StopField = Annotated[
    Any,
    AfterValidator(_check_stop),
    _one_of({"type": "string", "minLength": 1}, {**_STRINGS, "minItems": 0, "maxItems": MAX_STOPS}, {"type": "null"}),
]
BiasField = Annotated[
    Any,
    AfterValidator(_check_bias),
    _one_of(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        {"type": "null"},
    ),
]
IdsField = Annotated[
    Any, AfterValidator(lambda value: check_ids("tokens", value)), WithJsonSchema({**_IDS, "minItems": 0})
]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(None, description="Send a last chunk with the token counts.")
    include_obfuscation: bool | None = Field(None, description="Accepted for compatibility; no effect.")


class _BeforeSampling(_Strict):
    model: str | None = Field(None, description="A model that /v1/models lists. Default: the first.")
    prompt: PromptField = Field(
        default_factory=lambda: [""], description="Text or token ids, or a list of either; empty starts a new text."
    )
    max_tokens: int | None = Field(
        None, ge=0, description="The most tokens to generate. Default 16, or fewer if the context has no room."
    )
    n: int | None = Field(None, ge=1, le=1 << 20, description="Number of choices for each prompt. Default 1.")
    best_of: int | None = Field(None, ge=1, le=1 << 20, description="Samples per prompt; return the n likeliest.")
    stream: bool | None = Field(None, description="Send the text as it is generated, as server-sent events.")
    stream_options: StreamOptions | None = None
    stop: StopField = Field(
        default_factory=tuple, description="Up to 4 strings. A sample ends before the first one that occurs."
    )
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Return the log-probability of each token and of the N likeliest."
    )
    echo: bool | None = Field(None, description="Return the prompt before the generated text.")
    suffix: str | None = Field(None, description="Refused: GPT-2 cannot fill in the middle.")


def _sampling_fields() -> dict[str, Any]:
    """Make a field for each parameter that a stage of sampling declares."""
    fields: dict[str, Any] = {}
    for p in PARAMETERS.values():
        bound = {"lt": int(p.most) + 1} if p.whole else {} if isinf(p.most) else {"le": p.most}
        text = f"{p.help} Default {p.default:g}."
        fields[p.name] = (type(p.default) | None, Field(None, ge=p.least, **bound, description=text))
    return fields


if TYPE_CHECKING:
    _WithSampling = _BeforeSampling
else:
    _WithSampling = create_model("_WithSampling", __base__=_BeforeSampling, **_sampling_fields())


class CompletionRequest(_WithSampling):
    """Body of ``POST /v1/completions``. null means the default."""

    logit_bias: BiasField = Field(
        default_factory=dict, description="Token id → number added to its logit, from -100 to 100."
    )
    seed: int | None = Field(
        None, ge=0, lt=1 << 63, description="Same seed, same text. Default: random; see the answer."
    )
    ignore_eos: bool | None = Field(None, description="Continue after <|endoftext|>.")
    user: str | None = Field(None, description="Accepted for compatibility; neither used nor logged.")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="With logprobs: send each token as soon as it is drawn, as token_id:123 instead of its text."
    )


class LogitsRequest(_Strict):
    """Body of ``POST /playground/logits``."""

    model: str | None = None
    tokens: IdsField = Field(description="The tokens so far; empty at the start of a text.")
    drawn: int = Field(
        0, ge=0, description="The number of last tokens that a completion drew; their rounding may differ."
    )


class TokenizeRequest(_Strict):
    """Body of ``POST /tokenize``."""

    model: str | None = None
    prompt: str = Field(description="Text; <|endoftext|> in it is treated as ordinary text.")


class DetokenizeRequest(_Strict):
    """Body of ``POST /detokenize``."""

    model: str | None = None
    tokens: IdsField


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(_Told):
    """The cause of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Told):
    """The body of every error answer."""

    error: ErrorDetail


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is invalid."},
    401: {"model": ErrorBody, "description": "The API key is missing or wrong."},
    403: {"model": ErrorBody, "description": "The server does not answer to this host, or to pages of this origin."},
    404: {"model": ErrorBody, "description": "The server has no model of this name."},
    408: {"model": ErrorBody, "description": "The body did not arrive in time."},
    413: {"model": ErrorBody, "description": "The body is too long."},
    415: {"model": ErrorBody, "description": "The body's content type is not JSON."},
}
"""Error answers of most routes, for the OpenAPI document."""

BUSY: dict[int | str, dict[str, Any]] = {
    429: {"model": ErrorBody, "description": "Too many samples are waiting."},
    503: {"model": ErrorBody, "description": "The server is shutting down."},
}
"""Error answers of routes that give work to a model, for the OpenAPI document."""


class Logprobs(_Told):
    """One entry for each token; ``null`` for the first of an echoed prompt, which has no context."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int] = Field(description="Where each token begins, in characters from the start of the prompt.")


class Choice(_Told):
    """One completion."""

    text: str
    index: int
    logprobs: Logprobs | None
    finish_reason: str | None


class Usage(_Told):
    """Token counts, over all best_of samples."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timings(_Told):
    """Seconds that a request waited, that prefill took up to the first token, and that the remaining tokens took."""

    queued: float
    prompt: float
    drawing: float


class CompletionResponse(_Told):
    """The answer to a completion request; choice i of prompt p has the index p·n + i."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[Choice]
    usage: Usage | None = None
    timings: Timings | None = None
    warnings: list[str] | None = Field(None, description="Hints at likely mistakes in the request.")


class ModelFacts(_Told):
    """The properties of a model."""

    fingerprint: str = Field(
        description="A hash of its weights, its precision, the CPU's kernels and gpt2lab's version."
    )
    precision: str
    n_vocab: int
    n_ctx: int
    n_layer: int
    n_head: int
    n_embd: int
    n_parameters: int
    end_of_text: int | None = Field(description="The token that ends a text.")


class ModelCard(_Told):
    """A served model."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int
    gpt2lab: ModelFacts


class ModelList(_Told):
    """All served models."""

    object: str
    data: list[ModelCard]


class Tokens(_Told):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]


class Text(_Told):
    """The text of tokens; invalid UTF-8 becomes U+FFFD."""

    prompt: str


class Vocabulary(_Told):
    """All tokens of a model."""

    model: str
    tokens: list[str] = Field(description="One for each id; each character, up to U+00FF, is one byte.")


class Health(_Told):
    """The server's state: ``ok``, or ``draining`` with status 503."""

    status: str
