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
    "float32": "f9ffea348a6c78ed29e109d2ee136a5aef6d3db28db74af86ef99cc2e1ab7367",
    "int8": "1f2506c1a9f4aab524d632a9559a8897c58060717e7ec3a97cee7c9a9bb90bf0",
    "int4": "6103593e1db98b10db800202759f2e580797ec130c60f6cc48645d1b6b68bd69",
}
"""The SHA-256 of the logits after each of TOKENS, with the default KV cache, on every processor."""
KERNELS_OUTPUT = {
    "float32": "7465790be53e3a4530c2042ddbf75403fc28df7d94dbb7ee2f6cf16a8937f71d",
    "int8": "60a1e31a8388ed8a5997d9b0fb99d0999c4e68caad2b4da03311a7fd76539642",
    "int4": "e19cb03c7d0867572572a0a9eb6e69ddd41710b921a5d5220219882992729f09",
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
