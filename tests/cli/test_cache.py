"""``gpt2lab cache`` lists and removes the files kept between runs; ``info`` reports them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.data.fetched import write_record
from gpt2lab.engines import digests, loading
from gpt2lab.engines.packed_cache import Key
from gpt2lab.engines.packed_entries import write_entry

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path))
    return tmp_path / "packed"


@pytest.fixture
def two_entries(cache: Path) -> None:
    cache.mkdir()
    for model, precision, size in (("/models/124M", "int8", 1_995_904), ("/m", "int4", 995_904)):
        write_entry(cache, Key("ab" * 32, precision, 1, 1, {}), np.zeros(size, np.uint8), model)


def test_the_list_tells_models_precisions_sizes_and_the_sum(gpt2lab, cache: Path, two_entries) -> None:
    result = gpt2lab("cache")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert sorted(row[:5] for row in rows[:2]) == [
        ["/m", "int4", "1.0", "MB", "used"],
        ["/models/124M", "int8", "2.0", "MB", "used"],
    ]
    assert result.stdout.endswith(f"3.0 MB in {cache}\n")


def test_clear_removes_all_and_lists_it(gpt2lab, cache: Path, two_entries) -> None:
    names = {f"  {path}" for path in cache.iterdir()}
    summary, *listed = gpt2lab("cache", "clear").stdout.splitlines()
    assert summary == f"removed 3.0 MB from {cache}"
    assert set(listed) == names
    assert gpt2lab("cache").stdout == f"0.0 MB in {cache}\n"
    assert gpt2lab("cache", "clear").stdout == f"removed 0.0 MB from {cache}\n"


def test_an_entry_that_was_cut_is_told_from_good_ones(gpt2lab, cache: Path, two_entries) -> None:
    for path in cache.iterdir():
        if "int4" in path.name:
            os.truncate(path, 500_000)
    lines = {line.split()[0]: line for line in gpt2lab("cache").stdout.splitlines()[:2]}
    assert lines["/m"].endswith("0.5 MB  damaged, will be rebuilt")
    assert "  used 20" in lines["/models/124M"]


def test_clear_keeps_what_gpt2lab_did_not_make(gpt2lab, cache: Path, two_entries) -> None:
    books = [cache / "notes.txt", *(cache.with_name(name) / "novels" / "book.txt" for name in ("data", "datasets"))]
    for book in books:
        book.parent.mkdir(parents=True, exist_ok=True)
        book.write_text("x")
    kept = "kept 1 file in {}: in use, or not made by gpt2lab"
    assert gpt2lab("cache", "clear").stdout.splitlines()[-1] == kept.format(cache)
    cleared = gpt2lab("cache", "clear", "--data").stdout.splitlines()
    for name in ("data", "datasets"):
        assert kept.format(cache.with_name(name)) in cleared
    assert all(book.read_text() == "x" for book in books)


def test_fetched_data_is_listed_and_removed_only_when_asked_for(gpt2lab, cache: Path, two_entries) -> None:
    for name in ("data", "datasets"):
        folder = cache.with_name(name) / "some"
        folder.mkdir(parents=True)
        write_record(folder, {"text.txt": None})
        (folder / "text.txt").write_bytes(bytes(1_500_000))
    expected = [f"1.5 MB in {cache.with_name(name)}" for name in ("data", "datasets")]
    assert gpt2lab("cache").stdout.splitlines()[3:] == expected
    gpt2lab("cache", "clear")
    assert gpt2lab("cache").stdout.splitlines()[1:] == expected
    cleared = gpt2lab("cache", "clear", "--data").stdout
    data = cache.with_name("data")
    assert cleared.startswith(f"removed 1.5 MB from {data}\n  {data}/some/text.txt\n")
    assert not data.exists()
    assert gpt2lab("cache").stdout == f"0.0 MB in {cache}\n"


@pytest.mark.parametrize("value", ["off", "OFF", "none", "0"])
def test_a_cache_that_is_off_is_said_to_be(gpt2lab, monkeypatch, value: str) -> None:
    monkeypatch.setenv("GPT2LAB_CACHE", value)
    for arguments in (["cache"], ["cache", "clear"]):
        result = gpt2lab(*arguments)
        assert result.exit_code == 2
        assert result.stderr == f"gpt2lab: error: there is no cache: GPT2LAB_CACHE is {value}\n"
    assert f"cached          nothing: GPT2LAB_CACHE is {value}\n" in gpt2lab("info", TINY).stdout


def test_a_file_in_place_of_the_cache_is_told(gpt2lab, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path / "file"))
    result = gpt2lab("cache")
    assert result.exit_code == 2
    assert result.stderr == f"gpt2lab: error: there is no cache: {tmp_path / 'file'} is not a folder\n"
    assert f"nothing: {tmp_path / 'file'} is not a folder\n" in gpt2lab("info", TINY).stdout


def test_generate_fills_the_cache_and_info_shows_it(gpt2lab, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "LEAST_SIZE", 0)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    generate = ("generate", "A", "--model", TINY, "--length", 5, "--seed", 1)
    assert json.loads(gpt2lab("info", TINY, "--json").stdout)["cached"] == []
    first = gpt2lab(*generate).stdout
    facts = json.loads(gpt2lab("info", TINY, "--json").stdout)
    assert facts["cached"] == ["int8"]
    assert facts["packed_bytes"]["float32"] == facts["memory_bytes"]
    assert gpt2lab(*generate).stdout == first
    gpt2lab(*generate, "--precision", "int4")
    assert "cached          int8, int4" in gpt2lab("info", TINY).stdout
    assert len(gpt2lab("cache").stdout.splitlines()) == 3


def test_nothing_of_the_cache_is_said_on_the_way(gpt2lab, monkeypatch) -> None:
    assert gpt2lab("generate", "A", "--model", TINY, "--length", 1, "--seed", 1).stderr == "gpt2lab: seed 1\n"


def test_a_cache_that_cannot_be_used_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    code = f"""
from gpt2lab.cli.main import main
from gpt2lab.engines import loading
loading.LEAST_SIZE = 0
main(["generate", "A", "--model", {TINY!r}, "--length", "1", "--seed", "1"])
"""
    environment = {**os.environ, "GPT2LAB_CACHE": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    warning, seed = done.stderr.splitlines()
    assert warning.startswith("gpt2lab: packed weights cannot be stored in ")
    assert seed == "gpt2lab: seed 1"


@pytest.mark.parametrize(
    "header",
    [
        {"key": {"precision": {}}, "model": "/m", "size": 1, "checksum": 1},
        {"key": [], "model": "/m", "size": 1, "checksum": 1},
        {"key": {"precision": "int8"}, "model": {}, "size": 1, "checksum": 1},
        {"key": {"precision": "int8"}, "model": "/m", "size": "1", "checksum": 1},
        {"key": {"precision": "int8"}, "model": "/m", "size": 1e999, "checksum": {}},
        [],
    ],
)
def test_an_entry_whose_header_has_other_types_is_listed_as_unreadable(gpt2lab, cache: Path, header: object) -> None:
    cache.mkdir()
    content = (b"gpt2lab packed 2\n" + json.dumps(header).encode()).ljust(4096) + b"\0"
    (cache / f"{32 * '0'}-int8-1.1-1.packed").write_bytes(content)
    result = gpt2lab("cache")
    assert result.exit_code == 0
    assert "damaged, will be rebuilt" in result.stdout
