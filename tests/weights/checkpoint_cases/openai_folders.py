"""TensorFlow checkpoints of OpenAI's code and its fine-tunable forks, written by a script that follows their layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoint_cases.registry import Written, logits_of, read, refused, tiny
from gpt2lab.config import ModelConfig
from gpt2lab.weights import Checkpoint, tensor_shapes
from tf_bundle import write_bundle


def bundle(folder: Path, **how: Any) -> Written:
    model = tiny()
    config = ModelConfig(n_vocab=23, n_ctx=16, n_embd=32, n_head=4, n_layer=2)
    state = model.transformer.state_dict()
    tensors = {name: state[name].numpy() for name in tensor_shapes(config)}
    write_bundle(folder, Checkpoint(config, tensors, None, "openai", "float32", folder), **how)
    return Written(folder, logits_of(model))


@read("folder with `checkpoint`, `*.index`, `*.data-…`, `hparams.json`", writer="OpenAI", note="no TensorFlow needed")
def released(folder: Path) -> Written:
    return bundle(folder / "124M")


@read("a TensorFlow checkpoint by its prefix", writer="nshepperd, gpt-2-simple", note="the one that the prefix names")
def prefix(folder: Path) -> Written:
    written = bundle(folder / "run1", prefix="model-1000")
    return Written(written.path / "model-1000", written.logits)


@refused(
    "a TensorFlow checkpoint without `hparams.json`, of no released size",
    writer="nshepperd",
    note="add the file",
    says=("hparams.json is missing, and the tensors fit no released size",),
)
def without_hparams(folder: Path) -> Path:
    return bundle(folder / "run1", hparams=False).path


@refused(
    "`hparams.json` of another shape",
    writer="by hand",
    note="it contradicts the tensors",
    says=("tensor wpe.weight has shape [16, 32], not [32, 32]",),
)
def other_shape(folder: Path) -> Path:
    path = bundle(folder / "124M").path
    hparams = json.loads((path / "hparams.json").read_text())
    (path / "hparams.json").write_text(json.dumps({**hparams, "n_ctx": 32}))
    return path
