"""The facts that ``gpt2lab info`` reports about a checkpoint, as plain data."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from typing import Any

from gpt2lab.config import takes_gpt2_vocabulary
from gpt2lab.weights.checkpoint import Checkpoint, without_text


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the shape, size and identity of ``checkpoint``; reads every tensor once for the hash.

    Sizes are in bytes: ``file_bytes`` for the files with tensors, ``memory_bytes`` for the weights in float32, and
    ``kv_cache_bytes`` for the KV cache of one full context in float32.
    """
    config = checkpoint.config
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "precision": checkpoint.precision,
        **config.to_hparams(),
        "parameters": config.n_params,
        "file_bytes": sum(file.stat().st_size for file in checkpoint.files),
        "memory_bytes": 4 * config.n_params,
        "kv_cache_bytes": config.kv_cache_bytes(config.n_ctx),
        "tokenizer": _tokenizer(checkpoint),
        "weights_sha256": weights_sha256(checkpoint),
    }


def weights_sha256(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 over all tensors as little-endian float32, in canonical order and shape.

    The same weights have the same hash in every format, as long as no conversion rounded them.
    """
    digest = hashlib.sha256()
    for tensor in checkpoint.tensors.values():
        digest.update(tensor.astype("<f4", copy=False).data)
    return digest.hexdigest()


def _tokenizer(checkpoint: Checkpoint) -> str:
    other, files, n_vocab = checkpoint.other_tokenizer, checkpoint.tokenizer_files, checkpoint.config.n_vocab
    if other is not None:
        runs = other.json is not None and find_spec("tokenizers") is not None
        return f"another kind ({other.why}), run by the tokenizers package" if runs else f"none: {without_text(other)}"
    if files is not None:
        beyond = sum(id >= n_vocab for id in files.encoder.values())
        unused = f" ({beyond} with ids beyond the model's, which no text may use)" if beyond else ""
        return f"its own, {len(files.encoder)} tokens{unused}"
    return "GPT-2's, 50257 tokens" if takes_gpt2_vocabulary(n_vocab) else "none: prompts are token ids"
