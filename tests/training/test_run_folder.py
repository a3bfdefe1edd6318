"""The folders of a run: one process at a time, runs of the original code go on, files of others stay."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.training import metrics
from gpt2lab.training.checkpoints import states
from gpt2lab.training.job import Job
from gpt2lab.training.reporting import Reporter
from gpt2lab.training.run_folder import original_run
from gpt2lab.training.settings import Settings
from gpt2lab.training.start import Session
from gpt2lab.weights import open_checkpoint
from tf_bundle import write_bundle

SHAPE = ModelConfig(n_vocab=50257, n_ctx=16, n_embd=8, n_head=2, n_layer=1)
QUICK = {"precision": "float32", "batch_size": 2, "accumulate_gradients": 1, "sample_every": 0, "val_batch_count": 2}
RUN = Path("checkpoint/run1")

pytestmark = pytest.mark.usefixtures("no_curve")


class Told(Reporter):
    def __init__(self):
        self.lines, self.rates = [], []

    def say(self, line):
        self.lines.append(line)

    def update(self, made):
        self.rates.append((made.step, made.learning_rate))


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"Once upon a time there was a mouse number {i}. " for i in range(60)))


def session(steps=2, told=None, job=None, **settings):
    asked = Job(**{"dataset": ("text.txt",), "config": SHAPE, "held_out": 0.2, **(job or {})})
    return Session(asked, Settings(steps=steps, **{**QUICK, **settings}), told or Reporter())


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def original(tmp_path):
    """A run of the original code in checkpoint/run1, after 7 updates, as gpt-2-simple writes it."""
    session(1, job={"run_name": "base"}).finish()
    write_bundle(RUN, open_checkpoint("checkpoint/base"), prefix="model-7")
    (RUN / "counter").write_text("7\n")
    return open_checkpoint(RUN)


# ---- one process at a time ------------------------------------------------------------------------------------------


@needs.mark("POSIX")
@pytest.mark.parametrize("restore_from", ["latest", "fresh"])
def test_of_two_first_trainings_under_one_name_one_is_refused_and_nothing_is_lost(restore_from):
    first = session()
    with pytest.raises(UsageError, match="another process or run is writing into checkpoint/run1"):
        session(job={"restore_from": restore_from})
    assert first.finish() == 0
    assert len(states(RUN)) == 1 and [path.name for path in Path("checkpoint").iterdir()] == ["run1"]


@needs.mark("POSIX")
@pytest.mark.parametrize("earlier", [False, True])
def test_two_runs_do_not_share_a_folder_of_samples(earlier):
    if earlier:
        Path("samples/run1").mkdir(parents=True)
        Path("samples/run1/samples-1").write_text("old")
    first = session(3, sample_every=1, sample_length=2, job={"checkpoint_dir": "a"})
    updates = first.updates()
    next(updates)
    with pytest.raises(UsageError, match="another process or run is writing into samples/run1"):
        session(sample_every=1, sample_length=2, job={"checkpoint_dir": "b"}).finish()
    assert len(list(updates)) == 2
    assert sorted(path.name for path in Path("samples").iterdir()) == ["run1", *(["run1-1"] if earlier else [])]
    assert not Path("b").exists()


def test_a_refused_training_leaves_no_folder():
    with pytest.raises(UsageError):
        session(job={"dataset": ("nowhere.txt",)})
    assert not Path("checkpoint").exists()


def test_samples_whose_run_is_gone_are_moved_aside():
    Path("samples/run1").mkdir(parents=True)
    Path("samples/run1/samples-1").write_text("old")
    told = Told()
    session(1, told, sample_every=1, sample_length=2).finish()
    assert Path("samples/run1-1/samples-1").read_text() == "old"
    assert Path("samples/run1/samples-1").read_text() != "old"
    assert "moved the earlier samples in samples/run1 to samples/run1-1" in told.lines


def test_a_folder_of_other_files_with_the_name_of_the_samples_stays():
    Path("samples/run1").mkdir(parents=True)
    Path("samples/run1/book.txt").write_text("mine")
    session(1, sample_every=1, sample_length=2).finish()
    assert sorted(path.name for path in Path("samples/run1").glob("[!.]*")) == ["book.txt", "samples-1"]


@pytest.mark.parametrize("name", ["settings.json", "config.json", "model.safetensors", "merges.txt", "metrics.jsonl"])
@pytest.mark.parametrize("restore_from", ["latest", "fresh"])
def test_files_of_another_origin_are_neither_overwritten_nor_moved(name, restore_from):
    RUN.mkdir(parents=True)
    (RUN / name).write_text("mine")
    with pytest.raises(UsageError, match=f"checkpoint/run1 contains {name}, which no training run wrote: give another"):
        session(job={"restore_from": restore_from}).finish()
    assert files("checkpoint") == {f"run1/{name}": b"mine"}


def test_other_files_in_a_run_folder_stay_beside_the_run():
    RUN.mkdir(parents=True)
    (RUN / "notes.txt").write_text("mine")
    session(1).finish()
    assert (RUN / "notes.txt").read_text() == "mine" and len(states(RUN)) == 1


# ---- runs of the original code --------------------------------------------------------------------------------------


def test_a_run_of_the_original_goes_on_with_its_weights_and_its_counter(original):
    told = Told()
    session(9, told, job={"config": None}, learning_rate=1e-30).finish()
    assert (
        "Continuing the original's run after update 7: the weights come from checkpoint/run1/model-7, the optimizer "
        "starts afresh" in told.lines
    )
    assert [step for step, _ in told.rates] == [8, 9]
    now = open_checkpoint(RUN)
    assert now.format == "huggingface"
    assert all(np.array_equal(now.tensors[name], original.tensors[name]) for name in now.tensors)


def test_the_folder_then_loads_as_the_new_model_and_training_resumes_from_it(original):
    session(8, job={"config": None}, val_every=0, learning_rate=1e-2).finish()
    after = open_checkpoint(RUN).tensors
    assert not np.array_equal(after["wpe.weight"], original.tensors["wpe.weight"])
    told = Told()
    session(9, told, job={"config": None, "model_name": "tales"}, val_every=0, learning_rate=1e-2).finish()
    assert "Loading checkpoint checkpoint/run1/state-0000008" in told.lines
    assert [step for step, _ in told.rates] == [9]
    assert (RUN / "model-7.index").exists()


def test_an_adapter_to_a_run_of_the_original_resumes_on_the_same_weights(original):
    for steps in (8, 9):
        session(steps, job={"config": None}, lora=2).finish()
    assert [state.name for state in states(RUN)] == ["state-0000008", "state-0000009"]


def test_the_schedule_begins_after_the_originals_updates(original):
    told, whole = Told(), Told()
    session(11, told, job={"config": None}, learning_rate=1e-3).finish()
    session(4, whole, job={"run_name": "new"}, learning_rate=1e-3).finish()
    assert told.rates == [(step + 7, rate) for step, rate in whole.rates]


def test_fresh_moves_a_run_of_the_original_aside_whole(original):
    before = files(RUN)
    session(1, job={"restore_from": "fresh"}).finish()
    assert files("checkpoint/run1-1") == before
    assert not (RUN / "model-7.index").exists()


def test_from_scratch_does_not_write_into_a_run_of_the_original(original):
    before = files(RUN)
    with pytest.raises(UsageError, match="from a run of the original code, which --from_scratch does not continue"):
        session()
    assert files(RUN) == before


def test_fewer_steps_than_the_original_made_are_refused(original):
    with pytest.raises(UsageError, match="checkpoint/run1 already has 7 updates, more than the requested 5"):
        session(5, job={"config": None})


@pytest.mark.parametrize(("counter", "updates"), [("12", 12), (None, 7), ("x", 7)])
def test_without_a_counter_the_number_in_the_checkpoints_name_counts(original, counter, updates):
    (RUN / "counter").unlink()
    if counter is not None:
        (RUN / "counter").write_text(counter)
    assert original_run(RUN) == (RUN / "model-7", updates)


def test_a_damaged_checkpoint_of_the_original_is_an_error_and_not_ignored(original):
    (RUN / "model-7.index").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="model-7"):
        session(9, job={"config": None})


# ---- files that may fail ---------------------------------------------------------------------------------------------


def test_training_on_the_folder_it_writes_into_reads_the_same_text_again():
    for steps in (1, 2):
        session(steps, told := Told(), sample_every=1, sample_length=2, job={"dataset": (".",)}).finish()
        assert not any(line.startswith("the dataset had") for line in told.lines)
    session(1, job={"dataset": (".",), "run_name": "other", "include": ("*",)}).finish()
    tokens = [
        json.loads((states(Path("checkpoint", name))[-1] / "progress.json").read_text())["tokens"]
        for name in ("run1", "other")
    ]
    assert tokens[0] == tokens[1]


def test_a_full_disk_at_a_record_ends_training_after_the_state_was_saved(monkeypatch):
    failing, told = session(5), Told()
    written = 0

    class Full:
        def write(self, text):
            nonlocal written
            written += 1
            if written > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self):
            pass

        def close(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as error:
        patch.setattr(metrics.Metrics, "_open", lambda self: Full())
        failing.finish()
    assert str(error.value) == (
        "cannot write checkpoint/run1/metrics.jsonl: No space left on device; checkpoint/run1/state-0000003 holds the "
        "run so far: run the same command again to resume"
    )
    session(5, told).finish()
    assert [step for step, _ in told.rates] == [4, 5]


def test_samples_that_fail_are_said_once_and_do_not_end_training(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gpt2lab.training.samples.write_file", full)
    told = Told()
    session(3, told, sample_every=1, sample_length=2).finish()
    assert [line for line in told.lines if line.startswith("warning")] == [
        "warning: no samples after update 1 (cannot write samples/run1/samples-1: No space left on device): training "
        "continues without"
    ]
    assert len(states(RUN)) == 1 and not Path("samples").exists()


@pytest.mark.parametrize("sample_dir", ["checkpoint", "checkpoint/run1"])
def test_samples_in_the_run_folder_move_aside_with_it(sample_dir):
    for number in (1, 2):
        session(
            1, sample_every=1, sample_length=2, seed=number, job={"sample_dir": sample_dir, "restore_from": "fresh"}
        ).finish()
    moved = [path.relative_to("checkpoint").parts[0] for path in Path("checkpoint").rglob("samples-1")]
    assert sorted(moved) == ["run1", "run1-1"]
    assert states(Path("checkpoint/run1-1")) and states(RUN)


def test_a_counter_of_another_origin_stays():
    RUN.mkdir(parents=True)
    (RUN / "counter").write_text("mine")
    with pytest.raises(UsageError, match="contains counter, which no training run wrote"):
        session(1).finish()
    assert (RUN / "counter").read_text() == "mine"


# ---- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3])
def test_an_error_about_restored_updates_names_the_run_that_has_them(steps):
    session(3).finish()
    told = Told()
    new = {"run_name": "new", "restore_from": "checkpoint/run1"}
    if steps == 2:
        with pytest.raises(UsageError, match=r"^checkpoint/run1/state-0000003 already has 3 updates"):
            session(2, told, job=new)
    else:
        session(3, told, job=new).finish()
        assert any(line.startswith("checkpoint/run1/state-0000003 finished after 3 updates") for line in told.lines)
    assert not Path("checkpoint/new").exists()


def test_without_validation_nothing_is_held_out():
    told = Told()
    session(1, told, val_every=0).finish()
    whole = json.loads((states(RUN)[0] / "progress.json").read_text())["tokens"]
    assert f"dataset has {whole} tokens, documents: 1" in told.lines
    assert not any(line.startswith("held out") for line in told.lines)
    session(1, told, job={"run_name": "other", "held_out": 0.0}).finish()
    assert json.loads(next(Path("checkpoint/other").glob("state-*/progress.json")).read_text())["tokens"] == whole


def test_a_validation_text_that_is_not_used_is_reported():
    told = Told()
    session(1, told, job={"val_dataset": "text.txt"}, val_every=0).finish()
    assert "--val_dataset text.txt is not read: with --val_every 0 there is no validation" in told.lines
