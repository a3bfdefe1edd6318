import pytest

from gpt2lab.errors import UsageError
from gpt2lab.training.settings import Settings, learning_rate


def rates(**settings):
    chosen = Settings(learning_rate=1.0, **settings)
    return [round(learning_rate(step, chosen), 3) for step in range(1, chosen.steps + 1)]


def test_cosine_after_the_warm_up():
    assert rates(steps=6, warmup_steps=2) == [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]


def test_plateau_and_a_line_down():
    assert rates(steps=7, warmup_steps=2, schedule="stable-decay", decay_steps=3) == [0.5, 1, 1, 1, 0.75, 0.5, 0.25]


def test_no_warm_up_and_no_decay():
    assert rates(steps=3, warmup_steps=0, schedule="stable-decay") == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("accumulate_gradients", -1), ("warmup_steps", -1), ("learning_rate", 0.0),
        ("learning_rate", float("nan")), ("weight_decay", -0.1), ("clip", 0.0), ("dropout", 1.0), ("seed", -1),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(UsageError, match=name):
        Settings(**{name: value})
