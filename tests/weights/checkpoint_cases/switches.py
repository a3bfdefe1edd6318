"""Folders of models in which a switch of GPT-2's family differs from the original, and of those that none here runs."""

from __future__ import annotations

from pathlib import Path

from checkpoint_cases.registry import Written, read, refused, saved, tiny
from checkpoint_cases.transformers_folders import changed


@read("`activation_function` `gelu`", writer="transformers (Cerebras-GPT, GPT-SW3)", note="exact GELU")
def exact_gelu(folder: Path) -> Written:
    return saved(tiny(activation_function="gelu"), folder / "hf")


@read("`activation_function` `gelu_fast` or `gelu_pytorch_tanh`", writer="transformers", note="names of `gelu_new`")
def other_names(folder: Path) -> Written:
    return saved(tiny(activation_function="gelu_fast"), folder / "hf")


@read("`activation_function` `relu`", writer="transformers", note="as recorded")
def relu(folder: Path) -> Written:
    return saved(tiny(activation_function="relu"), folder / "hf")


@read("`activation_function` `silu` or `swish`", writer="transformers", note="as recorded")
def silu(folder: Path) -> Written:
    return saved(tiny(activation_function="swish"), folder / "hf")


@read("`n_inner` other than 4 · `n_embd`", writer="transformers", note="the MLP has that width")
def inner_width(folder: Path) -> Written:
    return saved(tiny(n_inner=50), folder / "hf")


@read("`layer_norm_epsilon` other than 1e-5", writer="transformers", note="as recorded")
def epsilon(folder: Path) -> Written:
    return saved(tiny(layer_norm_epsilon=0.1), folder / "hf")


@read("`scale_attn_weights` false", writer="transformers", note="scores are not divided by √head_dim")
def unscaled(folder: Path) -> Written:
    return saved(tiny(scale_attn_weights=False), folder / "hf")


@read(
    "`scale_attn_by_inverse_layer_idx` and `reorder_and_upcast_attn`",
    writer="transformers (Stanford CRFM's models)",
    note="scores are divided by the layer's number; attention is always float32 here",
)
def stanford(folder: Path) -> Written:
    return saved(tiny(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True), folder / "hf")


@read("`tie_word_embeddings` false", writer="transformers", note="`lm_head.weight` is the output matrix")
def untied(folder: Path) -> Written:
    return saved(tiny(tie_word_embeddings=False), folder / "hf")


@refused(
    "`tie_word_embeddings` false without `lm_head.weight`",
    writer="a script",
    note="transformers would fill the head with random numbers",
    says=("lm_head.weight is missing",),
)
def untied_without_head(folder: Path) -> Path:
    return changed(saved(tiny(), folder / "hf").path, tie_word_embeddings=False)


@refused(
    "another `activation_function`",
    writer="transformers",
    note="not supported",
    says=("activation_function is 'quick_gelu'",),
)
def other_activation(folder: Path) -> Path:
    return saved(tiny(activation_function="quick_gelu"), folder / "hf").path


@refused(
    "`add_cross_attention` true",
    writer="transformers",
    note="the decoder of an encoder-decoder model",
    says=("add_cross_attention is True",),
)
def cross_attention(folder: Path) -> Path:
    return saved(tiny(add_cross_attention=True), folder / "hf").path
