"""Samples in training are generated where the model trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

import gpt2lab
import needs
from gpt2lab.engines.lazy import Engines
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of

torch = needs.package("torch")

from gpt2lab.training import samples  # noqa: E402

TINY = Path(__file__).parents[1] / "golden" / "tiny"


def test_samples_are_generated_on_the_device_that_trains(tmp_path, monkeypatch):
    """A stand-in for a GPU's engine: the same code on the CPU."""
    devices = []

    def opened(checkpoint, *, device):
        devices.append(device)
        return Engines(checkpoint, device="torch-cpu")

    monkeypatch.setattr(samples, "Engines", opened)
    checkpoint = open_checkpoint(TINY)
    wanted = {"sample_prompt": "Once", "sample_length": 8, "sample_num": 2, "top_k": 5, "top_p": 0.0, "seed": 3}
    setup = SimpleNamespace(
        settings=SimpleNamespace(**wanted),
        source=SimpleNamespace(config=checkpoint.config, tokenizer=tokenizer_of(checkpoint)),
        job=SimpleNamespace(special=False, samples=tmp_path),
        world=SimpleNamespace(device=torch.device("cuda")),
    )
    said = []
    tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in checkpoint.tensors.items()}
    samples.Samples(setup, said.append)(5, tensors)
    assert devices == ["cuda"]
    expected = gpt2lab.load(TINY, device="torch-cpu").generate("Once", n=2, length=8, top_k=5, seed=3)
    written = (tmp_path / "samples-5").read_text(encoding="utf-8")
    assert [f"Once{completion.text}" in written for completion in expected] == [True, True], said
