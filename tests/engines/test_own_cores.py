"""On request, each thread of a pool that fills the machine stays on a core of its own; the caller only during calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import needs

pytestmark = needs.mark("Linux")

PROBE = """
import json, os, sys, threading, time
from contextlib import suppress
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
sys.path.insert(0, sys.argv[1])
from precision_cases import random_checkpoint

n_threads, asks, told = int(sys.argv[2]), sys.argv[3] == "asks", json.loads(sys.argv[4])

def tasks():
    return {int(task) for task in os.listdir("/proc/self/task")}

config = ModelConfig(n_vocab=61, n_ctx=512, n_embd=128, n_head=4, n_layer=4)
before = tasks()
engine = NativeEngine(random_checkpoint(config), threads=n_threads)
sequence = engine.new_sequence()
engine.forward([sequence], [[1]])
if asks:
    engine.keep_to_cores()

def compute():
    if told:
        os.sched_setaffinity(0, told)
    ready.set()
    for _ in range(20):
        engine.truncate_sequence(sequence, 0)
        engine.forward([sequence], [[7] * 512])
    after.append(sorted(os.sched_getaffinity(0)))

ready, after, meanwhile = threading.Event(), [], set()
caller = threading.Thread(target=compute)
caller.start()
ready.wait()
while caller.is_alive():
    with suppress(ProcessLookupError):
        meanwhile.add(tuple(sorted(os.sched_getaffinity(caller.native_id))))
    time.sleep(0.0005)
caller.join()
for _ in range(1000):  # ended threads may be listed for a moment
    if len(tasks() - before) < n_threads:
        break
    time.sleep(0.01)
pool = [sorted(os.sched_getaffinity(task)) for task in sorted(tasks() - before)]
print(json.dumps({"meanwhile": sorted(meanwhile), "after": after[0], "pool": pool}))
"""

EVERYWHERE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> list[list[int]]:
    """Return the logical cores of each core that this process may use."""
    found: dict[str, list[int]] = {}
    for cpu in EVERYWHERE:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        found.setdefault(siblings.read_text() if siblings.exists() else str(cpu), []).append(cpu)
    return list(found.values())


def masks(threads: int, *, asks: bool = True, told: list[int] | None = None) -> dict[str, list]:
    """Return the cores of the calling thread during calls (``meanwhile``) and ``after``, and of the ``pool``."""
    arguments = [str(Path(__file__).parent), str(threads), "asks" if asks else "", json.dumps(told)]
    run = subprocess.run([sys.executable, "-c", PROBE, *arguments], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def test_as_many_threads_as_cores_have_one_each():
    found = masks(len(cores()))
    assert cores()[0] in found["meanwhile"]
    assert found["after"] == EVERYWHERE
    assert sorted(found["pool"]) == sorted(cores()[1:])


def test_other_pools_go_where_there_is_room():
    for threads in {len(cores()) + 1, max(1, len(cores()) - 1)}:
        expected = {"meanwhile": [EVERYWHERE], "after": EVERYWHERE, "pool": [EVERYWHERE] * (threads - 1)}
        assert masks(threads) == expected


def test_unless_asked_threads_go_where_there_is_room():
    found = masks(len(cores()), asks=False)
    assert found == {"meanwhile": [EVERYWHERE], "after": EVERYWHERE, "pool": [EVERYWHERE] * (len(cores()) - 1)}


def test_a_caller_that_was_told_where_to_run_stays_there():
    last = cores()[-1]
    found = masks(len(cores()), told=last)
    assert found["meanwhile"] == [last]
    assert found["after"] == last
