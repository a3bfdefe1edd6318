"""What a command finds in a run folder, and what it leaves there."""

import json
from pathlib import Path

import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.errors import Gpt2LabError
from gpt2lab.training.checkpoints import states
from gpt2lab.training.settings import Settings
from gpt2lab.training.start import Job, train

SHAPE = ModelConfig(n_vocab=50257, n_ctx=16, n_embd=8, n_head=2, n_layer=1)
QUICK = {"precision": "float32", "batch_size": 2, "accumulate_gradients": 1, "sample_every": 0, "val_batch_count": 2}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, animal in (("text.txt", "mouse"), ("other.txt", "cat")):
        Path(name).write_text("".join(f"Once upon a time there was a {animal} number {i}. " for i in range(60)))


def job(**others):
    return Job(**{"dataset": ("text.txt",), "config": SHAPE, "held_out": 0.2, "sample_dir": "samples", **others})


def run(steps=2, *, code=0, restore_from="latest", val_dataset=None, config=SHAPE, run_name="run1", **settings):
    asked = job(restore_from=restore_from, val_dataset=val_dataset, config=config, run_name=run_name)
    assert train(asked, Settings(steps=steps, **{**QUICK, **settings})) == code


def contents(folder="checkpoint/run1"):
    return {str(f.relative_to(folder)): f.read_bytes() for f in Path(folder).rglob("*") if f.is_file()}


def test_beginning_anew_leaves_the_old_run_whole_under_another_name(capsys):
    run(3)
    before = contents()
    run(1, restore_from="fresh")
    assert "the run that was in checkpoint/run1 is now checkpoint/run1-1\n" in capsys.readouterr().out
    assert contents("checkpoint/run1-1") == before
    assert [state.name for state in states(Path("checkpoint/run1"))] == ["state-0000001"]
    run(1, restore_from="fresh")
    assert Path("checkpoint/run1-2/state-0000001").exists()


def test_weights_or_a_state_from_elsewhere_do_not_overwrite_a_run(capsys):
    run(3)
    run(2, run_name="other")
    before = contents()
    run(3, restore_from="checkpoint/other/state-0000002")
    assert contents("checkpoint/run1-1") == before
    assert "[2 | " in capsys.readouterr().out
    progress = json.loads(Path("checkpoint/run1/state-0000003/progress.json").read_text())
    assert progress["best_step"] in (2, 3)
    assert Path("checkpoint/run1/model.safetensors").exists()


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 2},
        {"optimizer": "sgd"},
        {"config": ModelConfig(n_vocab=50257, n_ctx=16, n_embd=16, n_head=2, n_layer=1)},
        {"sample_every": 1, "sample_prompt": "word " * 30},
    ],
)
def test_a_refused_command_changes_nothing(asked):
    run(3)
    before = contents()
    with pytest.raises(Gpt2LabError):
        run(**{"steps": 5, **asked})
    assert contents() == before
