"""Signals at moments when an interruption would lose something, and at other moments."""

import signal
import threading
from collections.abc import Iterator

import pytest

import needs
from gpt2lab.cli.stopping import StoppedBetween
from gpt2lab.system.process import reads_woken

pytestmark = needs.mark("the main thread")


def three(at: int | None = None):
    for index in range(3):
        if index == at:
            signal.raise_signal(signal.SIGINT)
        yield index


def test_items_pass_as_they_are() -> None:
    with StoppedBetween() as stopped:
        assert list(stopped.items(three())) == [0, 1, 2]


def test_what_is_done_with_an_item_is_ended_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), StoppedBetween() as stopped:
        for item in stopped.items(three()):
            signal.raise_signal(signal.SIGINT)
            done.append(item)
    assert done == [0]


def test_an_item_in_the_making_is_interrupted() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), StoppedBetween() as stopped:
        done.extend(stopped.items(three(at=0)))
        pytest.fail("went on")
    assert done == []


def test_one_more_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), StoppedBetween() as stopped:
        for _ in stopped.items(three()):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")


def test_a_signal_after_the_last_item_is_not_forgotten() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), StoppedBetween():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_the_error_that_ends_the_block_counts_more_than_a_signal_kept() -> None:
    with pytest.raises(OSError, match="full"), StoppedBetween():
        signal.raise_signal(signal.SIGINT)
        raise OSError("full")


def test_handlers_are_as_before_in_the_end() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StoppedBetween():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StoppedBetween():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_kept_acts_when_the_next_interruptible_block_begins() -> None:
    with StoppedBetween() as stopped:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), stopped.interruptible():
            pytest.fail("went on")


def test_the_signal_after_one_that_ended_a_block_is_kept() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), StoppedBetween() as stopped:
        try:
            with stopped.interruptible():
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            reached = True
    assert reached


@pytest.fixture
def no_alarm() -> Iterator[None]:
    """Suspend the alarm of pytest-timeout."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, left, interval)


@needs.mark("POSIX")
def test_an_alarm_of_somebody_else_stays(no_alarm) -> None:
    signal.setitimer(signal.ITIMER_REAL, 1000)
    before = signal.getsignal(signal.SIGALRM)
    with reads_woken():
        assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 900


@needs.mark("POSIX")
def test_the_alarm_that_wakes_reads_ends_with_the_block(no_alarm) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with reads_woken():
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0
    assert (signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)) == ((0, 0), before)


def test_in_another_thread_items_pass_too() -> None:
    passed = []

    def work() -> None:
        with StoppedBetween() as stopped:
            passed.extend(stopped.items(three()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert passed == [0, 1, 2]
