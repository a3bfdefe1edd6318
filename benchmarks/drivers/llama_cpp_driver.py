"""llama.cpp through llama-cpp-python's bindings of its C functions: ``llama_decode`` on batches, greedy.

The package's own ``Llama`` class runs one sequence only and copies all logits, so it would measure Python. Here
NumPy finds the largest logit of each row, which takes at most 2 per cent of a step of one sequence.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from common import Generate, drive

_kept: list[Any] = []
"""Objects that C holds pointers to."""


def load(model: Path, threads: int, options: dict[str, Any]) -> Generate:
    import llama_cpp as llama
    import numpy as np

    _kept.append(llama.llama_log_callback(lambda level, text, user: None))
    llama.llama_log_set(_kept[0], ctypes.c_void_p(0))
    llama.llama_backend_init()
    parameters = llama.llama_model_default_params()
    parameters.use_extra_bufts = options.get("repack", True)
    weights = llama.llama_model_load_from_file(str(model).encode(), parameters)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(weights))

    def new_context(n_sequences: int, n_ctx: int) -> Any:
        parameters = llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = n_ctx * n_sequences, n_sequences
        parameters.n_batch, parameters.n_ubatch = 2048, options.get("n_ubatch", 512)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = options.get("flash_attn", 1)
        return llama.llama_init_from_model(weights, parameters)

    def decode(context: Any, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Feed (token, position, sequence, whether logits are needed); return the likeliest successors, in order."""
        batch = llama.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, needed) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, needed
        if llama.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        wanted = [i for i, row in enumerate(rows) if row[3]]
        chosen = [
            int(np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), shape=(n_vocab,)).argmax())
            for i in wanted
        ]
        llama.llama_batch_free(batch)
        return chosen

    contexts: dict[tuple[int, int], Any] = {}

    def generate(prompts: list[list[int]], new: int) -> int:
        length = len(prompts[0])
        key = (len(prompts), (length + new + 255) // 256 * 256)
        context = contexts.setdefault(key, None) or new_context(*key)
        contexts[key] = context
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        rows = [
            (token, position, sequence, position == length - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        tokens = decode(context, rows)
        for step in range(new - 1):
            tokens = decode(context, [(token, length + step, i, True) for i, token in enumerate(tokens)])
        return new * len(tokens)

    return generate


if __name__ == "__main__":
    drive(load)
