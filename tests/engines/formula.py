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
    "int8": "95df3598870a9a9665540653ff80597aea3ddd2346314a64ff5280a11053f84a",
    "int4": "14abab66728f6d1228dd2c085c269a9ccdb31dc1a38f58be973f7dd2cea6585d",
}
"""The SHA-256 of the logits after each of TOKENS, with the default KV cache, on every processor."""
KERNELS_OUTPUT = {
    "float32": "2a9bd119c47c9f81447d13e07900dede1b9920f5a186c98eda57ad42a9c77e35",
    "int8": "2861583d856f585dcfe90ebc4053a74963b3025e5e7f6f84fad8eadb545c1f66",
    "int4": "ce53c0be2578105613bcf563b517fe5b4784c84682853cfd174f4196ec67ae8c",
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
