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

DRIVER = Path(gpu.__file__).parent / "drivers" / "gpu_driver.py"


def test_checks_come_first_and_without_a_gpu_nothing_large_is_measured():
    assert gpu.parts_of("cuda")[:4] == gpu.parts_of("torch-cpu")[:4] == list(gpu.CHECKS)
    assert "decode vllm 1558M 64" in gpu.parts_of("cuda")
    assert all(part in gpu.CHECKS or " tiny " in part or "train" in part for part in gpu.parts_of("torch-cpu"))


def run(part, *more):
    """Return what a part of the script prints on this machine's CPU."""
    command = [sys.executable, DRIVER, part, "--device", "torch-cpu", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@needs.mark("torch")
@pytest.mark.parametrize("part", ["golden", "promise"])
def test_a_check_reports_that_it_passed(part):
    assert run(part)["passed"] is True


@pytest.mark.slow
@needs.mark("torch")
@pytest.mark.parametrize(
    ("part", "more", "why"),
    [
        ("decode nothing tiny 2", [], "nothing is not installed"),
        ("train nanogpt", [], "nanoGPT: give --nanogpt FOLDER"),
        ("train nanogpt", ["--nanogpt", "nowhere"], "no nanoGPT in nowhere"),
    ],
)
def test_a_peer_that_is_missing_is_named(part, more, why):
    assert run(part, *more) == {"skipped": why}


@pytest.mark.slow
@needs.mark("torch")
def test_training_is_measured_on_a_tiny_model():
    found = run("train gpt2lab")
    assert found["tokens_s"] > 0
    assert found["loss"] == pytest.approx(np.log(50257), abs=0.1)  # nothing can be learned from random tokens


def test_logits_that_are_not_numbers_fail_the_comparison_with_the_original():
    driver = runpy.run_path(str(DRIVER))

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
