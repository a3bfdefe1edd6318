"""The record of a run's end: each reason in a sentence, and none while the run goes on."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError, TrainingError
from gpt2lab.training import checkpoints
from gpt2lab.training.job import Job
from gpt2lab.training.reporting import Reporter
from gpt2lab.training.settings import Settings
from gpt2lab.training.start import Session

SHAPE = ModelConfig(n_vocab=50257, n_ctx=16, n_embd=8, n_head=2, n_layer=1)
QUICK = {"precision": "float32", "batch_size": 2, "accumulate_gradients": 1, "sample_every": 0, "val_batch_count": 2}
RECORD = Path("checkpoint/run1/ended.json")

pytestmark = pytest.mark.usefixtures("no_curve")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"Once upon a time there was a mouse number {i}. " for i in range(60)))


class At(Reporter):
    """A reporter that calls ``act`` at update ``step``."""

    def __init__(self, step, act):
        self._step, self._act = step, act

    def update(self, made):
        if made.step == self._step:
            self._act()


def session(reporter=None, **settings):
    asked = Job(dataset=("text.txt",), config=SHAPE, held_out=0.2)
    return Session(asked, Settings(**{"steps": 4, **QUICK, **settings}), reporter or Reporter())


def record():
    found = json.loads(RECORD.read_text())
    return found["outcome"], found["step"], found["reason"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("finished", 4, "all 4 updates are made")),
        ({"stop_after": 2}, ("finished", 2, "--stop_after 2 is reached")),
        ({"stop_after": 9}, ("finished", 4, "all 4 updates are made")),
        ({"steps": 10**6, "minutes": 0.01}, ("finished", None, "--minutes 0.01 are over")),
        (
            {"steps": 40, "val_every": 1, "patience": 2, "learning_rate": 5.0, "warmup_steps": 0},
            ("no better", None, "the last 2 validations brought no improvement"),
        ),
    ],
)
def test_a_run_that_ends_by_its_settings_says_which(settings, expected):
    session(**settings).finish()
    outcome, step, reason = record()
    assert (outcome, step if expected[1] is not None else None, reason) == expected


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "the signal SIGTERM")], ids=["int", "term"]
)
def test_a_signal_is_named(number, reason):
    assert session(At(2, lambda: signal.raise_signal(number))).finish() == 128 + number
    assert record() == ("interrupted", 2, reason)


def test_a_second_ctrl_c_is_named():
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        session(At(2, twice)).finish()
    assert record() == ("interrupted", 2, "Ctrl-C twice: updates after the last saved state are lost")


def test_a_program_that_stops_its_run_is_named():
    running = session()
    running.trainer.reporter = At(3, lambda: setattr(running.trainer, "stopping", True))
    running.finish()
    assert record() == ("interrupted", 3, "the program that trains stopped it")


def test_a_program_that_drops_its_run_is_named():
    updates = session().updates()
    next(updates)
    updates.close()
    assert record() == (
        "interrupted",
        1,
        "the program that trains left it unfinished: updates after the last saved state are lost",
    )


def test_a_diverged_run_says_at_which_update_and_what_is_left():
    with pytest.raises(TrainingError, match="discarded; the last state, checkpoint/run1/state-"):
        session(steps=50, learning_rate=1e30, warmup_steps=0, save_every=1).finish()
    outcome, step, reason = record()
    assert outcome == "diverged"
    assert f" at update {step + 1}, which was discarded; the last state, state-{step:07}, is intact" in reason


def test_a_full_disk_is_named_without_the_runs_folder(monkeypatch):
    def full(*_, **__):
        raise CheckpointError(f"cannot write {RECORD.parent / 'state-0000002'}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(checkpoints, "save_state", full)
    with pytest.raises(CheckpointError):
        session(save_every=2).finish()
    assert record() == ("failed", 2, "cannot write state-0000002: No space left on device")


def test_too_little_memory_is_named(monkeypatch):
    running = session()

    def greedy():
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(running.trainer, "update", greedy)
    with pytest.raises(TrainingError):
        running.finish()
    assert record()[0] == "failed" and record()[2].startswith("training ran out of memory: a smaller --batch_size")


def test_the_record_is_gone_while_the_run_goes_on():
    session(stop_after=2).finish()
    there = []
    session(At(3, lambda: there.append(RECORD.exists()))).finish()
    assert there == [False]
    assert record() == ("finished", 4, "all 4 updates are made")


def test_a_run_with_nothing_left_to_do_keeps_its_record():
    session().finish()
    session().finish()
    assert record() == ("finished", 4, "all 4 updates are made")


def test_a_record_that_cannot_be_written_does_not_end_the_run():
    assert session(At(1, RECORD.mkdir)).finish() == 0
    assert RECORD.is_dir()
