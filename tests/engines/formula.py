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
    "float32": "b1b5097450a40c6cfb06dd509ee6d582bc872a2c31ffcccec197fe00398e6497",
    "int8": "0f93d2e7d2dc0fe9af9e6b3cdd99d866de8428cdf0481323296b7a096099f2dc",
    "int4": "7e81aae4ec26f946194ab70533c9aecdc59574cb66269d21ac545939ba2a1997",
}
"""The SHA-256 of the logits after each of TOKENS, with the default KV cache, on every processor."""
KERNELS_OUTPUT = {
    "float32": "0cc1f3c53a03dcd6396e8dbe55a4b21bc21f6172295d94a230bedac48e3f72ca",
    "int8": "7989c6a4234fdfd4e37d522ae6f4ebcedd7f9c1544e3a5c677eda1e57d0b06e8",
    "int4": "9440b7126335c5a219063fd4fc2842a86c0f9ccf181d37b66a45f3b0e3ee057c",
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
