"""The shape of a GPT-2, and the shapes OpenAI released.

This module knows the five numbers of ``hparams.json`` and what follows from them (parameter count, bytes of KV cache).
It does not know where weights are stored or how the engines use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class ModelConfig:
    """The hyperparameters of one GPT-2, under the names of the original ``hparams.json``.

    Raises :class:`ConfigError` if a value is not a positive integer or ``n_embd`` is not a multiple of ``n_head``.
    """

    n_vocab: int = GPT2_N_VOCAB
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise ConfigError(f"{name} must be a positive whole number below 2^31, got {value!r}")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")

    @classmethod
    def from_hparams(cls, hparams: Mapping[str, Any]) -> ModelConfig:
        """Build from a mapping with the five names; missing ones raise :class:`ConfigError`, others are ignored."""
        missing = [name for name in cls.__dataclass_fields__ if name not in hparams]
        if missing:
            raise ConfigError(f"hyperparameters are missing: {', '.join(missing)}")
        return cls(**{name: hparams[name] for name in cls.__dataclass_fields__})

    def to_hparams(self) -> dict[str, int]:
        """Return the five numbers as in ``hparams.json``."""
        return asdict(self)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def n_params(self) -> int:
        """Number of parameters; the output matrix is ``wte`` itself, so it counts once."""
        n = self.n_embd
        layer = 2 * 2 * n + (n * 3 * n + 3 * n) + (n * n + n) + (n * 4 * n + 4 * n) + (4 * n * n + n)
        return self.n_vocab * n + self.n_ctx * n + self.n_layer * layer + 2 * n

    def kv_cache_bytes(self, n_tokens: int, bytes_per_value: int = 4) -> int:
        """Return the bytes that the keys and values of ``n_tokens`` tokens take."""
        return 2 * self.n_layer * n_tokens * self.n_embd * bytes_per_value


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
