"""Fine-tuning from Python."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
from gpt2lab.cli.main import main
from gpt2lab.errors import UsageError
from gpt2lab.system.hashing import sha256_of
from gpt2lab.training.checkpoints import states
from gpt2lab.training.loop import Trainer

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")
TEXTS = [f"Once upon a time there was a mouse number {i}. " * 12 for i in range(8)]
ROWS = [{"prompt": f"What does mouse {i} do?", "completion": " It dances until the moon goes down."} for i in range(40)]
QUICK: Mapping[str, object] = {
    "precision": "float32",
    "block_size": 16,
    "batch_size": 2,
    "accumulate_gradients": 1,
    "val_batch_count": 2,
    "val_every": 2,
    "sample_every": 0,
    "threads": 1,
    "say": lambda line: None,
}
MADE = ("model.safetensors", "state-0000006/model.safetensors", "state-0000006/optimizer.safetensors")

pytestmark = pytest.mark.usefixtures("no_curve")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finetune(data=TEXTS, model=TINY, **more):
    return gpt2lab.finetune(model, data, **{**QUICK, "steps": 6, "validation": 0.2, **more})


def command(path, run_name, **more):
    flags = {**QUICK, "steps": 6, "held_out": 0.2, "run_name": run_name, **more}
    del flags["say"]
    with pytest.raises(SystemExit) as exit:
        main(
            [
                "train",
                "--dataset",
                path,
                "--model_name",
                TINY,
                *(str(x) for k, v in flags.items() for x in (f"--{k}", v)),
            ]
        )
    assert exit.value.code == 0


def digests(run):
    return [sha256_of(Path("checkpoint", run, name)) for name in MADE]


def write_rows(rows):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


@pytest.mark.parametrize("rows", [[{"text": text} for text in TEXTS], ROWS], ids=["texts", "rows"])
def test_the_weights_are_those_of_the_command(rows):
    command(write_rows(rows), "command")
    finetune([row.get("text", row) for row in rows], run_name="python").finish()
    finetune(Path("rows.jsonl"), run_name="path").finish()
    assert digests("command") == digests("python") == digests("path")


def test_an_interrupted_and_rerun_call_equals_an_uninterrupted_one():
    finetune(run_name="whole").finish()
    with finetune(run_name="parts") as run:
        assert [next(run).step, next(run).step] == [1, 2]
    assert run.outcome == "interrupted"
    for update in finetune(run_name="parts"):
        if update.step == 5:
            run.stop()
    assert digests("whole") == digests("parts")


def test_a_callback_that_does_nothing_changes_no_bit():
    finetune(run_name="without").finish()
    finetune(run_name="with", callbacks=[lambda update: None]).finish()
    assert digests("without") == digests("with")


def test_using_the_model_between_updates_changes_no_bit():
    finetune(run_name="without").finish()
    for _ in (run := finetune(run_name="with")):
        run.model.generate("Once", length=3)
    assert digests("without") == digests("with")


def test_each_item_is_an_update_with_its_validation():
    updates = list(finetune())
    assert [update.step for update in updates] == [1, 2, 3, 4, 5, 6]
    assert [update.validation is not None for update in updates] == [False, True] * 3
    assert {(update.last_step, update.tokens) for update in updates} == {(6, 32)}
    assert all(update.loss > 0 and update.learning_rate > 0 for update in updates)


def test_callbacks_get_what_a_loop_gets():
    got = []
    assert list(finetune(callbacks=[got.append])) == got


def test_a_loop_that_was_left_can_go_on():
    run = finetune()
    for update in run:
        if update.step == 2:
            break
    assert [update.step for update in run] == [3, 4, 5, 6]
    assert run.outcome == "finished"


def test_stop_saves_at_once_and_ends_the_run():
    for update in (run := finetune(save_every=0)):
        if update.step == 3:
            run.stop()
            assert [state.name for state in states(run.folder)] == ["state-0000003"]
    assert (run.step, run.last_step, run.outcome) == (3, 6, "interrupted")


def test_a_run_stopped_before_its_first_update_leaves_nothing():
    run = finetune()
    run.stop()
    assert list(run) == []
    assert not run.folder.exists()


def test_another_thread_can_stop_a_run(monkeypatch):
    update, reached = Trainer.update, threading.Event()

    def slow(trainer):
        made = update(trainer)
        if trainer.step == 2:
            reached.set()
            stopper.join()
        return made

    monkeypatch.setattr(Trainer, "update", slow)
    run = finetune()
    stopper = threading.Thread(target=lambda: (reached.wait(60), run.stop()))
    stopper.start()
    assert [update.step for update in run] == [1, 2]
    assert [state.name for state in states(run.folder)] == ["state-0000002"]


def test_a_run_can_be_driven_by_another_thread():
    run = finetune()
    thread = threading.Thread(target=run.finish)
    thread.start()
    thread.join()
    assert run.outcome == "finished"


def test_ctrl_c_during_an_update_saves_and_raises(monkeypatch):
    update = Trainer.update

    def interrupted(trainer):
        signal.raise_signal(signal.SIGINT)
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", interrupted)
    run = finetune()
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert [state.name for state in states(run.folder)] == ["state-0000001"]


def test_signals_between_updates_are_the_callers():
    before = signal.getsignal(signal.SIGINT)
    for _ in finetune():
        assert signal.getsignal(signal.SIGINT) == before


def test_a_callback_that_raises_leaves_a_run_that_can_go_on():
    def fail(update):
        if update.step == 2:
            raise RuntimeError("a callback's own")

    run = finetune(callbacks=[fail])
    with pytest.raises(RuntimeError, match="own"):
        run.finish()
    assert [update.step for update in run] == [3, 4, 5, 6]


def test_a_run_holds_its_folder_until_it_ends_or_is_forgotten():
    finetune(steps=1).finish()
    run = finetune()
    with pytest.raises(UsageError, match="another process or run is writing into checkpoint/run1"):
        finetune()
    del run
    run = finetune()
    next(run)
    with pytest.raises(UsageError, match="another process or run is writing into checkpoint/run1"):
        finetune()
    run.stop()
    finetune().stop()


def same(model, folder):
    there = gpt2lab.load(folder).checkpoint.tensors
    return all(np.array_equal(model.checkpoint.tensors[name], there[name]) for name in there)


def test_the_model_can_be_used_at_once_and_is_the_folders():
    run = finetune(learning_rate=1e-3)
    assert same(run.model, TINY)
    run.finish()
    assert same(run.model, run.folder)
    assert run.best_step == 6
    assert run.model.generate("Once", length=3).text


def test_after_over_fitting_the_model_is_the_best_one():
    run = finetune(learning_rate=10.0, warmup_steps=0)
    run.finish()
    assert run.best_step == 0
    assert same(run.model, TINY)
    assert same(run.model, run.folder)


def test_without_validation_the_model_is_the_newest():
    run = finetune(validation=None)
    next(run)
    model = run.model
    run.finish()
    assert run.best_step is None
    assert same(run.model, run.folder)
    assert not same(model, run.folder)


def test_metrics_are_the_files():
    run = finetune()
    run.finish()
    assert [record["step"] for record in run.metrics] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()] == run.metrics


def test_a_finished_run_makes_no_update_and_has_its_model():
    finetune().finish()
    run = finetune()
    assert list(run) == []
    assert run.outcome == "ended before"
    assert same(run.model, run.folder)


def test_a_shape_starts_from_random_weights():
    shape = gpt2lab.ModelConfig(n_ctx=16, n_embd=8, n_head=2, n_layer=1)
    run = finetune(model=shape, steps=1)
    run.finish()
    assert run.model.config == shape == gpt2lab.load(run.folder).config


def test_validation_may_be_other_data():
    lines = []
    finetune(validation=TEXTS[:2], say=lines.append).stop()
    assert any(line.startswith("held out: ") and line.endswith("documents: 2") for line in lines)
    assert not any("also trained on" in line for line in lines)
    finetune(validation=TEXTS, say=lines.append).stop()
    assert lines[-2].startswith("8 texts given from Python is also trained on") or any(
        "also trained on" in x for x in lines
    )


def test_texts_from_python_are_counted_in_the_settings():
    run = finetune(steps=1)
    run.finish()
    assert json.loads((run.folder / "settings.json").read_text())["dataset"] == "8 texts given from Python"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": []}, "the data are empty: there is no text in them"),
        ({"data": ["", ""]}, "the data are empty: there is no text in them"),
        ({"data": 5}, "data must be a path, a list of texts or a list of rows, got 5"),
        ({"data": {"prompt": "a"}}, "data must be a path, a list of texts"),
        ({"data": ["a", 7]}, r"data\[1\] must be a string, or a row with the strings 'prompt' and 'completion', got 7"),
        ({"data": [{"prompt": "a"}]}, r"data\[0\] must be a string, or a row"),
        ({"data": ["a", {"prompt": "b", "completion": "c"}]}, "data has both texts and rows"),
        ({"data": ["here.txt"]}, r"data\[0\], 'here.txt', is the name of a file: .* pathlib.Path\('here.txt'\)"),
        ({"data": "gone.txt"}, "gone.txt"),
        ({"data": ["half \ud800"]}, "an unpaired surrogate"),
        ({"validation": [Path("a"), Path("b")]}, "validation must be one path, got 2"),
        ({"validation": 1.5}, "held_out must be at least 0 and below 1"),
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"steps": "6"}, "steps must be a whole number, got '6'"),
        ({"epochs": 1}, "give --steps or --epochs, not both"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a number, got '1e-3'"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"optimizer": "adamax"}, "optimizer must be one of adamw, adam, sgd, muon, got 'adamax'"),
        ({"memory_saving_gradients": 1}, "memory_saving_gradients must be True or False, got 1"),
        ({"model": 124}, "model must be a name, a path or a ModelConfig, got 124"),
        ({"run_name": ""}, "--run_name must be the name of a folder"),
        ({"model": gpt2lab.ModelConfig(n_vocab=100)}, "n_vocab must be 50257, not 100"),
    ],
)
def test_a_users_mistake_is_a_usage_error(more, message):
    Path("here.txt").write_text("A text.")
    with pytest.raises(UsageError, match=message):
        finetune(**more)
    assert not Path("checkpoint").exists()


@pytest.mark.parametrize("name", ["batchsize", "held_out", "dataset", "config"])
def test_an_unknown_keyword_is_a_type_error(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        finetune(**{name: 0})


def test_without_torch_it_is_one_line():
    code = "import sys; sys.modules['torch'] = None; import gpt2lab; gpt2lab.finetune('tales', ['a'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("UsageError: training needs torch: pip install 'gpt2lab[train]'")


def test_importing_it_does_not_import_torch():
    code = "import sys, gpt2lab; gpt2lab.finetune; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
