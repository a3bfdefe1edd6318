"""A training run in a notebook: the curve, live and afterwards."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.markup import notebook
from gpt2lab.training.curve import LiveCurve
from gpt2lab.training.reporting import Messages
from notebooks import Elements, Kernel

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")
TEXTS = [f"Once upon a time there was a mouse number {i}. " * 12 for i in range(8)]

pytestmark = pytest.mark.usefixtures("no_curve")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kernel(monkeypatch) -> Kernel:
    """Pretend that this program runs in a notebook that shows every content."""
    monkeypatch.setattr(notebook, "INTERVAL", 0.0)
    return Kernel().install(monkeypatch)


def finetune(steps=4, **more):
    quick = {"precision": "float32", "block_size": 16, "batch_size": 2, "accumulate_gradients": 1, "val_batch_count": 2}
    quick |= {"val_every": 2, "sample_every": 0, "threads": 1, "validation": 0.2, "say": lambda line: None}
    return gpt2lab.finetune(TINY, TEXTS, steps=steps, **{**quick, **more})


def chart(markup: str) -> str:
    """Return the chart in what a notebook shows."""
    return base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', markup)[1]).decode()


def points(markup: str) -> list[int]:
    """Return the number of points of each line of the chart."""
    return [len(line.split()) for line in re.findall(r'<polyline[^>]* points="([^"]*)"', chart(markup))]


def test_a_run_shows_its_curve_while_it_trains(kernel):
    run = finetune()
    for update in run:
        last = kernel.published[-1]
        assert f"update {update.step} of 4" in last.text
        assert points(last.html)[0] == update.step
    assert [shown.update for shown in kernel.published].count(False) == 1  # one output, replaced
    assert points(kernel.published[-1].html) == [4, 4, 3]  # held out: before training, and after updates 2 and 4


def test_a_resumed_run_shows_the_whole_curve(kernel):
    with finetune() as run:
        next(run)
    kernel.published.clear()
    finetune().finish()
    assert points(kernel.published[-1].html)[0] == 4


def test_the_next_cell_gets_its_own_curve(kernel):
    run = finetune()
    next(run)
    kernel.execution_count += 1
    kernel.published.clear()
    next(run)
    assert kernel.published[0].update is False


def test_messages_go_where_the_caller_wants_them(kernel):
    said = []
    finetune(say=said.append).finish()
    assert "Training..." in said


def test_a_run_elsewhere_has_no_curve():
    with finetune() as run:
        assert type(run._session.trainer.reporter) is Messages


def test_progress_is_a_bar(kernel):
    reporter = LiveCurve(lambda line: None, kernel, Path("checkpoint/run1/metrics.jsonl"))
    reporter.progress("Validating: <batch>", 3, 40)
    (shown,) = kernel.published
    elements = Elements(shown.html)
    assert elements.open == []
    assert elements.values("max") == ["40"] and elements.values("value") == ["3"]
    assert "Validating: <batch> 3 of 40" in elements.text
    assert shown.text == "Validating: <batch> 3 of 40"


def test_a_run_is_a_curve_and_a_line():
    run = finetune(run_name="mice")
    assert repr(run) == f"<Run {str(Path('checkpoint/mice'))!r}: update 0 of 4, not ended>"
    assert "img" not in Elements(run._repr_html_()).tags
    run.finish()
    assert re.fullmatch(r"<Run '.*mice': update 4 of 4, finished, best on held-out text after update \d>", repr(run))
    assert points(run._repr_html_()) == [4, 4, 3]
    assert "Training of mice" in Elements(run._repr_html_()).text
