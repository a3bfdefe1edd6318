"""``--device``: the devices of PyTorch, which are imported and looked for only when one is asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2lab as package
import needs
from gpt2lab.cli.job_options import JobOptions
from gpt2lab.cli.jobs import order_maker
from gpt2lab.engines import torch_devices
from gpt2lab.engines.precision import checked_device
from gpt2lab.errors import UsageError

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


@needs.mark("torch")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "int8"])
def test_pytorch_writes_the_same_text_at_any_batch_size(gpt2lab, precision) -> None:
    how = ["--device", "torch-cpu", "--precision", precision, "--model", TINY, "--seed", 1]
    runs = [
        gpt2lab("generate", "Once", "--nsamples", 5, "--length", 8, "--batch_size", size, *how) for size in (1, 2, 5)
    ]
    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout


@needs.mark("torch")
def test_pytorch_writes_the_native_engines_text_in_float32(gpt2lab) -> None:
    how = ["--length", 40, "--model", TINY, "--seed", 1, "--precision", "float32"]
    native, torch = (gpt2lab("generate", "Once", *how, "--device", device) for device in ("cpu", "torch-cpu"))
    assert native.exit_code == 0
    assert torch.stdout == native.stdout


@needs.mark("torch")
@pytest.mark.parametrize("command", [["score", "Once upon a time"], ["next", "Once upon"]])
def test_other_commands_compute_there_too(gpt2lab, command) -> None:
    native, torch = (gpt2lab(*command, "--model", TINY, "--device", device) for device in ("cpu", "torch-cpu"))
    assert native.exit_code == torch.exit_code == 0
    number = r"-?\d+\.\d+"
    assert re.sub(number, "", torch.stdout) == re.sub(number, "", native.stdout)
    found, expected = ([float(each) for each in re.findall(number, result.stdout)] for result in (torch, native))
    assert found == pytest.approx(expected, rel=1e-3)


@needs.mark("torch")
@pytest.mark.parametrize("command", ["generate", "score", "next", "interactive", "serve", "train"])
def test_a_gpu_that_is_not_there_is_a_users_error(gpt2lab, monkeypatch, command) -> None:
    monkeypatch.setattr(torch_devices, "_gpus", lambda: ["cuda"])
    if command == "serve":
        needs.check("uvicorn")
    text = {"interactive": [], "serve": [], "train": ["--dataset", __file__]}.get(command, ["x"])
    result = gpt2lab(command, *text, "--device", "mps", input="")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "gpt2lab: error: device mps is not available: PyTorch finds no such GPU; choose cpu or auto\n"
    )


@pytest.mark.parametrize("name", ["cuda", "mps", "torch-cpu"])
def test_without_pytorch_the_extra_is_named(monkeypatch, name) -> None:
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"^device {name} needs PyTorch: pip install 'gpt2lab\[gpu\]'$"):
        package.load(TINY, device=name)


@pytest.mark.parametrize(("gpus", "chosen"), [(["cuda", "mps"], "cuda"), (["mps"], "mps"), ([], "cpu")])
def test_auto_is_the_gpu_that_is_there(monkeypatch, gpus, chosen) -> None:
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: True)
    monkeypatch.setattr(torch_devices, "_gpus", lambda: gpus)
    assert checked_device("auto") == chosen


def test_a_pytorch_that_cannot_be_imported_is_a_users_error(monkeypatch) -> None:
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"^PyTorch cannot be imported: "):
        checked_device("auto")


def test_a_job_names_the_device_that_auto_is_where_it_begins(monkeypatch) -> None:
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: None)
    arguments = {"name_or_path": TINY, "device": "auto", "draft": None, "threads": 1}
    order_of = order_maker(arguments, {"seed": 1}, 1, False, JobOptions(1, False, False, None, None))
    order = order_of(package.load(TINY, device="auto"), None)
    assert order.model["device"] == "cpu"  # a worker that has a GPU must not use it


def test_auto_is_the_native_engine_without_pytorch(monkeypatch) -> None:
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: None)
    assert package.load(TINY, device="auto").device == "cpu"


@needs.mark("torch")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"precision": "int4"},
            "precision 'int4' is not available on device torch-cpu: choose one of float32, bfloat16",
        ),
        ({"kv_precision": "int8"}, "kv_precision 'int8' is not available on device torch-cpu: choose one of float32"),
    ],
)
def test_precisions_that_pytorchs_engine_lacks_are_refused(how, message) -> None:
    with pytest.raises(UsageError, match=message):
        package.load(TINY, device="torch-cpu", **how)


def test_the_native_engine_has_no_float16(gpt2lab) -> None:
    result = gpt2lab("generate", "x", "--model", TINY, "--precision", "float16")
    assert result.exit_code == 2
    assert "precision 'float16' is not available: choose one of float32, bfloat16, int8, int4" in result.stderr


@needs.mark("torch")
def test_looking_inside_is_refused(gpt2lab) -> None:
    model = package.load(TINY, device="torch-cpu")
    with pytest.raises(UsageError, match="cannot look inside the model"):
        model.trace("Once")
    with pytest.raises(UsageError, match="cannot look inside the model"):
        model.generate("Once", length=3, add={0: [1.0] * model.config.n_embd})


@needs.mark("torch")
def test_pytorch_is_not_imported_for_the_native_engine() -> None:
    code = f"import sys, gpt2lab; gpt2lab.load({TINY!r}).generate('a', length=2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs.mark("torch")
def test_a_saved_prompt_of_another_device_is_refused(gpt2lab, tmp_path) -> None:
    how = ["generate", "Once upon", "--length", 3, "--model", TINY, "--seed", 1, "--precision", "float32"]
    saved = tmp_path / "prompt.safetensors"
    assert gpt2lab(*how, "--device", "torch-cpu", "--save_prompt", saved).exit_code == 0
    result = gpt2lab(*how, "--load_prompt", saved)
    assert result.exit_code == 2
    assert "PyTorch" in result.stderr
