"""nanoGPT's ``ckpt.pt``, written by a script that follows its ``train.py`` and ``model.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
from checkpoint_cases.registry import Written, logits_of, read, refused, tiny

LINEAR = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
ASSUMED = ("nanoGPT does not record the activation, so gelu is assumed",)


def write(path: Path, model: Any, *, bias: bool = True, prefix: str = "", **arguments: Any) -> Path:
    """Save a model as nanoGPT does: linear layers ``[out, in]``, the head as a tensor of its own or the embedding's."""
    torch, config, state = needs.package("torch"), model.config, {}
    for name, tensor in model.state_dict().items():
        if bias or not name.endswith(".bias"):
            state[prefix + name] = tensor.T.contiguous() if name.endswith(LINEAR) else tensor
    shape = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "bias": bias, "dropout": 0.0}
    arguments = {**shape, "block_size": config.n_positions, "vocab_size": config.vocab_size, **arguments}
    torch.save({"model": state, "model_args": arguments, "iter_num": 5, "config": {"out_dir": "out"}}, path)
    return path


@read("`ckpt.pt`", writer="nanoGPT", note="needs PyTorch; exact GELU is assumed, and a note says so")
def today(folder: Path) -> Written:
    model = tiny(activation_function="gelu")
    return Written(write(folder / "ckpt.pt", model), logits_of(model), says=ASSUMED)


@read("`ckpt.pt` from before June 2023", writer="nanoGPT", note="needs `--activation gelu_new`")
def older(folder: Path) -> Written:
    model = tiny()
    return Written(write(folder / "ckpt.pt", model), logits_of(model), options={"activation": "gelu_new"})


@read("`ckpt.pt` of a compiled model without biases", writer="nanoGPT", note="biases are zero; prefixes are dropped")
def without_biases(folder: Path) -> Written:
    torch, model = needs.package("torch"), tiny(activation_function="gelu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    path = write(folder / "ckpt.pt", model, bias=False, prefix="_orig_mod.")
    return Written(path, logits_of(model), says=ASSUMED)


@read(
    "`ckpt.pt` with an `lm_head` that differs from the embedding",
    writer="nanoGPT, changed",
    note="`lm_head` is the output matrix",
)
def untied(folder: Path) -> Written:
    model = tiny(activation_function="gelu", tie_word_embeddings=False)
    return Written(write(folder / "ckpt.pt", model), logits_of(model), says=ASSUMED)


@refused(
    "a training checkpoint of another program",
    writer="PyTorch",
    note="save the model's state_dict with a `config.json`",
    says=("ckpt.pt holds a dict of 'step', 'model', 'optimizers', not a model's state_dict",),
)
def another_program(folder: Path) -> Path:
    content = {"step": 1, "model": tiny().state_dict(), "optimizers": []}
    needs.package("torch").save(content, folder / "ckpt.pt")
    return folder / "ckpt.pt"


@refused("an optimizer's state", writer="PyTorch", note="give the model", says=("holds an optimizer's state",))
def optimizer(folder: Path) -> Path:
    torch = needs.package("torch")
    torch.save(torch.optim.AdamW(tiny().parameters()).state_dict(), folder / "optimizer.pt")
    return folder / "optimizer.pt"


@refused(
    "a checkpoint of PyTorch Lightning",
    writer="PyTorch Lightning (its layout)",
    note="save the model's state_dict with a `config.json`",
    says=("holds a PyTorch Lightning checkpoint",),
)
def lightning(folder: Path) -> Path:
    content = {"pytorch-lightning_version": "2.5.0", "state_dict": tiny().state_dict(), "epoch": 1}
    needs.package("torch").save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


@refused("a whole model, pickled", writer="PyTorch", note="save its state_dict", says=("could run code",))
def pickled_model(folder: Path) -> Path:
    needs.package("torch").save(tiny(), folder / "model.pt")
    return folder / "model.pt"
