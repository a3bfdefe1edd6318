"""The contents of a run folder, whatever happens while it is written."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from gpt2lab.errors import CheckpointError
from gpt2lab.system.atomic import PARTIAL
from gpt2lab.tokenizer import SpecialTokens
from gpt2lab.training import checkpoints
from gpt2lab.training.checkpoints import load_latest, load_state, next_generation, states
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.checkpoint import TokenizerFiles
from gpt2lab.weights.tokenizer_copy import TokenizerCopy, new_files_of


def names(run):
    return [state.name for state in states(run)]


def damage(state, name, how):
    file = state / name
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif name == "progress.json":
        file.write_bytes(content.replace(b'"step": 2', b'"step": 3'))
    else:
        content[-2] ^= 1
        file.write_bytes(content)


def test_a_state_is_a_model_that_loads_and_an_optimizer_by_name(make_trainer):
    trainer = make_trainer()
    trainer.update()
    state = trainer.save()
    assert open_checkpoint(state).config == trainer.model.config
    assert "wte.weight:exp_avg" in load_file(state / "optimizer.safetensors")
    assert load_state(state).progress["step"] == 1


def test_only_the_last_states_stay(make_trainer):
    trainer = make_trainer(steps=7, save_every=1, keep=3)
    trainer.train()
    assert names(trainer.run) == ["state-0000005", "state-0000006", "state-0000007"]
    assert not list(trainer.run.rglob(f"*{PARTIAL}"))


def test_what_others_put_beside_and_into_states_stays(make_trainer, tmp_path):
    trainer = make_trainer(steps=5, save_every=1, keep=1)
    trainer.update()
    (trainer.save() / "notes.txt").write_text("mine")
    (trainer.run / "state-7").mkdir()
    (trainer.run / "state-7" / "notes.txt").write_text("mine")
    (trainer.run / ".notes.partial").mkdir()
    shutil.copytree(states(trainer.run)[0], tmp_path / "elsewhere")
    (trainer.run / "state-0000000").symlink_to(tmp_path / "elsewhere")
    trainer.train()
    assert names(trainer.run) == ["state-0000000", "state-0000001", "state-0000005", "state-7"]
    assert all((trainer.run / name / "notes.txt").exists() for name in ("state-0000001", "state-7"))
    assert (trainer.run / ".notes.partial").exists() and (tmp_path / "elsewhere" / "progress.json").exists()


def test_a_state_with_others_files_is_kept_when_its_step_is_saved_again(make_trainer):
    trainer = make_trainer()
    trainer.update()
    for _ in range(3):
        (trainer.save() / "notes.txt").write_text("mine")
    assert len(list(trainer.run.glob("state-*/notes.txt"))) == 3
    assert load_latest(trainer.run, print).path.name == "state-0000001"


def test_a_training_begun_anew_under_the_same_name_counts_as_newer(make_trainer):
    old = make_trainer(steps=6, save_every=2)
    old.train()
    new = make_trainer(steps=3, save_every=2)
    new.generation = next_generation(new.run)
    new.train()
    assert names(new.run) == ["state-0000004", "state-0000006", "state-0000002", "state-0000003"]
    assert load_latest(new.run, print).progress["step"] == 3


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_damaged_newest_state_is_told_and_the_one_before_is_taken(make_trainer, name, how):
    trainer = make_trainer(steps=2, save_every=1)
    trainer.train()
    first, last = states(trainer.run)
    damage(last, name, how)
    said = []
    assert load_latest(trainer.run, said.append).path == first
    assert len(said) == 1
    assert last.name in said[0]
    with pytest.raises(CheckpointError, match=last.name):
        load_state(last)


def test_if_no_state_is_whole_training_does_not_begin_anew_in_silence(make_trainer):
    trainer = make_trainer(steps=1)
    trainer.train()
    damage(states(trainer.run)[0], "optimizer.safetensors", "cut")
    with pytest.raises(CheckpointError, match="fresh"):
        load_latest(trainer.run, lambda _: None)


def test_no_states_are_none(tmp_path):
    assert load_latest(tmp_path / "nothing", print) is None


@pytest.mark.parametrize("tensors_until_full", [0, 10, 40])
def test_a_full_disk_leaves_earlier_states_whole(make_trainer, monkeypatch, tensors_until_full):
    trainer = make_trainer()
    trainer.update()
    first = trainer.save()
    before = {path.name: path.read_bytes() for path in trainer.run.rglob("*") if path.is_file()}
    trainer.update()
    written = 0

    class Full(checkpoints._Summed):
        def write(self, data):
            nonlocal written
            written += 1
            if written > tensors_until_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(checkpoints, "_Summed", Full)
    with pytest.raises(CheckpointError, match="No space left on device; earlier saves are intact"):
        trainer.save()
    assert states(trainer.run) == [first]
    assert {path.name: path.read_bytes() for path in trainer.run.rglob("*") if path.is_file()} == before
    load_state(first)


def test_what_a_kill_left_half_written_is_cleared_away(make_trainer):
    trainer = make_trainer()
    trainer.update()
    state = trainer.save()
    shutil.copytree(state, trainer.run / f".state-0000009.12345678{PARTIAL}")
    shutil.copytree(state, trainer.run / f".state-0000000{PARTIAL}")
    trainer.update()
    trainer.save()
    assert names(trainer.run) == ["state-0000001", "state-0000002"]
    assert not list(trainer.run.glob(f"*{PARTIAL}"))


@pytest.mark.parametrize("killed_at", range(12))
def test_a_kill_while_the_same_step_is_saved_again_leaves_a_whole_state(make_trainer, monkeypatch, killed_at):
    trainer = make_trainer()
    trainer.update()
    trainer.save()
    replace, done = type(trainer.run).replace, 0

    def until_killed(path, target):
        nonlocal done
        done += 1
        if done > killed_at:
            raise SystemExit
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.run), "replace", until_killed)
        with contextlib.suppress(SystemExit):
            trainer.save()
    assert load_latest(trainer.run, pytest.fail).progress["step"] == 1
    trainer.save()
    assert names(trainer.run) == ["state-0000001"]


def test_a_file_that_a_kill_left_half_written_is_no_hindrance(make_trainer):
    trainer = make_trainer()
    trainer.run.mkdir()
    (trainer.run / f".config.json.12345678{PARTIAL}").write_text("{")
    trainer.save()
    assert not list(trainer.run.glob(f"*{PARTIAL}"))


def test_tensors_are_written_one_at_a_time(tmp_path, monkeypatch):
    class Counted:
        """A tensor that records when its numbers are requested."""

        asked = 0

        def __init__(self, *shape):
            self.shape = torch.Size(shape)

        def detach(self):
            Counted.asked += 1
            return torch.ones(self.shape)

    tensors = {str(number): Counted(3, 2) for number in range(4)}
    sizes = []

    class Out(checkpoints._Summed):
        def write(self, data):
            sizes.append((Counted.asked, len(data)))
            return super().write(data)

    monkeypatch.setattr(checkpoints, "_Summed", Out)
    checkpoints._write_tensors(tmp_path / "tensors", tensors)
    assert sizes[1:] == [(1, 24), (2, 24), (3, 24), (4, 24)]


def test_a_model_of_another_shape_never_lies_beside_the_old_config(make_trainer, monkeypatch):
    trainer = make_trainer()
    trainer.save()
    (trainer.run / "config.json").write_text(json.dumps({"n_layer": 99}))

    replace = type(trainer.run).replace

    def killed(path, target):
        if path.name == "model.safetensors":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(trainer.run), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write_model(trainer.run, trainer.model.config, trainer.tensors())
    assert json.loads((trainer.run / "config.json").read_text())["n_layer"] != 99
    assert not (trainer.run / "model.safetensors").exists()


def test_a_full_disk_leaves_the_model_of_another_shape(make_trainer, monkeypatch):
    trainer = make_trainer()
    trainer.save()
    (trainer.run / "config.json").write_text(json.dumps({"n_layer": 99}))
    before = {path.name: path.read_bytes() for path in trainer.run.iterdir() if path.is_file()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "write_safetensors", full)
    with pytest.raises(CheckpointError, match="No space left on device; earlier saves are intact"):
        checkpoints.write_model(trainer.run, trainer.model.config, trainer.tensors())
    assert {path.name: path.read_bytes() for path in trainer.run.iterdir() if path.is_file()} == before


def test_a_models_own_vocabulary_is_saved_with_it(make_trainer):
    trainer = make_trainer()
    encoder = {chr(33 + number): number for number in range(64)}
    copied = TokenizerCopy(new_files_of(TokenizerFiles(encoder, []), SpecialTokens(), 12), {})
    trainer.saver = dataclasses.replace(trainer.saver, vocabulary=copied)
    state = trainer.save()
    for folder in (trainer.run, state):
        assert open_checkpoint(folder).tokenizer_files.encoder == encoder


def test_a_state_whose_step_is_no_number_is_refused_even_with_the_right_checksum(make_trainer):
    trainer = make_trainer(steps=1, save_every=1)
    trainer.train()
    path = states(trainer.run)[-1] / "progress.json"
    content = {**json.loads(path.read_text()), "step": "1"}
    del content["crc32"]
    path.write_text(json.dumps({**content, "crc32": checkpoints._json_crc(content)}))
    with pytest.raises(CheckpointError, match="its step is '1'"):
        load_state(path.parent)


@pytest.mark.parametrize(
    "text",
    ['{"generation": 1e999}', '{"generation": NaN}', "[" * 100_000, "[]", '{"generation": {}}', '{"step": 1e999}', ""],
)
def test_a_progress_file_that_is_strange_counts_as_a_damaged_state(make_trainer, text):
    trainer = make_trainer(steps=2, save_every=1)
    trainer.train()
    (trainer.run / "state-0000002" / "progress.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state-0000002 cannot be resumed"):
        load_state(trainer.run / "state-0000002")
    said = []
    assert load_latest(trainer.run, said.append).progress["step"] == 1
    assert next_generation(trainer.run) == 1
    assert len(said) == 1


@pytest.mark.parametrize(
    ("hours", "kept"), [(0.0, [8, 9, 10]), (1.0, [2, 4, 6, 8, 9, 10]), (2.0, [4, 8, 9, 10]), (9.0, [8, 9, 10])]
)
def test_one_state_stays_for_every_n_hours_of_training(make_trainer, hours, kept):
    trainer = make_trainer(keep=3, keep_checkpoint_every_n_hours=hours)
    for step in range(1, 11):
        trainer.step, trainer.seconds = step, 1800.0 * step
        trainer.save()
    assert names(trainer.run) == [f"state-{step:07}" for step in kept]


def test_the_counter_is_that_of_the_last_state_in_the_originals_form(make_trainer):
    trainer = make_trainer()
    for step in (3, 7):
        trainer.step = step
        trainer.save()
        assert (trainer.run / "counter").read_text() == f"{step}\n"
