"""GPT-2 as a PyTorch module, for training.

The model is the original's: layer norm before each sub-block, GELU in its tanh form, the output matrix tied to ``wte``,
unless the switches of its :class:`~gpt2lab.config.ModelConfig` say otherwise.
``state_dict()`` has the project's canonical names and ``[in, out]`` shapes, so a checkpoint is a plain copy of it.
Dropout applies to the embeddings and to each sub-block's output, not to attention weights; it is off in ``eval()``.
This module knows nothing of text, of optimizers or of files.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.config import ModelConfig
from gpt2lab.training.ops.affine import NOTHING, Before, affine
from gpt2lab.training.ops.attention import causal_attention
from gpt2lab.training.ops.compute import PLAIN, Compute
from gpt2lab.training.ops.loss import TiedGradient, cross_entropy, embedding
from gpt2lab.training.ops.norms import layer_norm
from gpt2lab.training.ops.recomputing import recomputed

INIT_STD = 0.02


class Projection(nn.Module):
    """An affine map whose weight is ``[in, out]``, as in the original's ``conv1d``. LoRA may give it an adapter."""

    def __init__(self, n_in: int, n_out: int, std: float = INIT_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out).normal_(std=std))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.adapter: nn.Module | None = None

    def forward(self, x: Tensor, compute: Compute, before: Before = NOTHING) -> Tensor:
        """Return the projection of ``before(x)``, ``[..., n_in] -> [..., n_out]``."""
        low_rank = None if self.adapter is None else self.adapter(x)
        return affine(x, self.weight, self.bias, before, low_rank, compute)


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_head = config.n_head
        usual = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        self.scale = None if usual else config.attention_scale(layer)
        self.c_attn = Projection(config.n_embd, 3 * config.n_embd)
        self.c_proj = Projection(config.n_embd, config.n_embd, residual_std(config))

    def forward(self, x: Tensor, compute: Compute, norm: nn.LayerNorm) -> Tensor:
        """Return what the layer adds to the residual stream, ``[batch, time, n_embd]``."""
        qkv = self.c_attn(x, compute, Before(norm=norm))  # [batch, time, 3*n_embd]
        return self.c_proj(causal_attention(qkv, self.n_head, compute, self.scale), compute)


class MLP(nn.Module):
    """The position-wise network, whose inner layer is wider."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = Projection(config.n_embd, config.mlp_width)
        self.c_proj = Projection(config.mlp_width, config.n_embd, residual_std(config))

    def forward(self, x: Tensor, compute: Compute, norm: nn.LayerNorm) -> Tensor:
        """Return what the layer adds to the residual stream, ``[batch, time, n_embd]``."""
        inner = self.c_fc(x, compute, Before(norm=norm))  # [batch, time, mlp_width]
        return self.c_proj(inner, compute, Before(activation=self.activation))


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, compute: Compute) -> Tensor:
        """Compute the layer on the residual stream, ``[batch, time, n_embd]`` in and out."""
        x = added(self.drop(self.attn(x, compute, self.ln_1)), x)
        return added(self.drop(self.mlp(x, compute, self.ln_2)), x)


class GPT2(nn.Module):
    """The transformer with its loss. ``compute`` says how it computes, and may be replaced between updates."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0, compute: Compute = PLAIN) -> None:
        super().__init__()
        self.config, self.compute = config, compute
        self.wte = nn.Embedding(config.n_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        nn.init.normal_(self.wte.weight, std=INIT_STD)
        nn.init.normal_(self.wpe.weight, std=INIT_STD / 2)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(config, layer, dropout) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.lm_head: nn.Embedding | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Embedding(config.n_vocab, config.n_embd)
            nn.init.normal_(self.lm_head.weight, std=INIT_STD)

    def forward(
        self, tokens: Tensor, targets: Tensor, trained: Tensor | None = None, ids: Tensor | None = None
    ) -> Tensor:
        """Return the sum of ``-log p(target)`` in nats, a float32 scalar; not a mean, so sums over batches are exact.

        ``tokens`` and ``targets`` are int64 [batch, time], time <= n_ctx; ``trained`` bool [batch, time] marks the
        targets that count (None = all). ``ids``, int64 and ascending, restricts the softmax to these tokens; all
        targets that count must be among them.
        """
        tied = TiedGradient()
        hidden = self._hidden(tokens, tied).flatten(0, 1)
        weight, targets = self.output_matrix, targets.flatten()
        if ids is not None:  # the gradients of the two uses of wte differ in shape: autograd adds them
            weight, targets = weight[ids], torch.searchsorted(ids, targets).clamp_max_(len(ids) - 1)
        return cross_entropy(
            hidden,
            weight,
            targets,
            None if trained is None else trained.flatten(),
            tied=tied if self.lm_head is None and ids is None and torch.is_grad_enabled() else None,
            compute=self.compute,
        )

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the hidden states ``[batch, time, n_embd]`` of ``tokens`` int64 ``[batch, time]``, time <= n_ctx."""
        return self._hidden(tokens, TiedGradient())

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states, ``[..., n_embd] -> [..., n_vocab]``."""
        return F.linear(hidden, self.output_matrix)

    @property
    def output_matrix(self) -> Tensor:
        """The matrix ``[n_vocab, n_embd]`` that makes logits: ``wte``'s, or that of ``lm_head``."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def _hidden(self, tokens: Tensor, tied: TiedGradient) -> Tensor:
        rows = embedding(tokens, self.wte.weight, tied, self.compute)
        x = self.drop(added(rows, self.wpe.weight[: tokens.shape[1]]))
        for block in self.h:
            if self.compute.recompute == "layers" and torch.is_grad_enabled():
                x = recomputed(partial(block, compute=self.compute), x)
            else:
                x = block(x, self.compute)
        return layer_norm(x, self.ln_f, self.compute)


def added(y: Tensor, x: Tensor) -> Tensor:
    """Return ``x + y``. If both have the same type the result overwrites ``y``, which must not be used afterwards."""
    return y.add_(x) if y.dtype == x.dtype else x + y


def residual_std(config: ModelConfig) -> float:
    """Return the initial deviation of the projections into the residual stream: 2*n_layer sums keep its variance."""
    return INIT_STD / math.sqrt(2 * config.n_layer)
