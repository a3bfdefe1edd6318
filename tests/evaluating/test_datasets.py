"""Data sets fetched from a local server that answers as the web's do, kept, and not fetched again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from http_server import hub_headers
from huggingface_hub import constants

from gpt2lab.errors import DownloadError, UsageError
from gpt2lab.evaluating import datasets
from gpt2lab.evaluating.datasets import DATASETS, Place, find_data

PASSAGE = b'{"text": "one two three"}\n'


@pytest.fixture
def places(monkeypatch):
    """Provide ``places(task, *places)``, which moves a data set."""

    def put(task, *where):
        monkeypatch.setitem(DATASETS, task, replace(DATASETS[task], places=where))

    return put


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """Provide a server that answers like the Hugging Face hub; the environment variable is read only at import."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    path = "/datasets/somebody/lambada/resolve/main/data/lambada_test.jsonl"
    server.files[path] = PASSAGE
    server.headers[path] = hub_headers(PASSAGE, large=False)
    server.headers["404"] = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "c" * 40}
    return server


def test_a_data_set_is_fetched_once_and_said(server, places, tmp_path):
    server.files["/data/lambada_test.jsonl"] = PASSAGE
    places("lambada", Place(f"{server.url}/data/lambada_test.jsonl"))
    said, shown = [], []
    source = find_data("lambada", None, said.append, lambda name: lambda done, total: shown.append((name, done, total)))
    assert list(source.lines()) == [PASSAGE]
    assert tmp_path / "cache" / "datasets" in source.path.parents
    assert said == [
        f"lambada_test.jsonl: {len(PASSAGE)} bytes from {server.url}/data/lambada_test.jsonl, "
        f"stored in {source.path.parent}"
    ]
    assert shown[-1] == ("lambada_test.jsonl", len(PASSAGE), len(PASSAGE))
    server.requests.clear()
    assert find_data("lambada", None, said.append) == source
    assert server.requests == [] and len(said) == 1


def test_the_hub_is_another_place(hub, places, tmp_path):
    places("lambada", Place(f"{hub.url}/gone"), Place("data/lambada_test.jsonl", "somebody/lambada"))
    said = []
    source = find_data("lambada", None, said.append)
    assert list(source.lines()) == [PASSAGE]
    assert tmp_path / "hub" in source.path.parents
    assert "somebody/lambada on the Hugging Face hub" in said[0]
    hub.requests.clear()
    assert find_data("lambada", None) == source
    assert [path for _, path, _ in hub.requests if path != "/gone"] == []


def test_an_address_may_be_given(server):
    server.files["/mirror/my_val.jsonl"] = PASSAGE
    source = find_data("hellaswag", f"{server.url}/mirror/my_val.jsonl")
    assert list(source.lines()) == [PASSAGE]


def test_offline_says_where_to_get_it_and_to_pass_it(places):
    places("lambada", Place("http://127.0.0.1:9/lambada_test.jsonl"), Place("data/x.jsonl", "somebody/lambada"))
    with pytest.raises(DownloadError) as caught:
        find_data("lambada", None)
    message = str(caught.value)
    assert "\n" not in message
    assert (
        "get http://127.0.0.1:9/lambada_test.jsonl or data/x.jsonl of somebody/lambada on the Hugging Face" in message
    )
    assert message.endswith("and give the file with --data")


def test_a_page_in_place_of_a_file_is_not_kept(server, places, tmp_path):
    server.files["/data/lambada_test.jsonl"] = b"<!doctype html><title>Sign in</title>"
    places("lambada", Place(f"{server.url}/data/lambada_test.jsonl"))
    with pytest.raises(DownloadError, match="sent a web page"):
        find_data("lambada", None)
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_without_a_cache_nothing_is_fetched(server, places, monkeypatch):
    monkeypatch.setenv("GPT2LAB_CACHE", "off")
    places("lambada", Place(f"{server.url}/data/lambada_test.jsonl"))
    with pytest.raises(DownloadError, match=r"there is no cache for .*: set GPT2LAB_CACHE"):
        find_data("lambada", None)


def test_parquet_is_not_fetched_where_it_cannot_be_read(server, places, monkeypatch):
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    places("wikitext103", Place(f"{server.url}/x.parquet"), Place(f"{server.url}/gone.zip"))
    with pytest.raises(DownloadError, match=r"gone\.zip.*install pyarrow to read .*x\.parquet, or get "):
        find_data("wikitext103", None)
    assert {path for _, path, _ in server.requests} == {"/gone.zip"}


def test_one_file_of_several_must_be_given(tmp_path):
    for name in ("a_val.jsonl", "b_val.jsonl"):
        (tmp_path / name).write_bytes(PASSAGE)
    with pytest.raises(UsageError, match="contains several matching files"):
        find_data("hellaswag", str(tmp_path))


@pytest.mark.parametrize("task", ["cbt-cn", "cbt-ne", "lambada", "hellaswag", "wikitext2", "wikitext103"])
def test_every_data_set_is_found_in_a_folder_under_its_own_name(task, data: Path):
    names = {"cbt-cn": "cbtest_CN", "cbt-ne": "cbtest_NE", "lambada": "lambada_test.jsonl", "hellaswag": "hellaswag"}
    assert find_data(task, str(data)).member is None
    assert find_data(task, str(data)).path.name.startswith(names.get(task, "wiki.test"))
