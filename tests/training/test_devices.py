"""Training on a GPU, as far as a machine without one can tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import needs
from gpt2lab.errors import UsageError

torch = needs.package("torch")

from gpt2lab.training import machine  # noqa: E402
from gpt2lab.training.distributed import World  # noqa: E402


def test_the_precision_on_mps_is_float32_unless_asked_for():
    world = SimpleNamespace(device=torch.device("mps"))
    for asked, chosen in (("auto", "float32"), ("bfloat16", "bfloat16")):
        setup = SimpleNamespace(settings=SimpleNamespace(precision=asked), world=world)
        assert machine._precision(setup, None, None, None) == chosen


def test_mps_trains_in_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--device mps trains in one process"):
        World.start("mps")
