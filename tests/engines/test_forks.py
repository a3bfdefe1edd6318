"""Forks while other threads compute: the child can use every core."""

from __future__ import annotations

import _thread
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpt2lab
import needs
from gpt2lab import _native
from gpt2lab.engines import forks, open_engine
from gpt2lab.engines.forks import let_fork

from .test_native import SHAPE, random_checkpoint

TINY = Path(__file__).parents[1] / "golden" / "tiny"

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


@pytest.mark.parametrize(
    "how", [{"threads": 1}, {"threads": 2}, pytest.param({"device": "torch-cpu"}, marks=needs.mark("torch"))]
)
def test_a_child_can_use_an_engine_that_another_thread_was_using(how: dict[str, Any]) -> None:
    engine = open_engine(random_checkpoint(SHAPE), **how)

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


def test_what_may_wait_for_a_core_is_taken_before_the_core() -> None:
    """A thread that holds the later lock waits for the earlier one: a fork in between must not wait for both."""
    taken: list[str] = []
    earlier, later = (SimpleNamespace(before_fork=partial(taken.append, n), after_fork=list) for n in ("core", "above"))
    owners = [Owner(), Owner()]
    let_fork(owners[0], earlier)
    let_fork(owners[1], later)
    assert in_child(lambda: taken == ["above", "core"]) == 0


class Owner:
    """An object that owns a core."""


def test_a_child_can_use_a_prompt_cache_that_another_thread_was_using() -> None:
    model = gpt2lab.load(TINY, precision="float32", threads=1, prompt_cache=10**6)
    prompts = [[5] * n for n in range(1, 30)]

    def texts() -> list[list[int]]:
        return [model.generate(prompt, n=1, length=2, seed=1).tokens for prompt in prompts]  # type: ignore[union-attr]

    expected = texts()
    with another_thread(texts):
        codes = [in_child(lambda: texts() == expected) for _ in range(8)]
    assert codes == [0] * 8 and texts() == expected


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


def test_no_garbage_is_collected_before_all_cores_are_released() -> None:
    lock = threading.Lock()
    held: list[bool] = []
    kept: list[list[int]] = []

    def many() -> None:
        kept.extend([] for _ in range(5000))

    def look(phase: str, info: dict[str, int]) -> None:
        held.append(lock.locked())

    gc.collect()
    gc.callbacks.append(look)
    try:
        with known(PlainCore(many, many), PlainCore(lock.acquire, lock.release), PlainCore(many, many)):
            prepared_and_done()
    finally:
        gc.callbacks.remove(look)
    assert held and not any(held)


class PlainCore:
    """A core made of two functions."""

    def __init__(self, before_fork: Callable[[], object], after_fork: Callable[[], object]) -> None:
        self.before_fork, self.after_fork = before_fork, after_fork


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def known(*cores: PlainCore) -> Iterator[None]:
    """Let forks take these cores meanwhile."""
    owners = [threading.Event() for _ in cores]
    for owner, core in zip(owners, cores, strict=True):
        let_fork(owner, core)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for owner in owners:  # a traceback may still refer to it
            del forks._cores[owner]


def prepared_and_done() -> None:
    """Do what a fork does before and after, also after Ctrl-C."""
    try:
        forks._before()
    finally:
        forks._after()


def test_a_core_that_was_taken_at_a_ctrl_c_is_released() -> None:
    lock = threading.Lock()
    released: list[bool] = []
    interrupted = PlainCore(_thread.interrupt_main, partial(released.append, True))
    with known(PlainCore(lock.acquire, lock.release), interrupted), pytest.raises(KeyboardInterrupt):
        prepared_and_done()
    assert released == [True] and not lock.locked() and not forks._forking.locked() and gc.isenabled()


def test_a_ctrl_c_during_a_fork_leaves_no_core_locked() -> None:
    lock = threading.Lock()
    cores = [PlainCore(lock.acquire, lock.release), PlainCore(int, _thread.interrupt_main)]
    with known(*cores), pytest.raises(KeyboardInterrupt):
        prepared_and_done()
    assert not lock.locked() and not forks._forking.locked() and gc.isenabled()


def test_a_thread_that_was_interrupted_before_its_turn_releases_nothing_of_another() -> None:
    holds, goes_on = threading.Event(), threading.Event()

    def other() -> None:
        forks._before()
        holds.set()
        goes_on.wait(60)
        forks._after()

    thread = threading.Thread(target=other)
    thread.start()
    assert holds.wait(60)
    forks._after()  # as after a _before() that Ctrl-C ended
    still = forks._forking.locked()
    goes_on.set()
    thread.join()
    assert still and not forks._forking.locked() and gc.isenabled()


def test_cores_may_be_made_and_freed_while_others_fork() -> None:
    def made_and_freed() -> None:
        with known(*[PlainCore(int, int)] * 50):
            pass

    with switching_often(), known(*[PlainCore(int, int)] * 1000), another_thread(made_and_freed):
        for _ in range(300):
            prepared_and_done()
