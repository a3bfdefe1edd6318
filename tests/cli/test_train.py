import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import needs

torch = needs.package("torch")

from gpt2lab.cli.main import main  # noqa: E402
from gpt2lab.training import metrics  # noqa: E402
from gpt2lab.training.checkpoints import states  # noqa: E402
from gpt2lab.training.loop import Trainer  # noqa: E402
from gpt2lab.training.settings import Settings  # noqa: E402
from gpt2lab.weights import open_checkpoint  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
TINY, ODD = str(GOLDEN / "tiny"), str(GOLDEN / "odd")
SCRATCH = ["--from_scratch", "--n_ctx", "16", "--n_embd", "8", "--n_head", "2", "--n_layer", "1"]
QUICK = [
    "--held_out",
    "0.2",
    "--precision",
    "float32",
    "--batch_size",
    "2",
    "--accumulate_gradients",
    "1",
    "--sample_every",
    "0",
]
FINE = ["--dataset", "tales", "--model_name", TINY, *QUICK, "--block_size", "16", "--val_batch_count", "2"]
FRESH = ["--dataset", "tales", *SCRATCH, *QUICK, "--val_batch_count", "2"]


pytestmark = pytest.mark.usefixtures("no_curve")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    (tmp_path / "tales").mkdir()
    for i in range(4):
        (tmp_path / "tales" / f"{i}.txt").write_text(f"Once upon a time there was a mouse number {i}. " * 20)
    return tmp_path


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as exit:
        main(["train", "--threads", "1", *map(str, arguments)])
    assert exit.value.code == code


def error_of(capsys, *arguments):
    """Return the one line that a command with a user's mistake prints on standard error."""
    run(*arguments, code=2)
    error = capsys.readouterr().err
    assert error.startswith("gpt2lab: error: ")
    assert error.count("\n") == 1, error
    return error


YAML_BOMB = "dataset:\n  - &a0 [x, x]\n" + "".join(f"  - &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
"""Sixty lists of two, each of which is twice the one before: written out, it would take exabytes."""


def names(run="run1"):
    return [state.name for state in states(Path("checkpoint", run))]


def test_fine_tunes_and_goes_on(folder, capsys):
    run(*FINE, "--steps", 2, "--run_name", "mine")
    run(*FINE, "--steps", 3, "--run_name", "mine")
    out = capsys.readouterr().out
    assert re.search(r"dataset has \d+ tokens, documents: \d\nheld out: \d+ tokens", out)
    assert "Training...\n[0 | 0.00] validation loss = " in out
    assert "Loading checkpoint checkpoint/mine/state-0000002\nTraining...\n[3 | " in out
    assert out.endswith("to generate with it:  gpt2lab generate --model checkpoint/mine\n")
    assert names("mine") == ["state-0000002", "state-0000003"]
    assert open_checkpoint("checkpoint/mine").config == open_checkpoint(TINY).config


def test_fine_tuning_begins_with_the_models_weights_and_makes_them_better(folder):
    run(*FINE, "--steps", 30, "--learning_rate", "1e-2", "--held_out", "0.3")
    metrics = [json.loads(line) for line in Path("checkpoint/run1/metrics.jsonl").read_text().splitlines()]
    losses = [record["val_loss"] for record in metrics if "val_loss" in record]
    assert losses[-1] < 0.8 * losses[0]
    before, after = open_checkpoint(TINY).tensors, open_checkpoint("checkpoint/run1").tensors
    assert 0 < np.abs(before["wpe.weight"] - after["wpe.weight"]).max() < 0.5


def make_source(kind):
    """Convert the golden model to another format."""
    tiny = open_checkpoint(TINY)
    if kind == "nanogpt":
        config, tensors = tiny.config, {name: torch.tensor(t) for name, t in tiny.tensors.items()}
        linear = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
        state = {f"transformer.{n}": t.T.contiguous() if n.endswith(linear) else t for n, t in tensors.items()}
        shape = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "bias": True}
        arguments = {**shape, "block_size": config.n_ctx, "vocab_size": config.n_vocab}
        torch.save({"model": state, "model_args": arguments}, "ckpt.pt")
        return "ckpt.pt"
    from gpt2lab.weights import convert

    convert(tiny, Path(kind), precision="float32")
    return kind


@pytest.mark.parametrize("kind", ["tiny.gguf", "huggingface", "nanogpt"])
def test_any_checkpoint_that_is_read_can_be_tuned(folder, kind):
    options = ["--dataset", "tales", *QUICK, "--block_size", "16", "--steps", 2, "--val_every", 0]
    activation = ["--activation", "gelu_new"] if kind == "nanogpt" else []
    run(*options, "--model_name", make_source(kind), "--run_name", "copy", *activation)
    run(*options, "--model_name", TINY, "--run_name", "original")
    one, other = (open_checkpoint(f"checkpoint/{name}").tensors for name in ("copy", "original"))
    assert all((one[name] == other[name]).all() for name in one)


def test_restore_from_any_checkpoint_takes_its_weights(folder):
    run(*FINE, "--steps", 2, "--val_every", 0)
    options = ["--restore_from", TINY, "--run_name", "other", "--steps", 2, "--val_every", 0]
    run("--dataset", "tales", *QUICK, "--block_size", 16, *options)
    one, other = (open_checkpoint(f"checkpoint/{name}").tensors for name in ("run1", "other"))
    assert all((one[name] == other[name]).all() for name in one)


def test_stopped_and_resumed_is_the_same_to_the_last_bit(folder):
    options = [*FINE, "--dropout", "0.1", "--noise", "0.1", "--steps", 6, "--val_every", 3]
    run(*options, "--run_name", "whole")
    for stop in (2, 5, 6):
        run(*options, "--run_name", "parts", "--stop_after", stop)
    for file in ("state-0000006/model.safetensors", "state-0000006/optimizer.safetensors"):
        assert Path("checkpoint/parts", file).read_bytes() == Path("checkpoint/whole", file).read_bytes()
    steps = [json.loads(line)["step"] for line in Path("checkpoint/parts/metrics.jsonl").read_text().splitlines()]
    # Updates and validations, including one after the last update of each part.
    assert steps == [0, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6]


def test_fresh_begins_anew_and_latest_goes_on_from_there(folder, capsys):
    run(*FRESH, "--steps", 3)
    run(*FRESH, "--steps", 1, "--restore_from", "fresh")
    capsys.readouterr()
    run(*FRESH, "--steps", 2)
    assert "Loading checkpoint checkpoint/run1/state-0000001" in capsys.readouterr().out


def test_an_earlier_state_can_be_gone_back_to(folder, capsys):
    run(*FRESH, "--steps", 4, "--save_every", 1)
    run(*FRESH, "--steps", 3, "--save_every", 1, "--restore_from", "checkpoint/run1/state-0000002")
    assert names()[-1] == "state-0000003"
    capsys.readouterr()
    run(*FRESH, "--steps", 4)
    assert "Loading checkpoint checkpoint/run1/state-0000003" in capsys.readouterr().out


def test_a_damaged_state_is_told_and_the_one_before_taken(folder, capsys):
    run(*FRESH, "--steps", 2, "--save_every", 1)
    file = Path("checkpoint/run1/state-0000002/optimizer.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    run(*FRESH, "--steps", 3)
    out = capsys.readouterr().out
    assert "state-0000002 cannot be resumed (optimizer.safetensors does not match its checksum): trying" in out
    assert "Loading checkpoint checkpoint/run1/state-0000001" in out


def test_samples_are_what_generate_writes_with_the_checkpoint(folder, capsys):
    options = ["--sample_every", 2, "--sample_length", 20, "--sample_num", 2, "--seed", 5]
    run(*FINE, "--steps", 2, "--val_every", 0, *options)
    assert "Generating samples...\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sampling = ["--length", "20", "--nsamples", "2", "--top_k", "40", "--seed", "5"]
        main(["generate", "--model", "checkpoint/run1", *sampling])
    written = capsys.readouterr().out.replace("=" * 40, "=" * 8)
    assert Path("samples/run1/samples-2").read_text() + "\n" == re.sub(r"\n(?==+ SAMPLE 2)", "\n\n", written) + "\n"


def test_samples_may_have_a_prompt(folder):
    run(*FRESH, "--steps", 1, "--sample_every", 1, "--sample_length", 5, "--sample_prompt", "ROMEO:")
    assert Path("samples/run1/samples-1").read_text().startswith("======== SAMPLE 1 ========\nROMEO:")


def test_lora_makes_a_model_that_loads_and_resumes(folder, capsys):
    run(*FINE, "--lora", 2, "--steps", 2, "--val_every", 0)
    assert (Path("checkpoint/run1/state-0000002/adapter.safetensors")).stat().st_size < 100_000
    run(*FINE, "--lora", 2, "--steps", 3, "--val_every", 0)
    assert open_checkpoint("checkpoint/run1").config == open_checkpoint(TINY).config
    other = ["--model_name", "checkpoint/run1"]
    assert "adapter for another model than checkpoint/run1" in error_of(
        capsys, *FINE, *other, "--lora", 2, "--steps", 4
    )


def test_one_line_of_text_is_enough_and_nothing_is_held_out_of_it(folder, capsys):
    Path("line.txt").write_text("To be, or not to be.\n")
    run("--dataset", "line.txt", "--model_name", TINY, *QUICK, "--steps", 2)
    out = capsys.readouterr().out
    few = re.search(r"(\d+) tokens are too few to hold any out: there will be no validation", out)
    assert few and f"dataset has {few[1]} tokens" in out
    assert re.search(r"shorter than a window of 64: windows have \d tokens", out)
    assert (Path("checkpoint/run1/model.safetensors")).exists()


def test_val_dataset_is_validated_with_and_told_if_it_is_trained_on(folder, capsys):
    Path("val.txt").write_text("There was once another mouse. " * 30)
    run(*FRESH, "--steps", 1, "--val_dataset", "val.txt")
    out = capsys.readouterr().out
    assert re.search(r"dataset has \d+ tokens, documents: 4\nheld out: \d+ tokens, documents: 1\n", out)
    run(*FRESH, "--steps", 1, "--val_dataset", "tales", "--run_name", "same")
    assert "tales is also trained on" in capsys.readouterr().out


def test_prompts_bear_no_loss(folder):
    rows = [{"prompt": "Question? " * 3, "completion": " Answer." * 2}] * 40
    Path("chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("text.jsonl").write_text("".join(json.dumps({"text": r["prompt"] + r["completion"]}) + "\n" for r in rows))
    losses = []
    for name in ("chat", "text"):
        options = ["--run_name", name, "--steps", 1, "--held_out", 0, "--model_name", TINY]
        run("--dataset", f"{name}.jsonl", *QUICK, *options)
        losses.append(json.loads(Path("checkpoint", name, "metrics.jsonl").read_text())["loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_auto_measures_precision_once(folder, capsys):
    options = [*FRESH, "--precision", "auto"]
    run(*options, "--steps", 1)
    chosen = re.search(r"precision: (float32|bfloat16) \(a pass took", capsys.readouterr().out)
    progress = json.loads(Path("checkpoint/run1/state-0000001/progress.json").read_text())
    assert progress["precision"] == chosen[1]
    run(*options, "--steps", 2)
    assert "precision:" not in capsys.readouterr().out


def test_the_recipe_of_tales_runs_in_small(folder):
    recipe = ["--optimizer", "muon", "--schedule", "stable-decay", "--narrow_steps", 3, "--val_every", 2]
    run(*FRESH, *recipe, "--steps", 4, "--decay_steps", 2, "--learning_rate", "2e-3")
    run(*FRESH, *recipe, "--steps", 6, "--decay_steps", 1, "--learning_rate", "1.5e-4")
    metrics = [json.loads(line) for line in Path("checkpoint/run1/metrics.jsonl").read_text().splitlines()]
    rates = [record["learning_rate"] for record in metrics if "loss" in record]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-3 * 2 / 3, 2e-3 / 3, 1.5e-4, 0.75e-4])


def test_an_existing_model_grows(folder):
    run(*FINE, "--steps", 1, "--n_layer", 4, "--n_ctx", 80, "--run_name", "large")
    run(*FINE, "--steps", 2, "--n_layer", 4, "--n_ctx", 80, "--run_name", "large")
    config = open_checkpoint("checkpoint/large").config
    assert (config.n_layer, config.n_ctx) == (4, 80)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.toml", 'dataset = "tales"\nsteps = 3\nbatch-size = 2\nfrom_scratch = true\nn_embd = 8\nn_head = 2\n'),
        (
            "run.toml",
            '\ufeffdataset = "tales"\nsteps = 3\nbatch-size = 2\nfrom_scratch = true\nn_embd = 8\nn_head = 2\n',
        ),
        ("run.yaml", "dataset: [tales]\nsteps: 3\nbatch-size: 2\nfrom_scratch: yes\nn_embd: 8\nn_head: 2\n"),
    ],
)
def test_settings_can_be_in_a_file_and_flags_win(folder, name, text):
    Path(name).write_text(
        text + ("n_ctx = 16\nn_layer = 1\n" if name == "run.toml" else "n_ctx: 16\nn_layer: 1\n"), encoding="utf-8"
    )
    run("--config", name, "--steps", 2, "--sample_every", 0)
    settings = json.loads(Path("checkpoint/run1/settings.json").read_text())
    assert (settings["steps"], settings["batch_size"], settings["dataset"]) == (2, 2, ["tales"])
    assert open_checkpoint("checkpoint/run1").config.n_embd == 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "learning_rates = 1", "unknown setting 'learning_rates'; did you mean learning_rate?"),
        ("a.toml", "[model]\nn_layer = 1", "unknown setting 'model'"),
        ("a.yaml", "steps: {a: 1}", "steps must be a number"),
        ("a.yaml", "- steps", "name: value"),
        ("a.toml", "steps = ", "a.toml: "),
        ("a.yaml", "steps: many", "'many' is not a valid integer"),
        ("a.toml", "steps = 2.5", "a.toml: steps must be a whole number, not 2.5"),
        ("a.toml", "threads = 1.5", "a.toml: threads must be a whole number, not 1.5"),
        ("a.yaml", "lora: yes", "a.yaml: lora must be a number or a string, not True"),
        ("a.toml", "dropout = false", "a.toml: dropout must be a number or a string, not False"),
        ("a.toml", "from_scratch = 2", "a.toml: from_scratch must be true or false, not 2"),
        (
            "a.toml",
            "steps = 2020-01-01",
            "steps must be a number, a string or a list of strings, not datetime.date(",
        ),
        (
            "a.toml",
            "dataset = [12:00:00]",
            "dataset must be a number, a string or a list of strings, not [datetime",
        ),
        ("a.toml", "learning_rate = 1" + "0" * 400, "a.toml: learning_rate is too large a number"),
        ("a.toml", "steps = 0x" + "f" * 5000, "a.toml: steps is too large a number"),
        ("a.toml", "learning_rate = nan", "learning_rate"),
        ("a.yaml", "dataset: [[a, b]]", "dataset must be a number, a string or a list of strings"),
        ("a.yaml", YAML_BOMB, "dataset must be a number, a string or a list of strings, not ["),
        ("a.txt", "steps: 1", "must end in .toml, .yaml or .yml"),
    ],
)
def test_a_mistake_in_such_a_file_is_told(folder, capsys, name, text, message):
    Path(name).write_text(text)
    assert message in error_of(capsys, *FRESH, "--config", name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nowhere", *SCRATCH], "nowhere"),
        (["--dataset", "empty.txt", *SCRATCH], "empty"),
        (["--dataset", "binary.txt", *SCRATCH], "binary.txt"),
        (["--dataset", "table.csv", "--column", "story", *SCRATCH], "story"),
        ([*FRESH, "--steps", "0"], "steps must be at least 1"),
        ([*FRESH, "--steps", "5", "--epochs", "1"], "not both"),
        ([*FRESH, "--n_head", "3"], "multiple of n_head"),
        ([*FRESH, "--n_layer", "0"], "n_layer"),
        (["--dataset", "latin.txt", *SCRATCH], "is not UTF-8 text (byte 3, line 1): give its --encoding"),
        ([*FRESH, "--sample_every", "9", "--sample_dir", "tales/0.txt"], "cannot write samples into tales/0.txt/run1"),
        ([*FINE, "--n_embd", "48"], "--n_embd needs --from_scratch"),
        ([*FINE, "--n_layer", "1"], "--n_layer must be at least"),
        ([*FRESH, "--held_out", "1"], "held_out"),
        ([*FRESH, "--block_size", "17"], "block_size must be at most"),
        ([*FINE, "--restore_from", "gone"], "no model at gone"),
        ([*FRESH, "--restore_from", "gone"], "--restore_from gone from saved ones: give only one"),
        ([*FRESH, "--checkpoint_dir", "tales/0.txt"], "cannot write into tales/0.txt/run1"),
        ([*FRESH, "--sample_prompt", "word " * 30, "--sample_every", "1"], "sample_prompt (31 tokens)"),
        (["--dataset", "tales", "--model_name", ODD], "has no tokenizer"),
        ([*FRESH, "--device", "cuda"], "device cuda is not available"),
    ],
)
def test_a_users_mistake_is_one_line(folder, capsys, arguments, message):
    if "cuda" in arguments:
        needs.check("a machine without CUDA")
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    Path("binary.txt").write_bytes(bytes(range(256)) * 4)
    Path("table.csv").write_text("title,text\na,b\n")
    assert message in error_of(capsys, *arguments)


def test_another_shape_under_the_same_name_is_refused(folder, capsys):
    run(*FRESH, "--steps", 1)
    error = error_of(capsys, *FRESH, "--n_embd", "16", "--steps", 2)
    assert "does not fit this model or optimizer" in error
    assert "use the same settings as before, another --run_name, or --restore_from fresh" in error
    run(*FRESH, "--steps", 2)
    assert "already has 2 updates" in error_of(capsys, *FRESH, "--steps", 1)


def test_a_loss_that_is_no_number_is_one_line(folder, capsys):
    message = error_of(capsys, *FRESH, "--steps", 50, "--learning_rate", "1e30", "--save_every", 1, "--warmup_steps", 0)
    assert re.search(r"at update \d+, which was discarded; the last state, \S+, is intact; try a lower", message)


def test_memory_is_told_before(folder, capsys):
    run(*FRESH, "--steps", 1)
    out = capsys.readouterr().out
    assert re.search(r"memory.* [GM]i?B.*\n(.*\n)?Training", out)


@pytest.mark.parametrize("typed", ["stable-decay", "stable_decay"])
def test_a_schedule_may_have_a_dash_or_an_underscore_and_is_recorded_with_a_dash(folder, typed):
    run(*FRESH, "--steps", 1, "--schedule", typed)
    progress = json.loads(Path("checkpoint/run1/state-0000001/progress.json").read_text())
    assert progress["settings"]["schedule"] == "stable-decay"


def test_help_and_errors_spell_the_schedule_as_it_is_recorded(capsys):
    run("--help")
    shown = capsys.readouterr().out
    assert "[cosine|linear|constant|stable-decay]" in shown
    assert "stable_decay" not in shown
    run("--dataset", "tales", "--schedule", "steep", code=2)
    assert "'constant', 'stable-decay'" in capsys.readouterr().err


def test_help_needs_no_torch_and_lists_every_setting():
    code = "import sys; sys.modules['torch'] = None; from gpt2lab.cli.main import main\nmain(['train', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [name for name in vars(Settings()) if f"--{name}" not in done.stdout] == []
    assert "[default: 0.05]" in done.stdout


def test_the_table_of_defaults_in_the_docs_is_true():
    from gpt2lab.cli.train import command

    page = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(\w+)` \| .+? \| (.+?) \|", page, re.M)
    defaults = {parameter.name: parameter.default for parameter in command.params}
    assert len(rows) >= 24
    for name, here in rows:
        told = re.fullmatch("`([^ ]+)`", here)
        if told and defaults[name] is not None:
            assert told[1] == str(defaults[name]), name


def test_without_torch_is_one_line(folder):
    code = (
        "import sys; sys.modules['torch'] = None; from gpt2lab.cli.main import main\n"
        "main(['train', '--dataset', 'tales'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "gpt2lab: error: training needs torch: pip install 'gpt2lab[train]'\n"


def started(*options):
    """Start a process that trains, with a pipe as its standard output."""
    command = [sys.executable, "-m", "gpt2lab", "train", "--threads", "1", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def assert_saved_and_said_where(lines):
    at = lines.index("interrupted")
    assert lines[at + 1] == f"Saving checkpoint/run1/{names()[-1]}"
    assert lines[at + 2 :] == [
        "run the same command again to resume",
        "to generate with it:  gpt2lab generate --model checkpoint/run1",
    ]


def test_ctrl_c_finishes_the_update_saves_and_says_where(folder):
    with started(*FRESH, "--steps", 100000, "--val_every", 0) as process:
        while not process.stdout.readline().startswith("[5 |"):
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    assert process.returncode == 130
    assert_saved_and_said_where(rest)


def test_sigterm_finishes_the_update_saves_and_says_where(folder, capsys, monkeypatch):
    update = Trainer.update

    def disturbed(self):
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return update(self)

    monkeypatch.setattr(Trainer, "update", disturbed)
    run(*FRESH, "--steps", 100000, "--val_every", 0, code=143)
    assert names() == ["state-0000003"]
    assert_saved_and_said_where(capsys.readouterr().out.splitlines())


def test_the_losses_are_drawn_where_matplotlib_is(folder, monkeypatch):
    needs.check("matplotlib")
    monkeypatch.setattr(metrics, "find_spec", find_spec)  # undoes no_curve
    run(*FRESH, "--steps", 1)
    assert {"losses.svg", "losses.png"} < {file.name for file in Path("checkpoint/run1").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # many starts, perhaps beside other programs
def test_killed_at_random_moments_and_resumed_is_the_same_to_the_last_bit(folder):
    """Send SIGKILL again and again while the process writes a state after every update."""
    options = [*FINE, "--save_every", 1, "--val_every", 4, "--dropout", "0.1", "--steps", 40, "--batch_size", 4]
    run(*options, "--run_name", "whole")
    moments, kills = random.Random(os.getpid()), 0
    while True:
        with started(*options, "--run_name", "parts") as process:
            line = ""
            while line is not None and not line.startswith("Saving"):
                line = process.stdout.readline() or None
            for _ in range(moments.randrange(12)):
                process.stdout.readline()
            time.sleep(moments.random() * 0.05)
            alive = process.poll() is None
            process.kill()
            process.stdout.read()
        kills += alive
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            break  # training ended before the signal arrived
        if names("parts") and names("parts")[-1] == "state-0000040":
            break
    assert kills >= 3
    for file in ("state-0000040/model.safetensors", "state-0000040/optimizer.safetensors", "model.safetensors"):
        assert Path("checkpoint/parts", file).read_bytes() == Path("checkpoint/whole", file).read_bytes()


def test_a_val_dataset_shorter_than_a_window_is_told(folder, capsys):
    Path("val.txt").write_text("A mouse.")
    run(*FRESH, "--steps", 1, "--val_dataset", "val.txt")
    assert re.search(r"shorter than a window of 16: its windows have \d tokens", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_run_needs_a_name(folder, capsys, name):
    run(*FRESH, "--steps", 1, "--run_name", name, code=2)
    assert "--run_name must be the name of a folder" in capsys.readouterr().err
