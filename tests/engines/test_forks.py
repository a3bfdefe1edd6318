"""Forks while other threads compute: the child can use every core."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import needs
from gpt2lab import _native
from gpt2lab.engines import forks
from gpt2lab.engines.forks import let_fork
from gpt2lab.engines.native import NativeEngine

from .test_native import SHAPE, random_checkpoint

pytestmark = [needs.mark("POSIX"), pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")]


@contextmanager
def another_thread(work: Callable[[], object]) -> Iterator[None]:
    """A thread that calls ``work`` again and again meanwhile."""
    ended, began = threading.Event(), threading.Event()

    def run() -> None:
        while not ended.is_set():
            began.set()
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert began.wait(60)
        yield
    finally:
        ended.set()
        thread.join()


def in_child(work: Callable[[], bool]) -> int:
    """Return the exit code of a forked child: 0 if ``work`` returns True there, 2 if it takes too long."""
    child = os.fork()
    if not child:
        timer = threading.Timer(60, os._exit, [2])
        timer.daemon = True
        timer.start()
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_can_use_an_engine_that_another_thread_was_using(threads: int) -> None:
    engine = NativeEngine(random_checkpoint(SHAPE), threads=threads)

    def logits() -> np.ndarray:
        sequence = engine.new_sequence()
        try:
            return engine.forward([sequence], [list(range(30))])
        finally:
            engine.free_sequence(sequence)

    expected = logits()
    with another_thread(logits):
        codes = [in_child(lambda: np.array_equal(logits(), expected)) for _ in range(8)]
    assert codes == [0] * 8
    np.testing.assert_array_equal(logits(), expected)


def test_a_child_can_use_the_core_of_training_that_another_thread_was_using() -> None:
    core = _native.TrainingCore(2, "")
    let_fork(core, core)
    a = np.ones((200, 200), np.float32)

    def product() -> bool:
        out = np.empty_like(a)
        core.multiply(a, a, out)
        return bool((out == 200).all())

    with another_thread(product):
        assert [in_child(product) for _ in range(8)] == [0] * 8
    assert product()


def test_two_threads_may_fork_at_the_same_time() -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(in_child(lambda: True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4


def test_no_garbage_is_collected_while_a_fork_holds_the_cores():
    forks._before()
    held = gc.isenabled()
    forks._after()
    assert not held and gc.isenabled()
