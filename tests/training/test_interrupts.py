import signal
import subprocess
import sys

import pytest

import needs
from gpt2lab.training import interrupts
from gpt2lab.training.interrupts import Interrupts

needs_hangup = needs.mark("POSIX")


@pytest.fixture
def hangup():
    """Set SIGHUP as it is for a process that nohup did not start."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(interrupts, "silence", lambda: None)
    with Interrupts(lambda: None) as entered:
        yield entered


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_kept_and_the_same_once_more_ends_at_once(asked, number):
    signal.raise_signal(number)
    assert asked.asked == number
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_another_signal_later_does_not_end_at_once(asked):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert asked.asked == signal.SIGINT


@needs_hangup
def test_a_closed_terminal_may_say_so_as_often_as_it_likes(hangup, asked):
    for _ in range(3):
        signal.raise_signal(signal.SIGHUP)
    assert asked.asked == signal.SIGHUP


@needs_hangup
def test_nohup_is_respected():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(lambda: None) as entered:
            signal.raise_signal(signal.SIGHUP)
        assert entered.asked is None
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_lines_that_nobody_reads_ask_for_the_end():
    program = """if True:
        import sys
        from gpt2lab.training.interrupts import Interrupts
        from gpt2lab.training.reporting import Lines
        lines = Lines()
        with Interrupts(lambda: None) as interrupts:
            sys.stdin.readline()  # until the reader has gone
            for _ in range(3):
                lines.say("[1 | 0.10] loss=1.00 avg=1.00")
        sys.stdout.flush()
        sys.exit(128 + interrupts.asked)
    """
    run = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    run.stdout.close()
    run.communicate(b"\n", timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
