"""Threads of a pool that fills the machine keep to cores of their own if asked to; the caller is free again after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import needs

pytestmark = needs.mark("Linux")

PROBE = """
import json, os, sys
from pathlib import Path
from gpt2lab.engines.native import NativeEngine
sys.path.insert(0, sys.argv[1])
from precision_cases import SHAPE, random_checkpoint

def others():
    return {int(task) for task in os.listdir("/proc/self/task")}

before = others()
engine = NativeEngine(random_checkpoint(SHAPE), threads=int(sys.argv[2]))
sequence = engine.new_sequence()
engine.forward([sequence], [[1, 2, 3]])
if sys.argv[3] == "keep":
    engine.keep_to_cores()
    engine.forward([sequence], [[1, 2, 3]])
if len(sys.argv) > 4:
    os.sched_setaffinity(0, json.loads(sys.argv[4]))
    engine.forward([sequence], [[1, 2, 3]])
masks = [sorted(os.sched_getaffinity(task)) for task in sorted(others() - before)]
print(json.dumps({"caller": sorted(os.sched_getaffinity(0)), "pool": masks}))
"""


def cores() -> list[list[int]]:
    """Return the logical cores of each core that this process may use."""
    found: dict[str, list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        found.setdefault(siblings.read_text() if siblings.exists() else str(cpu), []).append(cpu)
    return list(found.values())


def masks(threads: int, wish: str = "keep", caller: list[int] | None = None) -> dict[str, list]:
    """Return where the caller of a pass and the other threads of the pool may run after it."""
    arguments = [str(Path(__file__).parent), str(threads), wish, *([json.dumps(caller)] if caller else [])]
    run = subprocess.run([sys.executable, "-c", PROBE, *arguments], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def test_as_many_threads_as_cores_have_one_each():
    found = masks(len(cores()))
    assert found["caller"] == sorted(os.sched_getaffinity(0))
    assert sorted(found["pool"]) == sorted(cores()[1:])


def test_other_pools_go_where_there_is_room():
    everywhere = sorted(os.sched_getaffinity(0))
    for threads in {len(cores()) + 1, max(1, len(cores()) - 1)}:
        assert masks(threads) == {"caller": everywhere, "pool": [everywhere] * (threads - 1)}


def test_without_the_wish_threads_go_where_there_is_room():
    everywhere = sorted(os.sched_getaffinity(0))
    assert masks(len(cores()), "free") == {"caller": everywhere, "pool": [everywhere] * (len(cores()) - 1)}


def test_a_caller_that_was_told_where_to_run_stays_there():
    last = cores()[-1]
    assert masks(len(cores()), caller=last)["caller"] == last
