"""A training run's folder: what is saved, and how it is found again.

    <run>/model.safetensors, config.json     the best model so far, a Hugging Face style folder
    <run>/state-<step>/                       everything to go on from there: the model too, optimiser, RNG, counters

Everything is written beside its place and moved there in one step, so a kill at any moment leaves the last state
whole. Knows nothing of how training goes on in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2lab.config import END_OF_TEXT, ModelConfig
from gpt2lab.errors import CheckpointError

KEEP = 2


def write_model(folder: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors`` and ``config.json`` so that Hugging Face's and this project's readers load them."""
    folder.mkdir(parents=True, exist_ok=True)
    hugging_face = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.n_vocab,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "tie_word_embeddings": True,
    }
    _write_json(folder / "config.json", hugging_face)
    _write_tensors(folder / "model.safetensors", {f"transformer.{name}": t for name, t in tensors.items()})


def save_state(
    run: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    progress: Mapping[str, Any],
) -> Path:
    """Write ``state-<step>`` of a run and forget all but the last two.

    ``progress`` has ``step`` and anything else that JSON holds. Torch's RNG is saved as it is now.
    """
    name = f"{progress['step']:07}"
    final, partial = run / f"state-{name}", run / f".partial-{name}"
    for leftover in run.glob(".partial-*"):  # of a run that was killed while it wrote or removed a state
        shutil.rmtree(leftover)
    write_model(partial, config, tensors)
    _write_tensors(partial / "optimizer.safetensors", dict(optimizer) | {"rng": torch.get_rng_state()})
    _write_json(partial / "progress.json", progress)
    if final.exists():
        _remove(final)
    partial.replace(final)
    for old in states(run)[:-KEEP]:
        _remove(old)
    return final


def _remove(state: Path) -> None:
    """Take a state's name away before its files, so that a kill leaves no half of one under it."""
    doomed = state.with_name(f".partial-old-{state.name}")
    state.replace(doomed)
    shutil.rmtree(doomed)


def states(run: Path) -> list[Path]:
    """The complete states of a run, oldest first: by time, as a run begun anew counts from 1 again."""
    return sorted(run.glob("state-*"), key=lambda state: (state / "progress.json").stat().st_mtime_ns)


def load_state(state: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Model tensors, optimiser tensors and progress of a state folder. Sets torch's RNG to where it was.

    Raises :class:`CheckpointError` if it is not one or is damaged.
    """
    try:
        tensors = load_file(state / "model.safetensors")
        optimizer = load_file(state / "optimizer.safetensors")
        progress: dict[str, Any] = json.loads((state / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{state} cannot be resumed from: {error}") from error
    torch.set_rng_state(optimizer.pop("rng"))
    return {name.removeprefix("transformer."): t for name, t in tensors.items()}, optimizer, progress


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, partial, metadata={"format": "pt"})
    _move_into_place(partial, path)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    _move_into_place(partial, path)


def _move_into_place(partial: Path, path: Path) -> None:
    with partial.open("rb") as written:
        os.fsync(written.fileno())  # or a power cut could leave the new name on an empty file
    partial.replace(path)
