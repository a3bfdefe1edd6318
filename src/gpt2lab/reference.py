"""GPT-2's forward pass in NumPy, written to be read. The engines compute the same, with optimisations.

Follows the original's ``model.py`` line by line, for one sequence; comments give shapes where they change. Weights have
the names and shapes of ``weights.checkpoint``. This module knows nothing of text, sampling, or where weights come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import ModelConfig
from gpt2lab.errors import ContextError

Array = NDArray[np.float32]
Weights = Mapping[str, Array]


Hook = Callable[[str, int, Array], Array]
"""A function of a site, a layer and the numbers there ``[n_seq, …]`` that returns the numbers to continue with.

The sites have TransformerLens' names: ``resid_pre`` (also of layer ``n_layer``: the end), ``q``, ``pattern`` (attention
``[n_head, n_seq, n_total]``, whose rows add up to 1), ``z``, ``attn_out``, ``resid_mid`` and ``mlp_out``. Heads lie
side by side in ``q`` and ``z``.
"""


def unchanged(site: str, layer: int, x: Array) -> Array:
    """Return ``x``: the hook of a plain forward pass."""
    return x


def forward(
    weights: Weights,
    config: ModelConfig,
    tokens: Sequence[int],
    past: Array | None = None,
    hook: Hook = unchanged,
) -> tuple[Array, Array]:
    """Return the logits of the token after each of ``tokens``, and the keys and values of ``tokens``.

    Args:
        weights: all in memory (``dict(checkpoint.tensors)``), because every call looks up each tensor.
        config: the model's shape.
        tokens: ids ``[n_seq]``, at least one.
        past: keys and values ``[n_layer, 2, n_head, n_past, head_dim]`` of the preceding tokens, None if there
            are none. To continue, append what this call returns: ``np.concatenate([past, present], axis=-2)``.
        hook: is called at each site of each layer; for inspection and changes.

    Returns:
        logits ``[n_seq, n_vocab]`` and present ``[n_layer, 2, n_head, n_seq, head_dim]``, float32.

    Raises :class:`ContextError` if ``n_past + n_seq`` exceeds ``n_ctx``, ``ValueError`` for ids beyond ``n_vocab``.
    """
    if past is None:
        past = np.zeros((config.n_layer, 2, config.n_head, 0, config.head_dim), dtype=np.float32)
    n_past = past.shape[-2]
    n_total = n_past + len(tokens)
    if n_total > config.n_ctx:
        raise ContextError(f"{n_total} tokens are more than the model's context of {config.n_ctx}")
    if not 0 <= min(tokens) <= max(tokens) < config.n_vocab:
        raise ValueError(f"token ids must be from 0 to {config.n_vocab - 1}")

    wte, wpe = weights["wte.weight"], weights["wpe.weight"]
    x = wte[np.asarray(tokens)] + wpe[n_past:n_total]  # [n_seq, n_embd]
    present = []
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        x = hook("resid_pre", layer, x)
        normed = layer_norm(weights, f"{name}.ln_1", x, config.layer_norm_epsilon)
        attended, keys_values = attention(weights, layer, config, normed, past[layer], hook)
        x = hook("resid_mid", layer, x + hook("attn_out", layer, attended))  # [n_seq, n_embd]
        normed = layer_norm(weights, f"{name}.ln_2", x, config.layer_norm_epsilon)
        x = x + hook("mlp_out", layer, mlp(weights, name, config, normed))  # [n_seq, n_embd]
        present.append(keys_values)
    x = hook("resid_pre", config.n_layer, x)
    return unembed(weights, config, x), np.stack(present)


def unembed(weights: Weights, config: ModelConfig, x: Array) -> Array:
    """Return the logits ``[n_seq, n_vocab]`` of the residual stream ``x [n_seq, n_embd]`` at its end."""
    logits: Array = layer_norm(weights, "ln_f", x, config.layer_norm_epsilon) @ output_matrix(weights, config).T
    return logits


def output_matrix(weights: Weights, config: ModelConfig) -> Array:
    """Return the matrix ``[n_vocab, n_embd]`` that makes logits: in the original, the token embedding."""
    return weights["wte.weight" if config.tie_word_embeddings else "lm_head.weight"]


def attention(
    weights: Weights, layer: int, config: ModelConfig, x: Array, past: Array, hook: Hook = unchanged
) -> tuple[Array, Array]:  # x [n_seq, n_embd], past [2, n_head, n_past, head_dim]
    """Compute one layer's masked self-attention: its output ``[n_seq, n_embd]``, and the new keys and values."""
    name, n_seq = f"h.{layer}", len(x)
    qkv = linear(weights, f"{name}.attn.c_attn", x)  # [n_seq, n_embd] -> [n_seq, 3*n_embd]
    qkv[:, : config.n_embd] = hook("q", layer, qkv[:, : config.n_embd])
    qkv = qkv.reshape(n_seq, 3, config.n_head, config.head_dim)
    q, *present = qkv.transpose(1, 2, 0, 3)  # each [n_head, n_seq, head_dim]
    k, v = np.concatenate([past, present], axis=-2)  # each [n_head, n_past + n_seq, head_dim]

    scores = q @ k.transpose(0, 2, 1) * np.float32(config.attention_scale(layer))  # [n_head, n_seq, n_past + n_seq]
    visible = np.tri(n_seq, k.shape[-2], k=k.shape[-2] - n_seq, dtype=bool)  # a token sees itself and earlier ones
    probabilities = softmax(np.where(visible, scores, np.float32(-1e10)))  # [n_head, n_seq, n_past + n_seq]
    probabilities = hook("pattern", layer, probabilities)
    out = probabilities @ v  # [n_head, n_seq, head_dim]
    out = out.transpose(1, 0, 2).reshape(n_seq, config.n_embd)  # heads side by side: [n_seq, n_embd]
    return linear(weights, f"{name}.attn.c_proj", hook("z", layer, out)), np.stack(present)


def mlp(weights: Weights, name: str, config: ModelConfig, x: Array) -> Array:
    """Apply one layer's two-layer perceptron to each token separately."""
    hidden = linear(weights, f"{name}.mlp.c_fc", x)  # [n_seq, n_embd] -> [n_seq, mlp_width]
    hidden = ACTIVATIONS[config.activation](hidden)
    return linear(weights, f"{name}.mlp.c_proj", hidden)  # [n_seq, mlp_width] -> [n_seq, n_embd]


def linear(weights: Weights, name: str, x: Array) -> Array:
    """Multiply ``x [n_seq, n_in]`` by the weight ``[n_in, n_out]`` and add the bias."""
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def layer_norm(weights: Weights, name: str, x: Array, epsilon: float) -> Array:
    """Normalise each row to mean 0 and variance 1, then scale and shift it."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(variance + np.float32(epsilon))
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """Apply the tanh approximation of GELU, with which GPT-2 was trained (Hendrycks & Gimpel 2016)."""
    tanh: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1 + tanh)


def exact_gelu(x: Array) -> Array:
    """Apply GELU as defined: x times the normal distribution's probability of a smaller number."""
    erf: Array = _erf(x / math.sqrt(2))
    return 0.5 * x * (1 + erf)


def relu(x: Array) -> Array:
    """Replace negative numbers by 0."""
    positive: Array = np.maximum(x, np.float32(0))
    return positive


def silu(x: Array) -> Array:
    """Apply x · sigmoid(x), the sigmoid written with tanh so that nothing overflows."""
    tanh: Array = np.tanh(0.5 * x)
    return 0.5 * x * (1 + tanh)


_erf = np.vectorize(math.erf, otypes=[np.float32])
ACTIVATIONS = {"gelu_new": gelu, "gelu": exact_gelu, "relu": relu, "silu": silu}


def softmax(x: Array) -> Array:
    """Apply softmax over the last axis, after subtracting the largest value so that nothing overflows."""
    exponentials: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    normed: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return normed
