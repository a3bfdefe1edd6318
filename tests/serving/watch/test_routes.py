"""``/watch`` over HTTP: the page, its events, samples; keys, limits, the end of the server."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from gpt2lab.serving.settings import Settings
from gpt2lab.serving.watch import routes
from gpt2lab.serving.watch.run import open_runs

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(routes, "REST_SECONDS", 0.01)


@pytest.fixture
def folder(run_folder):
    return run_folder


@pytest.fixture
def watched(start, folder):
    """Provide a server that watches the run in ``folder``."""
    return start(runs=open_runs([str(folder.path)]))


@contextmanager
def events(server, **headers):
    """Yield ``(event, data)``."""
    with server.http.stream("GET", "/watch/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        def pairs():
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line:
                    yield name, json.loads(line.removeprefix("data: "))

        yield pairs()


def status_of_events(server):
    with server.http.stream("GET", "/watch/events") as answer:
        time.sleep(0.01)
        return answer.status_code


def until(pairs, condition):
    """Return the first data of a run for which ``condition`` holds."""
    return next(data for name, data in pairs if name == "run" and condition(data))


def test_a_run_is_seen_from_before_it_begins_to_its_end(watched, folder):
    with events(watched) as pairs:
        name, data = next(pairs)
        assert (name, data["runs"]) == ("runs", ["run1"])
        assert until(pairs, lambda data: True)["state"] == "waiting"
        folder.settings(steps=2)
        until(pairs, lambda data: data.get("state") == "starting" and data["last_step"] == 2)
        folder.update(1, 3.0)
        news = until(pairs, lambda data: "updates" in data)
        assert (news["state"], news["updates"]) == (
            "running", {"from": 0, "rows": [[1, 1, 1, 1, 3.0, 3.0, 3.0, 0.001, 100.0]]},
        )  # fmt: skip
        folder.sample(1, "<b>Once</b>")
        assert until(pairs, lambda data: "samples" in data)["samples"][0][0] == 1
        folder.update(2)
        folder.validation(2, 1.5)
        news = until(pairs, lambda data: data.get("state") == "finished")
        assert news["validations"]["rows"][0][4] == 1.5
    answer = watched.http.get("/watch/samples", params={"run": "run1", "step": 1})
    assert answer.json() == {"run": "run1", "step": 1, "texts": ["<b>Once</b>"], "cut": False}
    assert answer.headers["content-type"] == "application/json"


def test_who_comes_back_is_told_all_of_it(watched, folder):
    for step in range(1, 4):
        folder.update(step)
    for _ in range(2):
        with events(watched) as pairs:
            news = until(pairs, lambda data: "updates" in data)
            assert [row[0] for row in news["updates"]["rows"]] == [1, 2, 3]
            assert news["updates"]["from"] == 0


def test_nobody_looks_when_nobody_watches(watched, folder, monkeypatch):
    looks = threading.Semaphore(0)
    run = watched.service.runs[0]
    look = run.look
    monkeypatch.setattr(run, "look", lambda: (looks.release(), look())[1])
    assert not looks.acquire(timeout=0.1)
    with events(watched) as pairs:
        until(pairs, lambda data: True)
        assert all(looks.acquire(timeout=5) for _ in range(3))
    while looks.acquire(timeout=0.3):  # until it ends
        pass


def test_a_beat_tells_that_the_connection_lives(watched, monkeypatch):
    monkeypatch.setattr(routes, "BEAT_SECONDS", 0.05)
    with events(watched) as pairs:
        assert next(data for name, data in pairs if name == "beat")["now"] > 1e9


def test_a_look_that_fails_ends_nothing(watched, folder, monkeypatch, caplog):
    run = watched.service.runs[0]
    look, failures = run.look, iter([True] * 3)

    def failing():
        if next(failures, False):
            raise RuntimeError("a bug")
        return look()

    monkeypatch.setattr(run, "look", failing)
    folder.update(1)
    with events(watched) as pairs:
        assert until(pairs, lambda data: data.get("step"))["step"] == 1
    assert "watching run1" in caplog.text


def test_without_runs_the_page_is_there_and_says_so(api):
    assert api.http.get("/watch").status_code == 200
    with events(api) as pairs:
        assert next(pairs)[1]["runs"] == []


def test_the_page_keeps_to_its_origin(api):
    answer = api.http.get("/watch")
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert "<style" not in answer.text and "onclick" not in answer.text and "http" not in answer.text
    assert api.http.get("/watch", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_data_ask_for_the_key_and_the_page_does_not(start, folder):
    server = start(Settings(api_keys=("secret",)), runs=open_runs([str(folder.path)]))
    folder.sample(1, "text")
    assert server.http.get("/watch").status_code == 200
    assert server.http.get("/watch/events").status_code == 401
    assert server.http.get("/watch/samples?run=run1&step=1").status_code == 401
    assert server.http.get("/watch/samples?run=run1&step=1", headers=KEY).json()["texts"] == ["text"]
    with events(server, **KEY) as pairs:
        assert until(pairs, lambda data: True)["run"] == "run1"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("run=run2&step=1", 404, "this server does not watch a run 'run2'"),
        ("run=../run1&step=1", 404, "this server does not watch a run '../run1'"),
        ("run=run1&step=1", 404, "run1 has no samples of step 1"),
        ("run=run1&step=-1", 404, "run1 has no samples of step -1"),
        ("run=run1&step=" + "9" * 400, 404, "run1 has no samples"),
        ("run=run1&step=1/../../x", 400, "step"),
        ("run=run1", 400, "step is missing"),
        ("step=1", 400, "run is missing"),
    ],
)
def test_samples_that_are_not_there_are_refused_in_words(watched, query, status, message):
    answer = watched.http.get(f"/watch/samples?{query}")
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_there_is_a_limit_to_those_who_watch(watched, monkeypatch):
    monkeypatch.setattr(routes, "MOST_WATCHERS", 1)
    with events(watched) as pairs:
        next(pairs)
        answer = watched.http.get("/watch/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert any(status_of_events(watched) == 200 for _ in range(500))  # once the other client has left


def test_events_end_when_the_server_is_stopped(watched):
    with events(watched) as pairs:
        next(pairs)
        watched.service.draining = True
        for _ in pairs:
            pass
    assert watched.http.get("/watch/events").status_code == 503


def test_the_commands_runs_are_watched_and_their_models_served(run_folders, tmp_path, monkeypatch, capsys):
    from gpt2lab.cli.main import main
    from gpt2lab.errors import CheckpointError
    from gpt2lab.serving import server

    served = []

    def load(name, **_):
        if name.endswith("run3"):
            raise CheckpointError("it is damaged")
        return name

    monkeypatch.setattr(server, "serve", lambda models, _, __, runs: served.append((models, runs)))
    monkeypatch.setattr("gpt2lab.model.load", load)
    monkeypatch.setattr("gpt2lab.cli.serve._log", lambda _: None)  # its handler would outlive the test
    runs = [run_folders(tmp_path, name).path for name in ("run1", "run2", "run3")]
    for run in runs[1:]:
        run.mkdir(parents=True)
        (run / "model.safetensors").touch()
    watch = ["serve", "--port", "0", *(argument for run in runs for argument in ("--watch", str(run)))]
    for arguments in (watch, [*watch, "--model_name", "124M"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
    (models, watched), (named, _) = served
    assert [run.name for run in watched] == ["run1", "run2", "run3"]
    assert models == [("run2", str(runs[1])), ("tales", "tales")]
    assert named == [("124M", "124M")]
    assert "gpt2lab: the model of run3 is not served: it is damaged\n" in capsys.readouterr().err


def test_watching_counts_in_the_metrics_by_its_routes(watched):
    with events(watched) as pairs:
        next(pairs)
    watched.http.get("/watch")
    assert status_of_events(watched) == 200
    text = httpx.get(f"{watched.url}/metrics").text
    assert 'route="/watch"' in text and 'route="/watch/events"' in text
    assert "gpt2lab_disconnects_total 0.0" in text  # closing the page is no disconnect
