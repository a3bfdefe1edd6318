"""The state of a run folder before and after a command."""

import json
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.errors import Gpt2LabError, TrainingError, UsageError
from gpt2lab.system.hashing import sha256_of
from gpt2lab.system.locks import Hold
from gpt2lab.training import card, checkpoints
from gpt2lab.training.checkpoints import states
from gpt2lab.training.job import Job
from gpt2lab.training.loop import Trainer
from gpt2lab.training.reporting import Lines
from gpt2lab.training.settings import Settings
from gpt2lab.training.start import Session
from gpt2lab.version import CONTRACT
from gpt2lab.weights import open_checkpoint

SHAPE = ModelConfig(n_vocab=50257, n_ctx=16, n_embd=8, n_head=2, n_layer=1)
QUICK = {"precision": "float32", "batch_size": 2, "accumulate_gradients": 1, "sample_every": 0, "val_batch_count": 2}


pytestmark = pytest.mark.usefixtures("no_curve")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, animal in (("text.txt", "mouse"), ("other.txt", "cat")):
        Path(name).write_text("".join(f"Once upon a time there was a {animal} number {i}. " for i in range(60)))


def train(asked, settings):
    return Session(asked, settings, Lines()).finish()


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
    assert "moved the earlier run in checkpoint/run1 to checkpoint/run1-1\n" in capsys.readouterr().out
    assert contents("checkpoint/run1-1") == before
    assert [state.name for state in states(Path("checkpoint/run1"))] == ["state-0000001"]
    run(1, restore_from="fresh")
    assert Path("checkpoint/run1-2/state-0000001").exists()


def test_samples_go_aside_with_their_run():
    Path("samples/run1-1").mkdir(parents=True)  # the number is the same for both, and free for both
    for steps in (2, 1):
        run(steps, restore_from="fresh", sample_every=1, sample_length=2)
    assert sorted(str(path) for path in Path("samples").glob("run1*/samples-*")) == [
        "samples/run1-2/samples-1", "samples/run1-2/samples-2", "samples/run1/samples-1",
    ]  # fmt: skip
    assert Path("checkpoint/run1-2/state-0000002").exists()


def test_two_runs_do_not_share_a_folder():
    run(1)
    before = contents()
    with Hold() as other:
        other.take(Path("checkpoint/run1"))
        for restore_from in ("latest", "fresh"):
            with pytest.raises(UsageError, match="another process or run is writing into checkpoint/run1: wait"):
                run(2, restore_from=restore_from)
    assert contents() == before
    run(2)


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


def test_a_run_can_begin_anew_with_its_own_model():
    run(3)
    before = contents()
    asked = job(config=None, model_name="checkpoint/run1", restore_from="fresh")
    assert train(asked, Settings(steps=1, **QUICK, learning_rate=1e-30)) == 0
    assert contents("checkpoint/run1-1") == before
    now, then = (open_checkpoint(f"checkpoint/{name}").tensors for name in ("run1", "run1-1"))
    assert all((now[name] == then[name]).all() for name in then)


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 2},
        {"narrow_steps": 2, "only_train_transformer_layers": True},
        {"narrow_steps": 2, "lora": 2},
        {"narrow_steps": 5},
        {"optimizer": "sgd"},
        {"config": ModelConfig(n_vocab=50257, n_ctx=16, n_embd=16, n_head=2, n_layer=1)},
        {"sample_every": 1, "sample_prompt": "word " * 30},
    ],
)
def test_a_refused_command_changes_nothing(asked):
    run(3)
    before = contents()
    with pytest.raises(Gpt2LabError, match=r"fresh|sample_prompt|embedding, which|narrow_steps must be below"):
        run(**{"steps": 5, **asked})
    assert contents() == before


@pytest.mark.parametrize("restore_from", ["fresh", "checkpoint/other/state-0000002", "checkpoint/other"])
def test_after_a_restart_by_torchrun_a_run_goes_on_with_what_it_saved(monkeypatch, capsys, restore_from):
    run(2, run_name="other")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    run(3, restore_from=restore_from)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run(4, restore_from=restore_from)
    assert "Loading checkpoint checkpoint/run1/state-0000003" in capsys.readouterr().out
    assert not Path("checkpoint/run1-1").exists()


def test_a_restart_does_not_go_on_with_another_runs_states(monkeypatch):
    run(3)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run(2, restore_from="fresh")
    assert [state.name for state in states(Path("checkpoint/run1"))] == ["state-0000002"]


def test_a_second_text_under_the_name_of_a_finished_run_is_refused():
    run(2)
    before = contents()
    Path("text.txt").write_text("Something else altogether. " * 90)
    with pytest.raises(UsageError, match=r"finished after 2 updates on a different text of .* give another --run_name"):
        run(2)
    assert contents() == before


def test_a_misspelt_fresh_is_told():
    with pytest.raises(UsageError, match="--restore_from fesh: there is no such folder; did you mean fresh"):
        run(1, restore_from="fesh")


def test_a_run_that_is_finished_says_so(capsys):
    run(2)
    before = contents()
    capsys.readouterr()
    run(2)
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == "checkpoint/run1 finished after 2 updates: to continue, give more --steps or --epochs"
    assert said[-1] == "to generate with it:  gpt2lab generate --model checkpoint/run1"
    assert contents() == before


def test_an_interrupted_run_says_which_model_is_where(capsys, monkeypatch):
    update = Trainer.update

    def interrupted(trainer):
        signal.raise_signal(signal.SIGINT)
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", interrupted)
    run(5, code=130, val_every=2)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "run the same command again to resume",
        "checkpoint/run1 holds the model of update 0, the best on held-out text so far; "
        "checkpoint/run1/state-0000001 holds that of update 1",
        "to generate with the newest:  gpt2lab generate --model checkpoint/run1/state-0000001",
    ]


def test_a_run_that_over_fits_says_so_while_it_trains_and_at_the_end(capsys):
    Path("foreign.txt").write_text("Zebras vex kings; xylophones quiz sphinxes. " * 30)
    run(18, learning_rate=0.05, warmup_steps=0, val_every=2, val_dataset="foreign.txt")
    best, out = progress(18)["best_step"], capsys.readouterr().out
    assert 0 < best < 12
    assert re.search(
        f"over-fitting: the last 3 held-out losses are not below [0-9.]+, that of update {best}, while", out
    )
    assert f"\ncheckpoint/run1 holds the model of update {best}, the best (held-out loss " in out
    assert ", not that of update 18, the last (held-out loss " in out
    assert "\nthe run over-fits: try " in out


def test_a_run_whose_best_model_is_the_last_says_that_more_may_help(capsys):
    run(2, learning_rate=1e-2)
    assert re.search(
        r"\ncheckpoint/run1 holds the model of update 2, the last and the best \(held-out loss [\d.]+\)\n"
        "the held-out loss was still falling: more --epochs or --steps may give a better model\n",
        capsys.readouterr().out,
    )


def test_the_fewest_updates_are_announced_with_the_passes_they_make(capsys):
    run(None, stop_after=1)
    windows = int(re.search(r"dataset has (\d+) tokens", capsys.readouterr().out)[1]) // 16
    run(None, stop_after=2, batch_size=100)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("length: "))
    assert line == (
        f"length: 100 updates of 100 windows, {(2 + 99 * 100) / windows:.1f} passes over the text; a run has at least "
        "100 updates by default, and --epochs 3 makes 3 passes"
    )


def test_updates_without_a_learned_target_are_summed_up_at_the_end(capsys):
    rows = [{"prompt": "why " * 100, "completion": "so"}] * 3
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(job(dataset=("rows.jsonl",), held_out=0.0), Settings(steps=9, **{**QUICK, "batch_size": 1}))
    out = capsys.readouterr().out
    unlearned = out.count("loss=none")
    assert 0 < unlearned < 9
    assert f"\n{unlearned} of 9 updates had no learned target, only prompts, and changed nothing: " in out


def test_the_run_folder_has_a_model_card_of_the_newest_save(capsys):
    run(3, learning_rate=1e-2)
    card = Path("checkpoint/run1/README.md").read_text()
    assert "trained from random weights" in card
    assert "The model in this folder is that of update 3; 3 of 3 updates have been made." in card
    assert f"| `text.txt` | | `{sha256_of(Path('text.txt'))}` |" in card
    run(4, learning_rate=1e-2)
    assert "4 of 4 updates" in Path("checkpoint/run1/README.md").read_text()


@pytest.mark.parametrize("own", ["# Mine\n", None], ids=["another file", "a changed card"])
def test_a_readme_that_the_run_did_not_write_stays(own, capsys):
    run(1)
    path = Path("checkpoint/run1/README.md")
    path.write_text(own or path.read_text().replace("GPT-2", "very good GPT-2"))
    before = path.read_bytes()
    capsys.readouterr()
    run(2)
    assert path.read_bytes() == before
    assert capsys.readouterr().out.count("README.md was changed or is not a card of gpt2lab: it stays") == 1


def test_a_card_that_cannot_be_written_does_not_end_training(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "write_file", full)
    run(2)
    assert capsys.readouterr().out.count("README.md: No space left on device; training continues without a card") == 1


def test_a_run_whose_patience_has_ended_says_so(capsys):
    settings = {"steps": 50, "val_every": 1, "patience": 2, "learning_rate": 1e-30}
    run(**settings)
    before = contents()
    capsys.readouterr()
    run(**settings)
    assert re.search(
        "ended after [0-9]+ updates, the last 2 validations without improvement: to continue, give more --patience",
        capsys.readouterr().out,
    )
    assert contents() == before


def test_settings_that_have_changed_are_told(capsys):
    run(2, learning_rate=0.001)
    capsys.readouterr()
    run(3, learning_rate=0.0003, seed=0)
    assert (
        "\nchanged since the state was saved: learning_rate 0.001 -> 0.0003\nTraining...\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize("recorded", [{"contract": 7}, {}], ids=["another", "none, as before version 2"])
def test_a_state_of_another_contract_is_told_in_a_line(capsys, recorded):
    run(2)
    path = Path("checkpoint/run1/state-0000002/progress.json")
    progress = json.loads(path.read_text())
    assert progress.pop("contract") == CONTRACT
    del progress["crc32"]
    progress |= recorded
    path.write_text(json.dumps({**progress, "crc32": checkpoints._json_crc(progress)}))
    capsys.readouterr()
    run(3)
    line = f"saved under version {recorded.get('contract', 1)} of gpt2lab's contract, and this is version {CONTRACT}"
    assert capsys.readouterr().out.count(line) == 1


def test_a_state_of_this_contract_needs_no_word(capsys):
    run(2)
    run(3)
    assert "contract" not in capsys.readouterr().out


def test_another_held_out_text_is_told(capsys):
    run(2)
    capsys.readouterr()
    run(3, val_dataset="other.txt")
    out = capsys.readouterr().out
    assert "the held-out text has changed" in out
    assert "Training...\n[2 | " in out


def test_another_number_of_heads_is_refused():
    run(1)
    with pytest.raises(Gpt2LabError, match="n_head is 2 in the state, 4 now"):
        run(2, config=replace(SHAPE, n_head=4))


def progress(step):
    return json.loads(Path(f"checkpoint/run1/state-{step:07}/progress.json").read_text())


@pytest.mark.parametrize("batch_size", [1, 8])
def test_an_epoch_has_the_same_windows_after_a_change_of_batch_size(batch_size, capsys):
    run(None, epochs=1, batch_size=4, stop_after=3)
    windows = int(re.search(r"dataset has (\d+) tokens", capsys.readouterr().out)[1]) // 16
    run(None, epochs=1, batch_size=batch_size)
    updates = -(-(windows - 12) // batch_size)
    assert progress(3 + updates)["position"] == 12 + updates * batch_size
    run(None, epochs=1, batch_size=1)
    assert f"after {3 + updates} updates" in capsys.readouterr().out


def test_an_epoch_has_the_same_tokens_after_a_change_of_block_size():
    run(None, epochs=1, batch_size=4, stop_after=3)
    run(None, epochs=1, batch_size=4, block_size=8)
    (last,) = [state for state in states(Path("checkpoint/run1")) if state.name != "state-0000003"]
    tokens, position = (json.loads((last / "progress.json").read_text())[name] for name in ("tokens", "position"))
    assert tokens // 8 <= position < tokens // 8 + 4


def test_held_out_windows_without_a_learned_target_are_not_validated_with(capsys):
    rows = [{"prompt": "why " * 100, "completion": "so"}] * 3
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(job(val_dataset="rows.jsonl"), Settings(steps=1, **{**QUICK, "val_batch_count": 1, "val_batch_size": 1}))
    assert "there will be no validation" in capsys.readouterr().out
    assert progress(1)["best"] is None


@pytest.mark.parametrize("request_memory", [lambda: torch.empty(1 << 55), lambda: np.empty(1 << 55)])
def test_training_that_runs_out_of_memory_says_what_needs_less(monkeypatch, request_memory):
    monkeypatch.setattr(Trainer, "update", lambda self: request_memory())
    with pytest.raises(TrainingError, match="training ran out of memory: a smaller --batch_size"):
        run()


def test_other_errors_of_pytorch_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(Trainer, "update", lambda self: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        run()


@pytest.mark.parametrize("shape", [{"n_layer": 10**9}, {"n_embd": 10**9}])
def test_a_model_beyond_all_memory_is_refused_before_it_is_built(shape):
    with pytest.raises(TrainingError, match="choose a smaller model: the weights alone need"):
        Session(Job(dataset=("text.txt",), config=replace(SHAPE, **shape)), Settings(**QUICK, steps=2), Lines())


def test_a_model_that_grows_beyond_all_memory_is_refused_before_it_is_built():
    with pytest.raises(TrainingError, match="choose a smaller model: the weights alone need"):
        Session(Job(dataset=("text.txt",), n_layer=10**9), Settings(**QUICK, steps=2), Lines())
