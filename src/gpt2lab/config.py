"""The shape of a GPT-2, the switches of its family, and the shapes OpenAI released.

This module knows the five numbers of ``hparams.json``, the ways in which other GPT-2s differ from the original, and
what follows from both (parameter count, bytes of KV cache). It does not know where weights are stored or how the
engines use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gpt2lab.errors import ConfigError

END_OF_TEXT = 50256
"""Id of ``<|endoftext|>`` in GPT-2's vocabulary: starts an unconditional sample, ends a document."""


GPT2_N_VOCAB = 50257
"""The number of tokens in GPT-2's vocabulary, including ``<|endoftext|>``."""

_MAX_PADDING = 512


def takes_gpt2_vocabulary(n_vocab: int) -> bool:
    """Return whether a model of ``n_vocab`` ids without its own tokenizer can be assumed to use GPT-2's.

    It may have up to 512 more ids than tokens, because embeddings are often padded (nanoGPT pads them to 50304).
    """
    return GPT2_N_VOCAB <= n_vocab <= GPT2_N_VOCAB + _MAX_PADDING


ACTIVATIONS: Mapping[str, str] = {
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names of the MLP's activation at Hugging Face → the name here of the same function."""

ACTIVATION_NAMES = tuple(dict.fromkeys(ACTIVATIONS.values()))
"""GELU in its tanh form (the original's), GELU with the exact normal distribution, ReLU, and x · sigmoid(x)."""

_SHAPE = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
_FLAGS = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "tie_word_embeddings")
_LEAST_EPSILON = 1e-30


@dataclass(frozen=True)
class ModelConfig:
    """The hyperparameters of one GPT-2: the five of the original ``hparams.json``, and the switches of its family.

    The switches have the names of Hugging Face's ``config.json``, and their defaults are the original. Raises
    :class:`ConfigError` for a value that no GPT-2 has.

    Attributes:
        activation: the MLP's, one of :data:`ACTIVATION_NAMES`; the other names of :data:`ACTIVATIONS` are replaced.
        n_inner: width of the MLP's inner layer; None: 4 · ``n_embd``, which is also replaced by None.
        layer_norm_epsilon: the term added to the variance in every layer norm.
        scale_attn_weights: whether attention's scores are divided by the square root of ``head_dim``.
        scale_attn_by_inverse_layer_idx: whether they are also divided by the layer's number, counted from 1.
        reorder_and_upcast_attn: whether attention is computed in float32 where the rest is not. Here it always is, so
            this is only kept for the copies that ``convert`` writes.
        tie_word_embeddings: whether the output matrix is ``wte``; otherwise it is ``lm_head``.
    """

    n_vocab: int = GPT2_N_VOCAB
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    activation: str = "gelu_new"
    n_inner: int | None = None
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in (*_SHAPE, *(() if self.n_inner is None else ("n_inner",))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise ConfigError(f"{name} must be a positive whole number below 2^31, got {value!r}")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        epsilon = self.layer_norm_epsilon
        if not isinstance(epsilon, float) or not _LEAST_EPSILON <= epsilon < 1:
            raise ConfigError(f"layer_norm_epsilon must be a number from {_LEAST_EPSILON} to 1, got {epsilon!r}")
        object.__setattr__(self, "activation", canonical_activation(self.activation))
        if self.n_inner == 4 * self.n_embd:
            object.__setattr__(self, "n_inner", None)  # one shape has one description

    @classmethod
    def from_hparams(cls, hparams: Mapping[str, Any]) -> ModelConfig:
        """Build from a mapping with the five numbers and any switches; other names are ignored.

        Raises :class:`ConfigError` if one of the five is missing.
        """
        missing = [name for name in _SHAPE if name not in hparams]
        if missing:
            raise ConfigError(f"hyperparameters are missing: {', '.join(missing)}")
        return cls(**{field.name: hparams[field.name] for field in fields(cls) if field.name in hparams})

    def to_hparams(self) -> dict[str, Any]:
        """Return the five numbers as in ``hparams.json``, and the switches that differ from the original."""
        return {name: getattr(self, name) for name in _SHAPE} | self.switches

    @property
    def switches(self) -> dict[str, Any]:
        """The switches that differ from the original: empty for a plain GPT-2."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, plain) in values.items() if name not in _SHAPE and value != plain}

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's inner layer."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    def attention_scale(self, layer: int) -> float:
        """Return the factor of attention's scores in ``layer``, counted from 0."""
        scale = self.head_dim**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def n_params(self) -> int:
        """Number of parameters; an output matrix that is ``wte`` itself counts once."""
        n, inner = self.n_embd, self.mlp_width
        layer = 2 * 2 * n + (n * 3 * n + 3 * n) + (n * n + n) + (n * inner + inner) + (inner * n + n)
        return self.n_embeddings * self.n_vocab * n + self.n_ctx * n + self.n_layer * layer + 2 * n

    @property
    def n_matrix_weights(self) -> int:
        """Number of weights in matrices: the embedding, the output matrix and four in each layer."""
        n = self.n_embd
        return self.n_embeddings * self.n_vocab * n + self.n_layer * (4 * n * n + 2 * n * self.mlp_width)

    @property
    def n_embeddings(self) -> int:
        """Number of matrices ``[n_vocab, n_embd]``: 1 if the output matrix is the token embedding, else 2."""
        return 1 if self.tie_word_embeddings else 2

    def kv_cache_bytes(self, n_tokens: int, kv_precision: str = "float32") -> int:
        """Return the bytes that the keys and values of ``n_tokens`` tokens take; int8 has a scale for every head."""
        width = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[kv_precision]
        scale = 4 if kv_precision == "int8" else 0
        return 2 * self.n_layer * n_tokens * (self.n_embd * width + self.n_head * scale)


def canonical_activation(name: str) -> str:
    """Return the name here of an activation. Raises :class:`ConfigError` if it is none of :data:`ACTIVATIONS`."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


RELEASED_SIZES: dict[str, ModelConfig] = {
    "124M": ModelConfig(),
    "355M": ModelConfig(n_embd=1024, n_head=16, n_layer=24),
    "774M": ModelConfig(n_embd=1280, n_head=20, n_layer=36),
    "1558M": ModelConfig(n_embd=1600, n_head=25, n_layer=48),
}
"""The four sizes OpenAI released."""

SIZE_ALIASES: dict[str, str] = {
    "117M": "124M",
    "345M": "355M",
    "762M": "774M",
    "1542M": "1558M",
    "gpt2": "124M",
    "gpt2-medium": "355M",
    "gpt2-large": "774M",
    "gpt2-xl": "1558M",
}
"""Names of the same models in OpenAI's first release (which miscounted the parameters) and at Hugging Face."""


def canonical_size(name: str) -> str | None:
    """Return the released size that ``name`` means, in any case (``"117m"`` → ``"124M"``); None if it means none."""
    return next(
        (size for size in RELEASED_SIZES for known in names_of_size(size) if known.lower() == name.lower()), None
    )


def names_of_size(size: str) -> list[str]:
    """Return all names of a released size, its own first: its checkpoint may be in a folder of any of them."""
    return [size, *(alias for alias, meant in SIZE_ALIASES.items() if meant == size)]
