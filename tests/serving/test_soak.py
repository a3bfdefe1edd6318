"""Honest clients beside rude ones for minutes: right answers, flat memory, a quiet log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import needs

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak_rude.py"


@needs.mark("Linux")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--seconds", "20", "--clients", "24", "--allow_mb", "1000"], marks=pytest.mark.slow, id="short"),
        pytest.param([], marks=[pytest.mark.nightly, pytest.mark.timeout(1500)], id="ten minutes"),
    ],
)
def test_honest_clients_are_served_beside_those_that_stall_flood_or_leave(arguments):
    ended = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["wrong"] == [] and found["honest"] > 0 and found["small"] > 0
    assert min(found["stalling"], found["flooding"], found["leaving"]) > 0
    assert (found["tracebacks"], found["exit_status"], ended.returncode) == (0, 0, 0), ended.stdout[-3000:]
