"""Folders that transformers saves."""

from __future__ import annotations

import json
from pathlib import Path

from checkpoint_cases.registry import Written, read, refused, saved, tiny


@read("folder with `config.json` and `model.safetensors`", writer="transformers", note="every tensor, by its name")
def one_file(folder: Path) -> Written:
    return saved(tiny(), folder / "hf")


@read("the same in shards, with `model.safetensors.index.json`", writer="transformers", note="as the index lists them")
def shards(folder: Path) -> Written:
    return saved(tiny(), folder / "hf", max_shard_size="20KB")


@refused(
    "folder of another kind of model",
    writer="transformers",
    note="`model_type` is not `gpt2`",
    says=("config.json: model_type is 'gpt_neo'",),
)
def another_model(folder: Path) -> Path:
    path = saved(tiny(), folder / "hf").path
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neo"}))
    return path
