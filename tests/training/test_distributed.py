"""Several processes are one: the same losses, one message, one state to continue from. They run ``several.py``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training.distributed import World, use_threads
from gpt2lab.training.module import GPT2

pytestmark = needs.mark("torch.distributed")

SCRIPT = Path(__file__).with_name("several.py")
TOLERANCE = 1e-5

SWITCHES = {"tie_word_embeddings": False, "activation": "gelu", "n_inner": 24, "scale_attn_by_inverse_layer_idx": True}
CASES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel": "fsdp"},
    "layers recomputed, ddp": {"memory_saving_gradients": True},
    "layers recomputed, fsdp": {"memory_saving_gradients": True, "parallel": "fsdp"},
    "lora, ddp": {"lora": 2},
    "lora, fsdp": {"lora": 2, "parallel": "fsdp"},
    "only the layers, ddp": {"only_train_transformer_layers": True},
    "only the layers, fsdp": {"only_train_transformer_layers": True, "parallel": "fsdp"},
    "noise, ddp": {"noise": 0.2},
    "a narrow beginning, fsdp": {"narrow_steps": 5, "parallel": "fsdp"},
    "one micro-batch, fsdp": {"batch_size": 8, "accumulate_gradients": 1, "parallel": "fsdp"},
    "sgd, fsdp": {"optimizer": "sgd", "parallel": "fsdp"},
    "a head of its own, ddp": {"switches": SWITCHES},
    "a head of its own, fsdp": {"switches": SWITCHES, "parallel": "fsdp", "narrow_steps": 5},
}


@pytest.fixture(scope="module")
def several() -> ModuleType:
    spec = importlib.util.spec_from_file_location("several", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torchrun(size: int, out: Path, cases: dict[str, Any], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the cases in ``size`` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *flags]
    with subprocess.Popen(
        [*command, str(SCRIPT), str(out), json.dumps(cases)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=250)
        except BaseException:
            process.terminate()  # torchrun ends its workers, which a kill would leave behind
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def result(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["losses"] == pytest.approx(one["losses"], abs=TOLERANCE)
    assert other["validations"] == pytest.approx(one["validations"], abs=TOLERANCE)


def messages(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("gpt2lab:")]


@pytest.fixture(scope="module")
def alone(several: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return the result of a case in this process."""
    out = tmp_path_factory.mktemp("alone")

    def of(name: str) -> dict[str, Any]:
        if not (out / f"{name}.json").exists():
            several.main(out, {name: CASES[name]})
        return result(out, name)

    return of


def test_two_processes_train_as_one(alone, tmp_path):
    cases = {name: CASES[name] for name in ("ddp", "fsdp")}
    run = torchrun(2, tmp_path, cases)
    assert run.returncode == 0, run.stderr
    for name in cases:
        assert_same(alone(name), result(tmp_path, name))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_any_number_of_processes_trains_as_one_in_every_way(size, alone, tmp_path):
    run = torchrun(size, tmp_path, CASES)
    assert run.returncode == 0, run.stderr
    for name in CASES:
        assert_same(alone(name), result(tmp_path, name))


@pytest.mark.slow
def test_muon_rounds_more_but_trains_as_one(several, tmp_path):
    case = {"muon": {"optimizer": "muon", "parallel": "fsdp"}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    several.main(tmp_path / "one", case)
    assert torchrun(2, tmp_path / "two", case).returncode == 0
    one, two = result(tmp_path / "one", "muon"), result(tmp_path / "two", "muon")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-3)  # it multiplies matrices in bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_a_run_goes_on_with_another_number_of_processes_and_another_way(first, then, alone, tmp_path):
    begun = {"begun": {"parallel": first, "save_every": 10, "steps": 20, "stop_after": 10}}
    run = torchrun(2, tmp_path, begun)
    assert run.returncode == 0, run.stderr
    rest = {"rest": {"parallel": then, "restore": str(tmp_path / "begun" / "state-0000010")}}
    run = torchrun(4, tmp_path, rest)
    assert run.returncode == 0, run.stderr
    joined = result(tmp_path, "begun")["losses"] + result(tmp_path, "rest")["losses"]
    assert joined == pytest.approx(alone("ddp")["losses"], abs=TOLERANCE)


@pytest.mark.slow
def test_a_sharded_run_goes_on_in_one_process(several, alone, tmp_path):
    begun = {"begun": {"parallel": "fsdp", "save_every": 10, "stop_after": 10}}
    run = torchrun(2, tmp_path, begun)
    assert run.returncode == 0, run.stderr
    several.main(tmp_path, {"rest": {"restore": str(tmp_path / "begun" / "state-0000010")}})
    assert result(tmp_path, "rest")["losses"] == pytest.approx(alone("ddp")["losses"][10:], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1, "all"])
def test_a_mistake_is_told_once_and_ends_everybody(who, tmp_path):
    run = torchrun(2, tmp_path, {"case": {"fail_on": who, "parallel": "fsdp"}})
    assert run.returncode != 0
    assert messages(run.stderr) == [f"gpt2lab: error: bad on {who}"]
    assert 'several.py", line' not in run.stderr  # no traceback of ours
    assert "exitcode  : 2" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_records_that_cannot_be_written_end_all_after_the_same_update_and_the_state_is_saved(tmp_path, parallel):
    run = torchrun(2, tmp_path, {"case": {"unreported": 3, "parallel": parallel}})
    assert run.returncode != 0
    saved = tmp_path / "case" / "state-0000003"
    what = f"cannot write metrics; {saved} holds the run so far: run the same command again to resume"
    assert messages(run.stderr) == [f"gpt2lab: error: {what}"]
    assert (saved / "progress.json").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_the_same_update_and_saves(alone, tmp_path):
    run = torchrun(2, tmp_path, {"case": {"signal_on": 1}})
    assert run.returncode == 0, run.stderr
    made = result(tmp_path, "case")
    assert (made["ended"], made["step"]) == ("interrupted", 3)
    assert made["losses"] == pytest.approx(alone("ddp")["losses"][:3], abs=TOLERANCE)
    assert (tmp_path / "case" / "state-0000003" / "progress.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_torchrun_restarts_after_a_kill_and_the_run_ends_as_if_nothing_had_happened(killed, alone, tmp_path):
    case = {"case": {"kill_on": killed, "save_every": 1, "restore": "latest", "parallel": "fsdp"}}
    run = torchrun(2, tmp_path, case, "--max-restarts=2")
    assert run.returncode == 0, run.stderr
    assert len(messages(run.stderr)) <= 1  # torchrun may end the other before it notices
    made, expected = result(tmp_path, "case"), alone("fsdp")
    assert made["losses"] == pytest.approx(expected["losses"][2:], abs=TOLERANCE)
    assert made["validations"][-1] == pytest.approx(expected["validations"][-1], abs=TOLERANCE)


# One process


def test_without_torchrun_the_world_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with World.start() as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert world.sum(2.5) == 2.5
        assert world.any(True) and not world.any(False)
        assert world.broadcast("x") == "x"


def test_a_number_of_windows_that_cannot_be_shared_is_told():
    assert World(size=4).share(8) == 2
    with pytest.raises(UsageError, match=r"6 windows per update .* 4 processes: choose a multiple of 4"):
        World(size=4).share(6)


def test_others_that_cannot_be_met_are_told(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(UsageError, match=r"process 0 of 2 cannot reach the others .*MASTER_PORT.*torchrun"):
        World.start()


def test_fsdp_says_when_pytorch_is_too_old(monkeypatch):
    monkeypatch.delattr("torch.distributed.fsdp.fully_shard", raising=False)
    model = GPT2(ModelConfig(n_vocab=8, n_ctx=4, n_embd=4, n_head=2, n_layer=1))
    with pytest.raises(UsageError, match="fsdp needs a newer PyTorch"):
        World(size=2).wrap(model, "fsdp")


def test_clipping_scales_gradients_to_the_norm_and_tells_what_it_was():
    parameter = torch.nn.Linear(2, 1, bias=False)
    parameter.weight.grad = torch.tensor([[3.0, 4.0]])
    assert World().clip(parameter, 1.0) == pytest.approx(5.0)
    assert parameter.weight.grad.norm().item() == pytest.approx(1.0, rel=1e-5)


def test_a_smaller_gradient_stays_as_it_is():
    parameter = torch.nn.Linear(2, 1, bias=False)
    parameter.weight.grad = torch.tensor([[0.3, 0.4]])
    World().clip(parameter, 1.0)
    assert parameter.weight.grad.tolist() == [[pytest.approx(0.3), pytest.approx(0.4)]]


@pytest.mark.parametrize(
    ("given", "processes", "used"),
    [(None, None, []), (None, "1", []), (None, "3", [2]), (None, "100", [1]), (5, "3", [5])],
)
def test_processes_on_a_machine_share_its_processors(given, processes, used, monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("gpt2lab.training.distributed.logical_cores", lambda: 7)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    use_threads(given)
    assert chosen == used


@pytest.mark.parametrize(("granted", "wish", "used"), [(2, None, [2]), (64, None, []), (128, None, []), (2, "64", [])])
def test_a_process_that_is_alone_takes_no_more_than_its_container_grants(granted, wish, used, monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr("gpt2lab.training.distributed.logical_cores", lambda: granted)
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if wish is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    use_threads(None)
    assert chosen == used
