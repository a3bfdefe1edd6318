"""benchmarks/gpu.py: its parts, what it skips, and its checks on the CPU."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import gpu
import numpy as np
import pytest

import needs

SCRIPT = Path(gpu.__file__)


def test_checks_come_first_and_without_a_gpu_nothing_large_is_measured():
    assert gpu.parts_of("cuda")[:4] == gpu.parts_of("torch-cpu")[:4] == list(gpu.CHECKS)
    assert "decode vllm 1558M 64" in gpu.parts_of("cuda")
    assert all(part in gpu.CHECKS or " tiny " in part or "train" in part for part in gpu.parts_of("torch-cpu"))


@pytest.mark.slow
@needs.mark("torch")
@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("golden", {"passed": True}),
        ("promise", {"passed": True}),
        ("decode nothing tiny 2", {"skipped": "nothing is not installed"}),
        ("train nanogpt", {"skipped": "give --nanogpt FOLDER"}),
    ],
)
def test_a_part_reports_on_its_last_line(part, found):
    command = [sys.executable, SCRIPT.parent / "drivers" / "gpu_driver.py", part, "--device", "torch-cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.items() <= json.loads(done.stdout.splitlines()[-1]).items()


def test_logits_that_are_not_numbers_fail_the_comparison_with_the_original():
    driver = runpy.run_path(str(SCRIPT.parent / "drivers" / "gpu_driver.py"))

    class Broken:
        def __init__(self, checkpoint, device):
            self.n_vocab = checkpoint.config.n_vocab

        def new_sequence(self):
            return 0

        def forward(self, sequences, tokens, outputs):
            return np.full((len(tokens[0]), self.n_vocab), np.nan, np.float32)

    golden = driver["golden"]
    golden.__globals__["open_engine"] = Broken
    assert golden(argparse.Namespace(device="torch-cpu"))["passed"] is False


def test_a_part_that_fails_is_reported_and_fails_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", tmp_path / "none.py")
    monkeypatch.setattr(gpu, "parts_of", lambda device: ["golden"])
    monkeypatch.setattr(gpu, "checked_device", lambda device: "cpu")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit, match="True"):
        gpu.main()
    assert "none.py" in json.loads((tmp_path / "gpu.json").read_text())["golden"]["failed"]
