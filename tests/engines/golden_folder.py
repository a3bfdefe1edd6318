"""Writes the original's numbers as raw arrays for ``native/tests/golden.cpp``, which has no reader of checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gpt2lab

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"


def write_golden(folder: Path) -> None:
    """Write the weights, the original's logits and tokens, and this machine's logits, as golden.cpp reads them."""
    folder.mkdir()
    model = gpt2lab.load(GOLDEN, precision="float32")
    config, golden = model.config, np.load(GOLDEN / "golden.npz")
    tokens, greedy = golden["full_tokens"][0], golden["greedy_tokens"][0]
    shape = (config.n_vocab, config.n_ctx, config.n_embd, config.n_head, config.n_layer, golden["greedy_prompt"].size)
    (folder / "model.txt").write_text("\n".join([" ".join(map(str, shape)), *model.checkpoint.tensors]))
    for name, tensor in model.checkpoint.tensors.items():
        (folder / f"{name}.f32").write_bytes(np.ascontiguousarray(tensor, "<f4").tobytes())
    (folder / "tokens.i32").write_bytes(tokens.astype("<i4").tobytes())
    (folder / "greedy.i32").write_bytes(greedy.astype("<i4").tobytes())
    (folder / "last.f32").write_bytes(golden["full_logits_last"][0].astype("<f4").tobytes())
    for precision in ("float32", "int8", "int4"):
        rounded = gpt2lab.load(GOLDEN, precision=precision)
        (folder / f"{precision}.bits").write_bytes(rounded.logits(tokens.tolist()).astype("<f4").tobytes())
