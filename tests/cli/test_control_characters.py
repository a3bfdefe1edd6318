"""Control characters in files and their names do not reach the terminal, whichever command reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.engines.packed_cache import Key
from gpt2lab.engines.packed_entries import write_entry
from gpt2lab.errors import CheckpointError, UsageError, escaped
from gpt2lab.weights import convert, open_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
ESCAPE = "\x1b[2J\x9b31m"


def printed(result) -> str:
    """Everything that a command printed; it has no control character but newlines and tabs."""
    text = result.stdout + result.stderr
    assert "Traceback" not in text
    assert escaped(text) == text
    return text


def test_only_control_characters_are_escaped() -> None:
    assert escaped("a\x1b[0m\r\x7f\x9b\u202e b\té\n日😀") == r"a\x1b[0m\r\x7f\x9b\u202e b" + "\té\n日😀"


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(UsageError("a\x1bb\nc")) == r"a\x1bb\nc"
    assert str(CheckpointError("é 日")) == "é 日"


def test_a_files_name(gpt2lab, tmp_path: Path) -> None:
    (tmp_path / f"{ESCAPE}.gguf").write_bytes(b"GGUF")
    assert r"\x1b[2J\x9b31m.gguf" in printed(gpt2lab("info", tmp_path / f"{ESCAPE}.gguf"))


@pytest.mark.parametrize("command", ["info", "score", "convert", "generate", "next"])
def test_the_name_of_a_tensor(gpt2lab, tmp_path: Path, command: str) -> None:
    convert(open_checkpoint(GOLDEN / "tiny"), tmp_path / "m")
    text = json.dumps({f"h.0{ESCAPE}": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "m" / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    more = {"score": ["hello", "--model"], "convert": [], "generate": ["a", "--model"], "next": ["a", "--model"]}
    out = [tmp_path / "out"] if command == "convert" else []
    result = gpt2lab(command, *more.get(command, []), tmp_path / "m", *out)
    assert result.exit_code == 2
    printed(result)


def test_a_text_in_a_models_description(gpt2lab, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": ESCAPE}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "model_type is '\\x1b[2J\\x9b31m'" in printed(gpt2lab("info", tmp_path))


def test_a_models_path_in_its_description(gpt2lab, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "tiny", tmp_path / ESCAPE)
    result = gpt2lab("info", tmp_path / ESCAPE)
    assert result.exit_code == 0
    assert r"\x1b[2J\x9b31m" in printed(result)


@pytest.mark.parametrize("command", ["inspect", "encode", "score"])
def test_columns_files_and_folders_of_a_dataset(gpt2lab, tmp_path: Path, command: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f"{ESCAPE}.csv").write_text(f"id,text\n1,some {ESCAPE} words\n2,more words\n")
    (tmp_path / "d" / f"x.{ESCAPE}").write_text("left out")
    out = [tmp_path / "out"] if command == "encode" else []
    result = gpt2lab(command, tmp_path / "d", *out)
    assert result.exit_code == 0
    assert r"\x1b[2J\x9b31m" in printed(result)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", f"a{ESCAPE},b\n1,2\n"), ("a.jsonl", json.dumps({ESCAPE: "x"}))]
)
def test_the_columns_and_fields_that_an_error_lists(gpt2lab, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    result = gpt2lab("inspect", tmp_path / name)
    assert result.exit_code == 2
    printed(result)


def test_a_settings_file(gpt2lab, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('"\\u001b[2J" = 1\n')
    result = gpt2lab("train", "--dataset", "x", "--config", tmp_path / "a.toml")
    assert result.exit_code == 2
    printed(result)


def test_the_cache(gpt2lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path))
    (tmp_path / "packed").mkdir()
    write_entry(tmp_path / "packed", Key("ab" * 32, "int8", 1, 1, {}), np.zeros(8192, np.uint8), f"/m{ESCAPE}")
    assert r"/m\x1b[2J\x9b31m" in printed(gpt2lab("cache"))
