"""A model whose weights are made from integers, the same on every machine; also in native/tests/selftest.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2lab.config import ModelConfig
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

CONFIG = ModelConfig(n_vocab=300, n_ctx=320, n_embd=40, n_head=2, n_layer=2)
"""Sizes that are no multiples of a vector, and a context longer than a span of attention."""
TOKENS = [(7 * i * i + 3 * i) % 300 for i in range(300)]
WAYS = (SamplingParams(), SamplingParams(temperature=0.7, top_k=40), SamplingParams(top_p=0.9))
"""How the texts are drawn: text i begins with TOKENS[i], and has seed 7 and stream i."""

LOGITS = {
    "float32": "5d78747a0c0774609a3b78a1a9d4f79d2b193ce254d536d8266daf1dec3839be",
    "int8": "45f1536072efa7d73fb9fea8ec6ed515c838b5973f45cc5e3e37768b859b8a21",
    "int4": "d98d3788e36e3d10b48e02403b3f10536be72a9553f49111ede35c5f0e194073",
}
"""The SHA-256 of the logits after each of TOKENS, on every processor."""
KERNELS_OUTPUT = {
    "float32": "2a9bd119c47c9f81447d13e07900dede1b9920f5a186c98eda57ad42a9c77e35",
    "int8": "fc936601761cef209a7c7068ba1f8b6c88b175a0e78db9b5edb7c16f2a022930",
    "int4": "c40777babc35c952f2181fc4dc6f59e7eba1a22ba8e69c507ec8b50a269718b0",
}
"""The SHA-256 of those logits and of the texts' 90 tokens as int32."""


def formula_checkpoint(config: ModelConfig = CONFIG) -> Checkpoint:
    """Return the model; its matrices hold numbers from -0.25 to 0.25."""
    tensors = {}
    for number, (name, shape) in enumerate(tensor_shapes(config).items()):
        integers = (np.arange(np.prod(shape), dtype=np.uint64) * 2654435761 + number * 40503) % 2**32 >> 16
        tensors[name] = ((integers.astype(np.float32) - 32768) / 131072).reshape(shape)
        if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
            tensors[name] += 1
    return Checkpoint(config, tensors, None, "openai", "float32", Path("formula"))
