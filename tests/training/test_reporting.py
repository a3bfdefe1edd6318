import io
import json
import re
import struct
from dataclasses import replace

import pytest

import needs
from gpt2lab.training import reporting
from gpt2lab.training.metrics import Curve, Metrics, TensorBoard, draw_losses, file_reporters, read_metrics
from gpt2lab.training.reporting import Dispensable, Lines, Live, Reporter, Several, Update, Validation, clock

UPDATE = Update(3, 13, 4.5678, 2.34567, 2.5, 1e-4, 4096, 1234.5)
VALIDATION = Validation(3, 5.0, 2.25, best=True)


def test_lines_are_the_originals(capsys):
    lines = Lines()
    lines.update(UPDATE)
    lines.validation(VALIDATION)
    lines.say("Saving checkpoint/run1/state-0000003")
    lines.status("Calculating validation loss...")
    assert capsys.readouterr().out.splitlines() == [
        "[3 | 4.57] loss=2.35 avg=2.50",
        "[3 | 5.00] validation loss = 2.2500",
        "Saving checkpoint/run1/state-0000003",
    ]


def test_a_long_activity_has_a_line_after_five_seconds_and_then_each_half_minute(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(reporting, "monotonic", lambda: now)
    lines, shown = Lines(), []
    for done in range(80):  # a second each
        now = float(done)
        lines.progress("Calculating validation loss...", done, 80)
        shown += [(done, capsys.readouterr().out)]
    assert [(done, out) for done, out in shown if out] == [
        (6, "Calculating validation loss... 6 of 80\n"),
        (37, "Calculating validation loss... 37 of 80\n"),
        (68, "Calculating validation loss... 68 of 80\n"),
    ]
    lines.say("[1 | 80.00] validation loss = 2.0000")
    lines.progress("Calculating validation loss...", 0, 80)
    assert "Calculating" not in capsys.readouterr().out


def test_an_update_without_a_loss_has_a_line_and_no_record(capsys, tmp_path):
    made = replace(UPDATE, loss=None)
    Lines().update(made)
    Lines().update(replace(made, average=None))
    assert capsys.readouterr().out == "[3 | 4.57] loss=none avg=2.50\n[3 | 4.57] loss=none avg=none\n"
    with Metrics(tmp_path, 0) as metrics:
        metrics.update(made)
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []


def test_a_terminal_has_one_line_that_is_kept_up_to_date(monkeypatch):
    from rich.console import Console

    out = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=out, force_terminal=True, width=120))
    with Live() as live:
        live.update(UPDATE)
        live.validation(VALIDATION)
        live.update(Update(4, 13, 6.5678, 2.1, 2.4, 1e-4, 4096, 1234.5))
        live.say("[bold]Saving[/bold] [3]")
        live._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "[3 | 5.00] validation loss = 2.2500 (best so far)\n" in text.replace("\r", "")
    assert "[bold]Saving[/bold] [3]" in text
    assert re.search(r"4/13  loss 2\.100  avg 2\.400  lr 1\.0e-04  1,23\d tokens/s  0:18 to go  \d\.\d GiB", text)


def test_metrics_have_an_object_for_each_update_and_validation(tmp_path):
    with Metrics(tmp_path, 0) as metrics:
        metrics.update(UPDATE)
        metrics.validation(VALIDATION)
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first.pop("memory") > 1 << 20  # bytes
    assert first == {
        "step": 3, "seconds": 4.568, "loss": 2.34567, "average": 2.5, "learning_rate": 1e-4,
        "tokens_per_second": 1234.5,
    }  # fmt: skip
    assert second == {"step": 3, "seconds": 5.0, "val_loss": 2.25}


def test_after_a_resume_no_step_is_there_twice(tmp_path):
    def steps():
        return [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")]

    with Metrics(tmp_path, 0) as metrics:
        for step in range(1, 6):
            metrics.update(replace(UPDATE, step=step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a kill
    with Metrics(tmp_path, 3) as metrics:
        metrics.update(replace(UPDATE, step=4))
    assert steps() == [1, 2, 3, 4]


def test_a_training_begun_anew_keeps_the_metrics_of_the_one_before(tmp_path):
    for _ in range(3):
        with Metrics(tmp_path, 0) as metrics:
            metrics.update(UPDATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics-1.jsonl", "metrics-2.jsonl", "metrics.jsonl"]
    assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 1


def test_tensorboard_has_the_originals_tags(tmp_path):
    needs.check("tensorboard")
    with TensorBoard(tmp_path, 0) as board:
        board.update(UPDATE)
        board.validation(VALIDATION)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for tag, value in (("loss", 2.34567), ("val_loss", 2.25), ("learning_rate", 1e-4)):
        (scalar,) = events.Scalars(tag)
        assert (scalar.step, scalar.value) == (3, pytest.approx(value))


def test_the_curve_is_drawn_at_saves(tmp_path):
    needs.check("matplotlib")
    with Metrics(tmp_path, 0) as metrics:
        for step in range(1, 30):
            metrics.update(Update(step, 3, step, 3 / step, 3 / step + 0.1, 1e-4, 4096, 100.0))
        metrics.validation(VALIDATION)
        Curve(tmp_path).saved()
    svg, png = (tmp_path / "losses.svg").read_text(), (tmp_path / "losses.png").read_bytes()
    assert "<svg" in svg
    width, height = struct.unpack(">II", png[16:24])
    assert width > height > 400
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("title", ["a$\\bad$", "$", "_^{}", "50 % of\\frac"])
def test_any_name_can_be_the_title_of_a_curve(tmp_path, title):
    needs.check("matplotlib")
    draw_losses([], [tmp_path / "losses.svg"], title)
    assert (tmp_path / "losses.svg").exists()


@pytest.mark.parametrize("method", ["__enter__", "update", "validation", "saved", "__exit__"])
def test_a_reporter_that_fails_is_said_once_and_then_left_out(method):
    class Failing(Reporter):
        called = 0

    def fail(self, *_):
        Failing.called += 1
        raise ValueError("no room\nand more")

    setattr(Failing, method, fail)
    said = []
    reporter = Dispensable("a picture", Failing, said.append)
    for _ in range(2):
        with reporter:
            reporter.update(UPDATE)
            reporter.validation(VALIDATION)
            reporter.saved()
    assert said == ["warning: cannot write a picture (no room): training continues without"]
    assert Failing.called == 1


def test_a_reporter_that_cannot_be_made_is_said():
    said = []
    with Dispensable("a picture", lambda: 1 / 0, said.append) as reporter:
        reporter.update(UPDATE)
    assert said == ["warning: cannot write a picture (division by zero): training continues without"]


def test_files_that_need_missing_packages_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2lab.training.metrics.find_spec", lambda name: None)
    assert [type(reporter) for reporter in file_reporters(tmp_path, 0)] == [Metrics]


def test_several_are_told_the_same(make_trainer):
    class Notes(Reporter):
        def __init__(self):
            self.told = []

        def update(self, made):
            self.told.append(made)

        def __exit__(self, *_):
            self.told.append("ended")

    one, other = Notes(), Notes()
    with Several(one, other) as several:
        several.update(UPDATE)
    assert one.told == other.told == [UPDATE, "ended"]


def test_times_are_read_like_a_clock():
    assert [clock(seconds) for seconds in (0.4, 75, 3723)] == ["0:00", "1:15", "1:02:03"]
    assert reporting.peak_memory() > 1 << 20
