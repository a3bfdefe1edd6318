"""Models of GPT-2's family, each with a switch that the original lacks, made by transformers with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import needs

torch = needs.package("torch")
transformers = needs.package("transformers")

SWITCHES: dict[str, dict[str, Any]] = {
    "gelu": {"activation_function": "gelu"},
    "gelu_fast": {"activation_function": "gelu_fast"},
    "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "wide": {"n_inner": 200},
    "narrow": {"n_inner": 24},
    "epsilon": {"layer_norm_epsilon": 0.03},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True, "attn_implementation": "eager"},
    "untied": {"tie_word_embeddings": False},
    "all": {
        **{"activation_function": "gelu", "n_inner": 70, "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False},
        **{"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    },
}
"""Name → what the switch is called in ``config.json``."""

EACH = pytest.mark.parametrize("switch", SWITCHES)


def make(switch: str, **shape: int) -> transformers.GPT2LMHeadModel:
    """Return transformers' model with this switch; its weights are large enough for every switch to show."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "n_positions": 40, "n_embd": 40, "n_head": 4, "n_layer": 3} | shape
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **SWITCHES[switch])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def save(switch: str, folder: Path, **shape: int) -> transformers.GPT2LMHeadModel:
    """Let transformers save the model with this switch into ``folder``, and return it."""
    model = make(switch, **shape)
    model.save_pretrained(folder)
    return model


def tokens(n: int = 40) -> list[int]:
    """Return token ids that every model here has."""
    return [(7 * i * i + 3 * i) % 90 for i in range(n)]


def logits(model: transformers.GPT2LMHeadModel, ids: list[int]) -> Any:
    """Return transformers' logits after each of ``ids``, a float32 array."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()
