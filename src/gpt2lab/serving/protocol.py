"""The models of requests and answers: OpenAI's legacy completions, plus gpt2lab's own sampling parameters.

Numbers are strict: neither ``true`` nor ``"1"`` is a number; NaN and infinities are refused. The OpenAPI document is
made from these models. :mod:`~gpt2lab.serving.completions` checks the limits that a server's settings set.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import isinf
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from gpt2lab.sampling.declaration import PARAMETERS
from gpt2lab.serving.errors import UnknownField
from gpt2lab.serving.fields import AllowedField, BiasField, IdsField, PromptField, StopField, StopIdsField

MAX_LOGPROBS = 20

MAX_FIELD_CHARACTERS = 100
"""The most characters of an unknown field's name that are compared with those of known fields, or returned."""


def _nearest(unknown: str, fields: Iterable[str]) -> str | None:
    """Return the field that was probably meant: of similar names, the one that begins most alike."""
    similar = get_close_matches(unknown, fields) if len(unknown) < MAX_FIELD_CHARACTERS else []

    def alike(name: str) -> int:
        return next(
            (i for i, (ours, theirs) in enumerate(zip(name, unknown, strict=False)) if ours != theirs), len(name)
        )

    return max(similar, key=alike, default=None)


class Strict(BaseModel):
    """A body of a request: no unknown fields, no other types."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        """Refuse the first unknown field: 200,000 errors, of which one is reported, would take over a second."""
        unknown = next((name for name in value if name not in cls.model_fields), None) if type(value) is dict else None
        if unknown is None:
            return value
        raise UnknownField(unknown[:MAX_FIELD_CHARACTERS], _nearest(unknown.lower(), cls.model_fields))


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(None, description="Send a last chunk with the token counts.")
    continuous_usage_stats: bool | None = Field(
        None, description="With include_usage: every chunk holds the token counts so far, as in vLLM's server."
    )
    include_obfuscation: bool | None = Field(None, description="Accepted for compatibility; no effect.")


class Steer(Strict):
    """A direction from one text to another, added to the residual stream before a layer at every position."""

    layer: int = Field(ge=0)
    positive: IdsField = Field(description="Token ids, at most 512.")
    negative: IdsField = Field(description="Token ids, at most 512.")
    scale: float = Field(1.0, ge=-1000, le=1000, description="Factor of the direction.")


class _BeforeSampling(Strict):
    model: str | None = Field(None, description="A model that /v1/models lists. Default: the first.")
    prompt: PromptField = Field(
        default_factory=lambda: [""], description="Text or token ids, or a list of either; empty starts a new text."
    )
    max_tokens: int | None = Field(
        None, ge=0, description="The most tokens to generate. Default 16, or fewer if the context has no room."
    )
    n: int | None = Field(None, ge=1, le=1 << 20, description="Number of choices for each prompt. Default 1.")
    best_of: int | None = Field(
        None, ge=0, le=1 << 20, description="Samples per prompt; return the n likeliest. 0 means n."
    )
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
        default_factory=dict,
        description="Token id, or text that stands for its tokens → number added to the logit, from -100 to 100.",
    )
    seed: int | None = Field(
        None,
        ge=-1,
        lt=1 << 63,
        description="The same seed gives the same text. By default, or if -1, a random one, which the answer contains.",
    )
    stop_token_ids: StopIdsField = Field(
        default_factory=tuple, description="Token ids that end a sample, besides the model's own."
    )
    min_tokens: int | None = Field(None, ge=0, description="The number of tokens before which nothing ends a sample.")
    ignore_eos: bool | None = Field(None, description="Continue after <|endoftext|> and other ids that end a text.")
    add_special_tokens: bool | None = Field(
        None,
        description="Add the ids that the model's tokenizer puts around prompts; GPT-2's puts none. Default true.",
    )
    skip_special_tokens: bool | None = Field(
        None, description="Leave special tokens, such as <|endoftext|>, out of the text. Default false."
    )
    user: str | None = Field(None, description="Accepted for compatibility; neither used nor logged.")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="With logprobs: send each token as soon as it is drawn, as token_id:123 instead of its text."
    )

    return_token_ids: bool | None = Field(
        None, description="Return the prompt's token ids, and those drawn: in a stream, with the chunk after each step."
    )
    allowed_token_ids: AllowedField = Field(None, description="Draw no other tokens than these.")
    steer: Steer | None = Field(None, description="Steer the text from one text's direction to another's.")

    @field_validator("seed")
    @classmethod
    def _random(cls, seed: int | None) -> int | None:
        """Take -1 for no seed, as other servers do."""
        return None if seed == -1 else seed


class LogitsRequest(Strict):
    """Body of ``POST /playground/logits``."""

    model: str | None = None
    tokens: IdsField = Field(description="The tokens so far; empty at the start of a text.")
    top: int | None = Field(None, ge=1, le=2**31 - 1, description="Return only the N highest logits, with their ids.")


class TokenizeRequest(Strict):
    """Body of ``POST /tokenize``."""

    model: str | None = None
    prompt: str = Field(description="Text; <|endoftext|> in it is treated as ordinary text.")
    add_special_tokens: bool | None = Field(
        None, description="Add the ids that the model's tokenizer puts around text; GPT-2's puts none. Default true."
    )
    return_token_strs: bool | None = Field(None, description="Return the text of each token, too.")


class DetokenizeRequest(Strict):
    """Body of ``POST /detokenize``."""

    model: str | None = None
    tokens: IdsField


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Told):
    """The cause of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Told):
    """The body of every error answer."""

    error: ErrorDetail


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is invalid."},
    401: {"model": ErrorBody, "description": "The API key is missing or wrong."},
    403: {"model": ErrorBody, "description": "The server does not accept this host, or pages of this origin."},
    404: {"model": ErrorBody, "description": "The server has no model of this name."},
    408: {"model": ErrorBody, "description": "The body did not arrive in time."},
    413: {"model": ErrorBody, "description": "The body is too long."},
    415: {"model": ErrorBody, "description": "The body's content type is not JSON."},
}
"""Error answers of most routes, for the OpenAPI document."""

BUSY: dict[int | str, dict[str, Any]] = {
    429: {"model": ErrorBody, "description": "Too many samples are waiting, or the API key is at its limit."},
    503: {"model": ErrorBody, "description": "The server is shutting down."},
}
"""Error answers of routes that give work to a model, for the OpenAPI document."""


class Logprobs(Told):
    """One entry for each token; ``null`` for the first of an echoed prompt, which has no context."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int] = Field(description="Where each token begins, in characters from the start of the prompt.")


class Choice(Told):
    """One completion."""

    text: str
    index: int
    logprobs: Logprobs | None
    finish_reason: str | None
    prompt_token_ids: list[int] | None = Field(None, description="With return_token_ids; in a stream, once.")
    token_ids: list[int] | None = Field(None, description="With return_token_ids: all that were drawn.")


class PromptTokensDetails(Told):
    """Details of the prompts' tokens."""

    cached_tokens: int = Field(description="How many were not computed, because an earlier text began with them.")


class Usage(Told):
    """Token counts, over all best_of samples."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Timings(Told):
    """Seconds that a request waited, that prefill took up to the first token, and that the remaining tokens took."""

    queued: float
    prompt: float
    drawing: float


class CompletionResponse(Told):
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


class ModelFacts(Told):
    """The properties of a model."""

    fingerprint: str = Field(
        description="A hash of its weights, its precision, the contract's version and the group of processors that "
        "compute the same bits."
    )
    contract: int = Field(
        description="The contract's version: under one version, the same request gives the same text."
    )
    precision: str
    n_vocab: int
    n_ctx: int
    n_layer: int
    n_head: int
    n_embd: int
    switches: dict[str, bool | int | float | str] = Field(
        description="The hyperparameters in which the model differs from the original GPT-2; empty if in none."
    )
    n_parameters: int
    end_of_text: int | None = Field(description="The token that ends a text.")


class ModelCard(Told):
    """A served model."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int
    gpt2lab: ModelFacts


class ModelList(Told):
    """All served models."""

    object: str
    data: list[ModelCard]


class Tokens(Told):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = Field(None, description="The text of each; bytes:\\x.. for parts of a character.")


class Text(Told):
    """The text of tokens; invalid UTF-8 becomes U+FFFD."""

    prompt: str


class Vocabulary(Told):
    """All tokens of a model."""

    model: str
    tokens: list[str] = Field(description="One for each id; each character, up to U+00FF, is one byte.")


class Health(Told):
    """The server's state: ``ok``, or ``draining`` with status 503."""

    status: str
