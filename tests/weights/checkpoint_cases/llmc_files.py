"""Files of llm.c, written by a script that follows ``write_model`` in its ``train_gpt2.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import needs
from checkpoint_cases.registry import Written, logits_of, read, refused, tiny

PADDED = 128
LAYERS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def write(path: Path, model: Any, version: int, rows: int, magic: int = 20240326) -> Path:
    """Write a model: 256 int32, then each kind of parameter for all layers; matrices are ``[out, in]``."""
    torch, config, state = needs.package("torch"), model.config, model.transformer.state_dict()
    wte = torch.zeros(rows, config.n_embd)
    wte[: config.vocab_size] = state["wte.weight"]
    order = [wte, state["wpe.weight"]]
    for part in LAYERS:
        for kind in ("weight", "bias"):
            stored = [state[f"h.{layer}.{part}.{kind}"] for layer in range(config.n_layer)]
            order += [tensor.T if tensor.dim() == 2 else tensor for tensor in stored]
    order += [state["ln_f.weight"], state["ln_f.bias"]]
    header = np.zeros(256, np.int32)
    header[:7] = magic, version, config.n_positions, config.vocab_size, config.n_layer, config.n_head, config.n_embd
    header[7] = rows if version >= 3 else 0
    with path.open("wb") as file:
        file.write(header.tobytes())
        for tensor in order:
            halved = tensor.bfloat16().contiguous().view(torch.int16)
            file.write((halved if version == 5 else tensor.contiguous()).numpy().tobytes())
    return path


@read("`gpt2_124M.bin`, version 3", writer="llm.c", note="float32; the padding of the embedding is left out")
def version_3(folder: Path) -> Written:
    model = tiny()
    return Written(write(folder / "gpt2.bin", model, 3, PADDED), logits_of(model))


@read("`gpt2_124M_bf16.bin`, version 5", writer="llm.c", note="bfloat16")
def version_5(folder: Path) -> Written:
    model = tiny()
    path = write(folder / "gpt2_bf16.bin", model, 5, PADDED)
    return Written(path, logits_of(model.bfloat16()))


@read("`gpt2_124M.bin`, version 1", writer="llm.c of April 2024", note="float32 without padding")
def version_1(folder: Path) -> Written:
    model = tiny()
    return Written(write(folder / "gpt2.bin", model, 1, model.config.vocab_size), logits_of(model))


@refused(
    "`gpt2_124M.bin`, version 2",
    writer="llm.c of April 2024",
    note="another layout; write it again with a newer llm.c",
    says=("version 2 of llm.c",),
)
def version_2(folder: Path) -> Path:
    return write(folder / "gpt2.bin", tiny(), 2, 23)


@refused(
    "`gpt2_124M.bin`, version 3 without padding",
    writer="llm.c of May 2024",
    note="another layout; write it again with a newer llm.c",
    says=("early version 3",),
)
def early_version_3(folder: Path) -> Path:
    path = write(folder / "gpt2.bin", tiny(), 3, 23)
    content = path.read_bytes()
    path.write_bytes(content[:28] + bytes(4) + content[32:])
    return path


@refused(
    "`gpt2_124M.bin`, truncated or too long",
    writer="llm.c",
    note="download it again",
    says=("but its header describes",),
)
def too_long(folder: Path) -> Path:
    path = write(folder / "gpt2.bin", tiny(), 3, PADDED)
    path.write_bytes(path.read_bytes() + bytes(4))
    return path


@refused("`gpt2_124M_debug_state.bin`", writer="llm.c", note="give the model", says=("is llm.c's debug state",))
def debug_state(folder: Path) -> Path:
    return write(folder / "state.bin", tiny(), 2, 23, magic=20240327)


@refused("`gpt2_tokenizer.bin`", writer="llm.c", note="give the model", says=("is llm.c's tokenizer",))
def tokenizer(folder: Path) -> Path:
    return write(folder / "tokenizer.bin", tiny(), 2, 23, magic=20240328)
