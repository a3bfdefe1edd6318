"""Reading run folders while they are written, replaced, or missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import tracemalloc

import pytest

import needs
import permissions
from gpt2lab.cli.serve import tell_served
from gpt2lab.errors import UsageError
from gpt2lab.serving.watch import files
from gpt2lab.serving.watch import run as run_module
from gpt2lab.serving.watch.curve import Curve, Seen
from gpt2lab.serving.watch.files import list_samples, read_samples
from gpt2lab.serving.watch.run import Cursor, Run, open_runs
from gpt2lab.system.locks import Hold, is_held


@pytest.fixture
def folder(run_folder):
    return run_folder


@pytest.fixture
def run(folder):
    return Run(folder.path, "run1")


def look(run, cursor=None):
    while run.look():
        pass
    return run.news(cursor or Cursor())


def steps(news, kind="updates"):
    return [row[0] for row in news[kind]["rows"]]


# ---- a run from its beginning to its end -----------------------------------------------------------------------------


def test_a_run_that_is_not_there_is_waited_for(run, folder):
    assert look(run)["state"] == "waiting"
    folder.settings(steps=10)
    news = look(run)
    assert (news["state"], news["step"], news["last_step"]) == ("starting", None, 10)
    folder.update(1)
    assert (look(run)["state"], look(run)["step"]) == ("running", 1)


def test_news_are_what_is_not_known_yet(run, folder):
    for step in range(1, 6):
        folder.update(step)
    folder.record(**{"step": 5, "seconds": 3, "val_loss": 2.5})
    cursor = Cursor()
    first = look(run, cursor)
    assert steps(first) == [1, 2, 3, 4, 5]
    assert first["updates"]["rows"][0] == [1, 1, 1, 1, 2.0, 2.0, 2.0, 0.001, 100.0]
    assert first["validation"] == first["best"] == {"step": 5, "loss": 2.5}
    assert look(run, cursor) is None
    folder.update(6, 1.5)
    news = look(run, cursor)
    assert news["updates"]["from"] == 4 and steps(news) == [5, 6]
    assert (news["step"], news["loss"]) == (6, 1.5)
    assert "validations" not in news and "best" not in news and "settings" not in news


def test_the_end_is_told_by_the_steps_and_by_who_holds_the_folder(run, folder):
    folder.settings(steps=20, stop_after=12)
    folder.update(11)
    assert look(run)["last_step"] == 12
    with Hold() as hold:
        hold.take(folder.path)
        assert look(run)["state"] == "running"
        folder.update(12)
        if is_held(folder.path) is not None:
            assert look(run)["state"] == "running"  # there are samples to write and a state to save
    assert look(run)["state"] == "finished"


@needs.mark("Linux")
def test_a_run_whose_process_is_gone_has_stopped(run, folder):
    folder.settings(steps=20)
    folder.update(1)
    assert is_held(folder.path) is False
    with Hold() as hold:
        hold.take(folder.path)
        assert is_held(folder.path) is True
        assert look(run)["state"] == "running"
    assert look(run)["state"] == "stopped"


def test_a_run_that_has_not_been_heard_of_for_long_is_quiet(run, folder):
    folder.update(1)
    folder.update(2, seconds=100.5)  # a hundred seconds each
    file = folder.metrics
    for ago, state in ((1900, "running"), (2100, "quiet")):
        os.utime(file, (time.time() - ago,) * 2)
        assert look(run)["state"] == state


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("finished", "finished"), ("no better", "finished"), ("interrupted", "stopped"), ("diverged", "diverged"),
        ("failed", "failed"),
    ],
)  # fmt: skip
def test_the_end_is_what_the_trainer_wrote(run, folder, outcome, state):
    folder.settings(steps=20)
    folder.update(3)
    folder.ended(outcome, 3, "a reason")
    os.utime(folder.metrics, (time.time() - 10_000,) * 2)  # it would be quiet
    assert (look(run)["state"], look(run)["reason"]) == (state, "a reason")


def test_a_run_that_diverged_at_its_first_update_has_ended(run, folder):
    folder.settings(steps=20)
    folder.ended("diverged", 0, "the loss is nan at update 1")
    assert look(run)["state"] == "diverged"


def test_a_run_that_went_on_has_not_ended(run, folder):
    folder.settings(steps=20)
    folder.update(3)
    folder.ended("interrupted", 3, "Ctrl-C")
    assert look(run)["state"] == "stopped"
    with Hold() as hold:
        hold.take(folder.path)
        if is_held(folder.path) is not None:
            assert (look(run)["state"], look(run)["reason"]) == ("running", None)
    folder.update(4)  # by a version that leaves the record where it is
    assert (look(run)["state"], look(run)["reason"]) == (
        "stopped" if is_held(folder.path) is False else "running",
        None,
    )


@pytest.mark.parametrize(
    "record",
    ["{", "[]", "{}", '{"outcome": "finished"}', '{"outcome": [], "step": 3, "reason": "x"}',
     '{"outcome": "finished", "step": true, "reason": "x"}', '{"outcome": "finished", "step": 3, "reason": 7}'],
)  # fmt: skip
def test_a_record_of_the_end_that_is_none_is_left_out(run, folder, record):
    folder.update(3)
    (folder.path / "ended.json").write_text(record)
    assert (look(run)["state"], look(run)["reason"]) == ("running", None)


def test_a_reason_is_short_and_without_control_characters(run, folder):
    folder.update(3)
    folder.ended("failed", 3, "\x1b[31m" + "x" * 9999)
    assert look(run)["reason"] == "\\x1b[31m" + "x" * 492


@pytest.mark.parametrize(
    ("text", "size"), [('{"vocab_size": 50257}', 50257), ('{"vocab_size": "many"}', None), ("{", None)]
)
def test_the_size_of_the_vocabulary_is_that_of_the_model(run, folder, text, size):
    folder.update(1)
    (folder.path / "config.json").write_text(text)
    assert look(run)["vocabulary"] == size


def test_the_served_model_is_told_with_its_base(folder):
    folder.settings(model_name="models/124M")
    (folder.path / "model.safetensors").write_text("1")
    run = Run(folder.path, "run1")
    assert look(run)["served"] is None
    run.serve("run1", ["run1", "124M"])
    assert look(run)["served"] == {"model": "run1", "newer": False, "base": "124M"}
    (folder.path / "model.safetensors").write_text("12")
    assert look(run)["served"]["newer"] is True
    run.serve("run1", ["run1", "tales"])
    assert look(run)["served"]["base"] is None


@pytest.mark.parametrize(
    ("model_names", "expected"),
    [((), "run1"), (("tales",), None), (("tales", "checkpoint/run1"), "run1")],
)
def test_the_server_serves_a_runs_model_by_default_or_if_it_is_named(
    folder, tmp_path, monkeypatch, model_names, expected
):
    monkeypatch.chdir(tmp_path)
    folder.settings(model_name="tales")
    (folder.path / "model.safetensors").write_text("1")
    [run] = open_runs(["checkpoint/run1"])
    served = [name.rpartition("/")[2] for name in model_names] or ["run1", "tales"]
    tell_served([run], model_names, served)
    told = look(run)["served"]
    assert (told and told["model"]) == expected


def test_a_run_without_a_model_is_not_served(folder):
    folder.settings(model_name="tales")
    [run] = open_runs([str(folder.path)])
    tell_served([run], (), ["tales"])
    assert look(run)["served"] is None


def test_a_run_from_random_weights_has_no_base(run, folder):
    folder.settings(model_name="tales", config={"n_vocab": 50257})
    run.serve("run1", ["run1", "tales"])
    news = look(run)
    assert news["served"]["base"] is None and "model_name" not in news["settings"]


def test_when_it_will_end_follows_from_the_pace_of_late(run, folder, monkeypatch):
    monkeypatch.setattr(run_module, "RECENT", 4)
    folder.settings(steps=100)
    run = Run(folder.path, "run1")
    seconds = [10, 20, 21, 22, 23, 24]  # the first ones were slow
    for step, second in enumerate(seconds, start=1):
        folder.update(step, seconds=second)
    news = look(run)
    assert news["ends_at"] - news["changed_at"] == pytest.approx(94, abs=0.1)
    assert news["tokens_per_second"] == 100.0


def test_records_of_another_program_lack_what_they_lack(run, folder):
    folder.record(step=1, loss=3.0)
    folder.record(step=2, loss=2.0)
    news = look(run)
    assert news["updates"]["rows"][1] == [2, 2, 1, 2, 2.0, 2.0, 2.0, None, None]
    assert (news["learning_rate"], news["ends_at"], news["memory"]) == (None, None, None)
    json.dumps(news, allow_nan=False)


# ---- files that change while they are read ---------------------------------------------------------------------------


def test_a_half_written_line_waits_for_its_end(run, folder):
    folder.update(1)
    line = '{"step": 2, "loss": 1.0}\n'
    for part in (line[:9], line[9:-1]):
        with folder.metrics.open("a") as file:
            file.write(part)
        assert look(run)["step"] == 1
    with folder.metrics.open("a") as file:
        file.write("\n")
    assert look(run)["step"] == 2
    assert look(run)["unread"] == 0


def test_a_resumed_run_whose_file_was_cut_back_is_read_anew(run, folder):
    for step in range(1, 9):
        folder.update(step)
    folder.validation(8, 1.0)
    cursor = Cursor()
    look(run, cursor)
    partial = folder.path / ".metrics.jsonl.12345678.partial"
    partial.write_text("".join(folder.metrics.read_text().splitlines(keepends=True)[:3]))
    partial.replace(folder.metrics)
    news = look(run, cursor)
    assert (news["updates"]["from"], steps(news)) == (0, [1, 2, 3])
    assert news["validations"] == {"from": 0, "rows": []} and news["best"] is None


@pytest.mark.parametrize("longer", [False, True])
def test_a_file_that_is_written_over_is_read_anew(run, folder, longer):
    for step in range(1, 9):
        folder.update(step)
    look(run)
    with folder.metrics.open("r+") as file:  # which keeps its inode
        file.truncate()
    for step in range(1, 20 if longer else 3):
        folder.update(step, 5.0)
    news = look(run)
    assert steps(news) == list(range(1, 20 if longer else 3))
    assert {row[6] for row in news["updates"]["rows"]} == {5.0}


def test_a_run_moved_aside_and_begun_anew_is_followed(run, folder):
    for step in range(1, 9):
        folder.update(step)
    look(run)
    folder.path.rename(folder.path.with_name("run1-1"))
    gone = look(run)
    assert (gone["state"], gone["step"]) == ("gone", 8)
    assert len(steps(gone)) == 8  # still shown
    folder.update(1)
    assert steps(look(run)) == [1]


def test_a_folder_that_vanishes_with_all_above_it_is_gone_and_may_come_back(run, folder, tmp_path):
    folder.settings(steps=5)
    folder.update(1)
    look(run)
    shutil.rmtree(tmp_path / "checkpoint")
    assert look(run)["state"] == "gone"
    folder.update(1)
    folder.update(2)
    assert look(run)["step"] == 2


def test_a_step_that_was_there_takes_back_what_came_after(run, folder):
    for step in range(1, 9):
        folder.update(step)
    folder.validation(8, 1.0)
    folder.update(5, 7.0)
    news = look(run)
    assert steps(news) == [1, 2, 3, 4, 5] and news["loss"] == 7.0
    assert news["validations"]["rows"] == [] and news["validation"] is None


def test_lines_that_are_no_records_are_counted_and_passed_over(run, folder):
    folder.path.mkdir(parents=True)
    bad = [
        b"\xff\xfe\x00", b"nonsense", b"[]", b"3", b'{"step": true, "loss": 1}', b'{"step": 1.5, "loss": 1}',
        b'{"step": -1, "loss": 1}', b'{"step": 9007199254740992, "loss": 1}', b'{"step": 3}',
        b'{"step": 3, "loss": NaN}', b'{"step": 3, "loss": 1e999}', b'{"step": 3, "loss": "1"}', b"[" * 100_000,
        b'{"step": ' + b"9" * 5000 + b', "loss": 1}',
    ]  # fmt: skip
    good = b'{"step": 4, "loss": 2.0, "learning_rate": Infinity}'
    folder.metrics.write_bytes(b"\n".join([*bad, b"", b"  ", good, b""]))
    news = look(run)
    assert steps(news) == [4] and news["unread"] == len(bad)
    json.dumps(news, allow_nan=False)


def test_a_line_without_end_is_passed_over_in_pieces(run, folder, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 1000)
    folder.path.mkdir(parents=True)
    folder.metrics.write_bytes(b"x" * 2500 + b'\n{"step": 1, "loss": 2.0}\n')
    assert steps(look(run)) == [1]


def test_what_is_no_file_is_not_read(folder):
    folder.metrics.mkdir(parents=True)
    assert look(Run(folder.path, "run1"))["state"] == "starting"
    if hasattr(os, "mkfifo"):
        folder.metrics.rmdir()
        os.mkfifo(folder.metrics)  # opening it would wait forever
        assert look(Run(folder.path, "run1"))["state"] == "starting"


@needs.mark("a user whom permissions bind")
def test_a_file_that_may_not_be_read_is_reported(run, folder):
    folder.update(1)
    folder.metrics.chmod(0)
    with permissions.binding():
        assert "Permission denied" in look(run)["problem"]


def test_settings_that_cannot_be_read_hinder_nothing(run, folder):
    folder.update(1)
    for text in ("{", "[]", '{"steps": "many", "sample_dir": 7, "dataset": [[1]]}', "[" * 100_000):
        (folder.path / "settings.json").write_text(text)
        news = look(run)
        assert news["state"] == "running" and news["last_step"] is None


def test_settings_are_told_without_paths(run, folder):
    folder.settings(steps=5, dataset=["/home/me/secret/tales.txt", "more/"], model_name="models/124M", other={"n": 1})
    told = look(run)["settings"]
    assert told == {"steps": 5, "dataset": "tales.txt, more", "model_name": "124M"}


# ---- long curves -----------------------------------------------------------------------------------------------------


def test_a_long_curve_keeps_its_shape_in_few_rows():
    curve, most = Curve(most=100), 0
    losses = [random.Random(step).random() for step in range(1, 5001)]
    for step, loss in enumerate(losses, start=1):
        curve.add(step, loss, 0.5)
        most = max(most, len(curve.rows))
    assert most <= 100 and len(curve.rows) >= 50
    assert [row[0] for row in curve.rows[1:]] == [row[1] + 1 for row in curve.rows[:-1]]
    assert (curve.rows[0][0], curve.rows[-1][1], sum(row[2] for row in curve.rows)) == (1, 5000, 5000)
    for first, last, _, low_step, low, high, mean, more in curve.rows:
        part = losses[first - 1 : last]
        assert (low, high, low_step) == (min(part), max(part), first + part.index(min(part)))
        assert mean == pytest.approx(sum(part) / len(part)) and more == 0.5
    assert curve.lowest == (losses.index(min(losses)) + 1, min(losses))


def test_news_of_a_curve_put_together_make_the_curve():
    curve, seen, mine, random_ = Curve(most=16), Seen(), [], random.Random(1)
    step = 0
    for _ in range(600):
        step = max(0, step - 5) if random_.random() < 0.02 else step + random_.choice([1, 1, 3])
        curve.add(step, random_.random())
        if random_.random() < 0.3 and (found := curve.since(seen)):
            seen, news = found
            mine[news["from"] :] = news["rows"]
            assert [row[:3] for row in mine] == [row[:3] for row in curve.rows]
            assert curve.since(seen) is None


def test_steps_far_apart_take_no_more_rows():
    curve = Curve(most=8)
    for power in range(50):
        curve.add(1 << power, 1.0)
    assert len(curve.rows) <= 8


def test_a_huge_file_takes_little_memory_and_little_at_a_time(run, folder, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 1 << 14)
    folder.path.mkdir(parents=True)
    with folder.metrics.open("w") as file:
        for step in range(1, 12_001):
            file.write(f'{{"step": {step}, "loss": {step % 7}}}\n')
    size = folder.metrics.stat().st_size
    tracemalloc.start()
    looks = 1
    while run.look():
        looks += 1
        assert 0 < run.news(Cursor())["reading"] < 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert looks >= size // (1 << 14)
    news = run.news(Cursor())
    assert (news["step"], news["reading"]) == (12_000, None)
    assert len(news["updates"]["rows"]) <= 2000
    assert peak < 5 << 20


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_found_where_training_was_begun(run, folder, tmp_path):
    folder.settings(steps=5)
    assert look(run)["samples"] == []
    for step in (5, 10, 100):
        folder.sample(step, f"text {step}")
    assert [step for step, _ in look(run)["samples"]] == [5, 10, 100]
    assert run.samples(10).texts == ["text 10"]


@pytest.mark.parametrize(("checkpoints", "samples"), [("a/b", "c/d"), ("{tmp}/a/b", "{tmp}/c/d"), ("a/b", "{tmp}/c")])
def test_folders_may_be_given_other_names(folder, tmp_path, checkpoints, samples):
    checkpoints, samples = (name.format(tmp=tmp_path) for name in (checkpoints, samples))
    folder.path, folder.samples = tmp_path / checkpoints / "mine", tmp_path / samples / "mine"
    folder.settings(checkpoint_dir=checkpoints, sample_dir=samples)
    folder.sample(3, "here")
    run = Run(folder.path, "mine")
    look(run)
    assert run.samples(3).texts == ["here"]


def test_samples_that_are_written_again_are_news(run, folder, tmp_path):
    folder.settings()
    folder.sample(5, "one")
    cursor = Cursor()
    look(run, cursor)
    assert look(run, cursor) is None
    folder.sample(5, "another")
    assert [step for step, _ in look(run, cursor)["samples"]] == [5]


@pytest.mark.parametrize(
    "texts",
    [
        ["one"], ["one", "two\n\nlines\n", "three"], [""], ["", ""], ["ROMEO:\n\n", "\n"],
        ["a\n======== SAMPLE 7 ========\nb", "c"], ["<script>alert(1)</script>\u202e\x00\x1b[31m", "é漢🎭"],
    ],
)  # fmt: skip
def test_texts_come_back_as_they_were_drawn(folder, texts):
    folder.sample(1, *texts)
    assert read_samples(folder.samples, 1).texts == texts


@pytest.mark.parametrize("content", ["", "\n", "no sample\n", "======== SAMPLE 2 ========\nx"])
def test_a_file_without_a_first_sample_has_none(folder, content):
    folder.sample(1, "")
    (folder.samples / "samples-1").write_text(content)
    assert read_samples(folder.samples, 1).texts == []


def test_a_file_of_samples_that_is_too_long_is_cut_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_SAMPLES", 100)
    folder.sample(1, "é" * 100)
    found = read_samples(folder.samples, 1)
    assert found.cut and set(found.texts[0]) == {"é"}


def test_other_files_and_links_are_no_samples(folder):
    folder.sample(1, "secret")
    secret = (folder.samples / "samples-1").rename(folder.samples / "secret")
    for name in ("samples-x", "samples-", "samples-1.txt", "other", "samples--1", "samples-" + "9" * 30):
        (folder.samples / name).write_text("no")
    (folder.samples / "samples-5").mkdir()
    if sys.platform != "win32":
        (folder.samples / "samples-6").symlink_to(secret)
    assert list_samples(folder.samples) == [] and list_samples(folder.samples / "nowhere") == []
    assert [read_samples(folder.samples, step) for step in (2, 5, 6)] == [None] * 3


def test_of_very_many_samples_some_are_listed(folder, monkeypatch):
    monkeypatch.setattr(files, "MOST_SAMPLES", 10)
    for step in range(100):
        folder.sample(step, "")
    listed = [step for step, _ in list_samples(folder.samples)]
    assert len(listed) == 10 and (listed[0], listed[-1]) == (0, 99)


# ---- which runs ------------------------------------------------------------------------------------------------------


def test_runs_are_named_by_the_last_part_of_their_path_that_tells_them_apart(tmp_path):
    paths = [str(tmp_path / name) for name in ("one/checkpoint/run1", "two/checkpoint/run1", "other", "other")]
    names = [run.name for run in open_runs(paths)]
    assert names == ["one/checkpoint/run1", "two/checkpoint/run1", "other"]


def test_a_file_and_a_folder_of_runs_are_refused(folder):
    folder.update(1)
    with pytest.raises(UsageError, match="is a file: give --watch a run folder"):
        open_runs([str(folder.metrics)])
    with pytest.raises(UsageError, match=r"checkpoint contains run folders but is not one: use --watch .*run1$"):
        open_runs([str(folder.path.parent)])


def test_watching_imports_no_torch():
    code = "import sys, gpt2lab.serving.watch.routes, gpt2lab.cli.serve; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
