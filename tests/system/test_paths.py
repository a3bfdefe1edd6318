from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpt2lab.system.caches import cache_folder
from gpt2lab.system.paths import expanded, printable


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


def test_a_tilde_at_the_start_is_the_home_folder(tmp_path: Path) -> None:
    assert Path(expanded("~/x")) == tmp_path / "x"


@pytest.mark.parametrize("path", ["a/~", "~no-such-user-here/x", "~$draft.txt", "-", "s3://a/~"])
def test_other_tildes_stay(path: str) -> None:
    assert expanded(path) == path


@pytest.mark.parametrize(("platform", "variable"), [("win32", "LOCALAPPDATA"), ("linux", "XDG_CACHE_HOME")])
def test_the_systems_folder_of_caches_may_begin_with_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variable: str
) -> None:
    monkeypatch.delenv("GPT2LAB_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, "~/c")
    assert cache_folder("data") == tmp_path / "c" / "gpt2lab" / "data"


def test_the_folder_of_caches_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPT2LAB_CACHE", "~/c")
    assert cache_folder("data") == tmp_path / "c" / "data"


def test_bytes_that_are_not_utf8_become_escapes() -> None:
    name = os.fsdecode(b"caf\xe9") if sys.platform != "win32" else "caf\udce9"
    assert printable(name) in (r"caf\xe9", r"caf\xed\xb3\xa9")
    assert printable("café") == "café"
