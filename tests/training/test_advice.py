"""The lines of a run about its result."""

from dataclasses import replace
from pathlib import Path

import pytest

from gpt2lab.training.advice import Standing, ending, length, no_better
from gpt2lab.training.settings import Done, Settings

OVER_FITTED = Standing(Path("checkpoint/run1"), 160, 80, 6.83, 6.89, 2.1, 8, 0, 0, 0)


def test_an_over_fitted_run_says_which_update_the_folder_holds_and_what_to_try():
    assert ending(OVER_FITTED) == [
        "checkpoint/run1 holds the model of update 80, the best (held-out loss 6.8300), not that of update 160, the "
        "last (held-out loss 6.8900)",
        "the run over-fits: try more text, --lora 8, --dropout 0.1 or a lower --learning_rate; --patience 3 ends such "
        "a run earlier",
    ]


def test_over_fitting_is_announced_with_the_training_loss():
    assert no_better(replace(OVER_FITTED, since_best=3)) == (
        "over-fitting: the last 3 held-out losses are not below 6.8300, that of update 80, while the training loss has "
        "fallen to 2.1000; --patience 3 would stop here"
    )


def test_a_training_loss_above_the_held_out_one_is_no_over_fitting():
    worse = replace(OVER_FITTED, average=7.5)
    assert not any("over-fit" in line for line in [no_better(worse), *ending(worse)])


def test_what_is_set_already_is_not_proposed():
    lines = " ".join([*ending(replace(OVER_FITTED, patience=3, lora=8)), no_better(replace(OVER_FITTED, patience=3))])
    assert "--patience" not in lines
    assert "--lora" not in lines


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"best_step": 160, "since_best": 0}, "checkpoint/run1 holds the model of update 160, the last and the best"),
        ({"best_step": 0}, "checkpoint/run1 holds the model from before training, the best (held-out loss 6.8300)"),
        (
            {"best_step": None, "best": None},
            "checkpoint/run1 holds the model of update 160, the last; without held-out",
        ),
        ({"unlearned": 7}, "7 of 160 updates had no learned target, only prompts, and changed nothing"),
        ({"best_step": 0, "average": 9.0}, "no validation was better than before training: try a lower"),
    ],
)
def test_each_kind_of_end_has_its_line(changes, line):
    assert any(each.startswith(line) for each in ending(replace(OVER_FITTED, **changes)))


@pytest.mark.parametrize(
    ("settings", "asked", "done", "expected"),
    [
        ({"steps": 12}, {"steps": 12}, Done(), "length: 12 updates of 8 windows, 2.4 passes over the text"),
        ({"steps": 12}, {"steps": 12}, Done(10, 10), "length: 12 updates of 8 windows, 0.7 passes over the text"),
        ({"steps": 100}, {"epochs": 20.0}, Done(), "length: 100 updates of 8 windows, 20.0 passes over the text"),
        ({"steps": 15}, {}, Done(), "length: 15 updates of 8 windows, 3.0 passes over the text"),
        (
            {"steps": 100},
            {},
            Done(),
            "length: 100 updates of 8 windows, 20.0 passes over the text; a run has at least 100 updates by default, "
            "and --epochs 3 makes 3 passes",
        ),
    ],
)
def test_the_length_is_in_passes_too(settings, asked, done, expected):
    assert length(Settings(**settings), Settings(**asked), 40, done) == expected
