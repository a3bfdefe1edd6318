"""Training on a GPU, as far as a machine without one can tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import needs
from gpt2lab.errors import UsageError

torch = needs.package("torch")

from gpt2lab.engines import torch_devices  # noqa: E402
from gpt2lab.training import distributed, machine  # noqa: E402
from gpt2lab.training.distributed import World  # noqa: E402


def test_the_precision_on_mps_is_float32_unless_asked_for():
    world = SimpleNamespace(device=torch.device("mps"))
    for asked, chosen in (("auto", "float32"), ("bfloat16", "bfloat16")):
        setup = SimpleNamespace(settings=SimpleNamespace(precision=asked), world=world)
        assert machine._precision(setup, None, None, None) == chosen


def test_mps_trains_in_one_process(monkeypatch):
    monkeypatch.setattr(torch_devices, "_gpus", lambda: ["mps"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--device mps trains in one process"):
        World.start("mps")


@pytest.mark.parametrize(
    ("gpus", "processes", "chosen"),
    [(["cuda", "mps"], 1, "cuda"), (["mps"], 1, "mps"), ([], 1, "cpu"), (["mps"], 2, "cpu")],
)
def test_auto_is_a_gpu_on_which_this_many_processes_can_train(monkeypatch, gpus, processes, chosen):
    monkeypatch.setattr(torch_devices, "_gpus", lambda: gpus)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(distributed, "dist", SimpleNamespace(init_process_group=lambda *_, **__: None, rendezvous=met))
    monkeypatch.setattr(distributed, "fresh_store", lambda store, rank, number: store)
    assert World.start("auto").device == torch.device(chosen)


def met(where):
    yield None, 0, 2
