"""Every reader gives a result or one line of the program's own, whatever the file: some cases, and at night 100,000."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random

import pytest

import needs

sys.path.insert(0, str(Path(__file__).parent))

import fuzz
from mutations import json_bytes, spoilt
from targets import TARGETS

CASES = 100_000
PACKAGES = {"gguf_quantized": "gguf", "torch": "torch", "states": "torch", "watch": "fastapi", "parquet": "pyarrow"}
"""Packages of extras that targets need."""


def test_a_case_depends_on_its_number_alone():
    def cases():
        return [
            (spoilt(Random(f"0/a/{n}"), b"some bytes"), json_bytes(Random(f"0/b/{n}"), {"a": [1]})) for n in range(50)
        ]

    assert cases() == cases()


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    ran = []

    def chunk(target, seed, first, last):
        ran.append((target, first, last))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return last, 1, [{"target": target, "case": first, "fault": "x"}]

    def run():
        return fuzz.fuzz(40, 0, ["npz"], tmp_path / "state.json", lambda line: None)

    monkeypatch.setattr(fuzz, "run_chunk", chunk)
    monkeypatch.setattr(fuzz, "CHUNK", 10)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(run()) == 4
    assert ran == [("npz", 0, 10), ("npz", 10, 20), ("npz", 20, 30), ("npz", 20, 30), ("npz", 30, 40)]


def test_a_case_that_kills_its_process_is_a_fault_and_the_next_one_follows(monkeypatch):
    script = "import os; print('{\"case\": 5}', flush=True); os.kill(os.getpid(), 9)"
    run = fuzz.subprocess.run
    monkeypatch.setattr(fuzz.subprocess, "run", lambda _, **more: run([sys.executable, "-c", script], **more))
    reached, refused, faults = fuzz.run_chunk("npz", 0, 0, 10)
    assert (reached, refused) == (6, 0)
    assert [fault["case"] for fault in faults] == [5]


@pytest.mark.parametrize("target", TARGETS)
def test_some_cases_are_read_and_others_refused(target):
    if target in PACKAGES:
        needs.package(PACKAGES[target])
    reached, refused, faults = fuzz.run_chunk(target, 0, 0, 60)
    assert not faults
    assert target in ("snappy", "packed", "watch") or 0 < refused < reached == 60  # these refuse nothing aloud


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_a_hundred_thousand_cases_raise_no_errors_but_the_programs_own(pytestconfig):
    state = pytestconfig.cache.mkdir("fuzz") / "state.json"  # a run that is interrupted goes on from it
    lacking = {name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None}
    faults = fuzz.fuzz(CASES, 0, [name for name in TARGETS if name not in lacking], state)
    state.unlink()
    assert faults == []
