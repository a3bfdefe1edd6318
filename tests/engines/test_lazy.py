"""Engines are opened when they are needed, or just before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from gpt2lab.engines import digests, lazy, loading, open_engine
from gpt2lab.engines.lazy import Engines
from gpt2lab.weights import open_checkpoint

ODD = Path(__file__).parents[1] / "golden" / "odd"


@pytest.fixture(autouse=True)
def everything_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(loading, "LEAST_SIZE", 0)
    monkeypatch.setattr(digests, "SETTLED", -1.0)


@pytest.fixture
def join_opener() -> Callable[[], None]:
    """Wait for engines that are being opened ahead. Servers of other tests have threads in this process too."""

    def join() -> None:
        for thread in threading.enumerate():
            if thread.name == lazy.OPENER:
                thread.join(10)

    return join


def test_packed_weights_are_read_ahead(join_opener) -> None:
    assert Engines(open_checkpoint(ODD)).generating
    engines = Engines(open_checkpoint(ODD))
    engines.open_ahead()
    join_opener()
    (opened,) = engines.opened
    assert engines.generating is opened


def test_nothing_is_packed_ahead(join_opener) -> None:
    engines = Engines(open_checkpoint(ODD))
    engines.open_ahead()
    join_opener()
    assert engines.opened == []


def test_an_engine_that_cannot_be_opened_ahead_is_an_error_when_it_is_needed(monkeypatch, capfd, join_opener) -> None:
    from gpt2lab.errors import UsageError

    assert Engines(open_checkpoint(ODD)).generating
    engines = Engines(open_checkpoint(ODD), threads=5000)
    engines.open_ahead()
    join_opener()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UsageError, match="threads must be from 1 to 1024"):
        assert engines.generating


def test_one_precision_is_one_engine() -> None:
    engines = Engines(open_checkpoint(ODD), precision="bfloat16")
    assert engines.generating is engines.exact
    both = Engines(open_checkpoint(ODD))
    assert both.generating is not both.exact


@needs.mark("POSIX")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_child_forked_while_an_engine_is_being_opened_opens_its_own(monkeypatch) -> None:
    started, go_on, parent = threading.Event(), threading.Event(), os.getpid()

    def slow_in_the_parent(*arguments, **more):
        if os.getpid() == parent:
            started.set()
            go_on.wait(60)
        return open_engine(*arguments, **more)

    monkeypatch.setattr(lazy, "open_engine", slow_in_the_parent)
    engines = Engines(open_checkpoint(ODD), device="reference")
    opener = threading.Thread(target=lambda: engines.generating)
    opener.start()
    assert started.wait(60)
    child = os.fork()
    if not child:
        threading.Timer(30, os._exit, [1]).start()  # instead of a hang
        try:
            os._exit(0 if engines.generating else 1)
        finally:
            os._exit(1)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        go_on.set()
        opener.join()
    assert len(engines.opened) == 1
