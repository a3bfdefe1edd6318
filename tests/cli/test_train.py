import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")

from gpt2lab.cli.main import main
from gpt2lab.training.checkpoints import states
from gpt2lab.weights import open_checkpoint

TINY = ["--from_scratch", "--n_ctx", "16", "--n_embd", "8", "--n_head", "2", "--n_layer", "1", "--batch_size", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text(f"Once upon a time there was a mouse number {i}. " * 20)
    return tmp_path


def run(*arguments):
    with pytest.raises(SystemExit) as exit:
        main(["train", *arguments])
    return exit.value.code


def test_trains_saves_and_goes_on(folder, capsys):
    options = ["--dataset", str(folder), *TINY, "--held_out", "0.3", "--run_name", "mine"]
    assert run(*options, "--steps", "2") == 0
    assert run(*options, "--steps", "3") == 0
    out = capsys.readouterr().out
    assert "held out: " in out
    assert "Loading checkpoint" in out
    assert [state.name for state in states(folder / "checkpoint" / "mine")] == ["state-0000002", "state-0000003"]
    assert open_checkpoint(folder / "checkpoint" / "mine").config.n_embd == 8


def test_fresh_begins_anew(folder, capsys):
    options = ["--dataset", str(folder), *TINY, "--held-out", "0", "--steps", "1"]
    assert run(*options) == 0
    assert run(*options, "--restore_from", "fresh") == 0
    assert "Loading checkpoint" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nowhere", *TINY], "nowhere"),
        (["--dataset", "0.txt"], "--from_scratch"),
        (["--dataset", "0.txt", *TINY, "--steps", "0"], "steps must be at least 1"),
        (["--dataset", "0.txt", *TINY, "--n_head", "3"], "multiple of n_head"),
        (["--dataset", "0.txt", *TINY, "--held_out", "1"], "held_out"),
        (["--dataset", "0.txt", *TINY, "--n_ctx", "5000"], "smaller than one window"),
        (["--dataset", "0.txt", *TINY, "--held_out", "0", "--restore_from", "gone"], "gone cannot be resumed from"),
    ],
)
def test_a_users_mistake_is_one_line(folder, capsys, arguments, message):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from gpt2lab.cli.main import main\nmain(['train', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--from_scratch" in done.stdout
    assert "[default: 0.001]" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0.0, 0.013, 0.041])
def test_after_a_kill_at_any_moment_the_last_state_is_whole(folder, capsys, patience):
    """SIGKILL while states are written after every update; what lies there then must load and go on."""
    options = ["--dataset", str(folder), *TINY, "--held_out", "0", "--save_every", "1", "--steps", "100000"]
    command = [sys.executable, "-m", "gpt2lab", "train", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        saved = 0
        while saved < 5:
            saved += process.stdout.readline().startswith("Saving")
        time.sleep(patience)
        process.kill()
    last = int(states(folder / "checkpoint" / "run1")[-1].name.removeprefix("state-"))
    assert last >= 5
    assert run(*options[:-1], str(last + 1)) == 0
    assert f"[{last + 1} | " in capsys.readouterr().out
