import math

import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training.settings import LORA_TARGETS, Done, Settings, learning_rate, resolved

SMALL = ModelConfig(n_ctx=128, n_embd=256, n_head=4, n_layer=2)


def rates(**settings):
    chosen = Settings(**{"learning_rate": 1.0, "warmup_steps": 0, **settings})
    return [round(learning_rate(step, chosen), 3) for step in range(1, chosen.steps + 1)]


def test_cosine_after_the_warm_up():
    assert rates(steps=6, warmup_steps=2) == [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]


def test_a_line_after_the_warm_up():
    assert rates(steps=6, warmup_steps=2, schedule="linear") == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_constant_stays():
    assert rates(steps=4, warmup_steps=2, schedule="constant") == [0.5, 1, 1, 1]


def test_plateau_and_a_line_down():
    assert rates(steps=7, warmup_steps=2, schedule="stable-decay", decay_steps=3) == [0.5, 1, 1, 1, 0.75, 0.5, 0.25]


def test_no_warm_up_and_no_decay():
    assert rates(steps=3, schedule="stable-decay") == [1, 1, 1]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "stable-decay"])
def test_past_the_last_update_the_rate_is_never_negative(schedule):
    chosen = Settings(steps=5, learning_rate=1.0, warmup_steps=1, schedule=schedule, decay_steps=2)
    assert all(0 <= learning_rate(step, chosen) <= 1 for step in range(1, 20))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("epochs", 0.0), ("batch_size", 0), ("batch_size", 10**20), ("val_batch_size", 10**20),
        ("accumulate_gradients", -1), ("accumulate_gradients", 10**11), ("warmup_steps", -1),
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("weight_decay", -0.1), ("clip", 0.0),
        ("dropout", 1.0), ("noise", 1.5), ("seed", -1), ("seed", 2**63), ("keep", 0), ("lora", -1), ("lora_alpha", 0.0),
        ("top_p", 1.1),
        ("lora_targets", "attn.q,head"), ("stop_after", -1), ("block_size", 0), ("sample_length", 0),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(UsageError, match=name):
        Settings(**{name: value})


def test_a_rank_above_the_models_width_is_refused():
    with pytest.raises(UsageError, match=f"lora must be at most the model's width of {SMALL.n_embd}, got 1000000000"):
        resolved(Settings(lora=10**9), SMALL, 400, from_scratch=False)


def test_only_clipping_may_be_endless():
    assert Settings(clip=math.inf).clip == math.inf
    for name in ("learning_rate", "weight_decay", "epochs", "lora_alpha"):
        with pytest.raises(UsageError, match=f"{name} must be .*, got inf"):
            Settings(**{name: math.inf})


def test_a_page_of_text_gets_a_hundred_updates_and_a_book_three_epochs():
    assert resolved(Settings(), SMALL, 5, from_scratch=False).steps == 100
    assert resolved(Settings(), SMALL, 4001, from_scratch=False).steps == 1501


def test_epochs_become_steps():
    assert resolved(Settings(epochs=0.5), SMALL, 400, from_scratch=False).steps == 25
    with pytest.raises(UsageError, match="not both"):
        resolved(Settings(epochs=1, steps=1), SMALL, 400, from_scratch=False)


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 12), (1, 8 + 16), (8, 8 + 2), (5, 8 + 4)])
def test_epochs_count_windows_whatever_the_batches_were_before(batch_size, steps):
    settings = Settings(epochs=1, batch_size=batch_size, accumulate_gradients=1)
    assert resolved(settings, SMALL, 48, from_scratch=False, done=Done(8, 32)).steps == steps


def test_a_run_with_all_its_epochs_behind_it_has_no_updates_left():
    settings = Settings(epochs=1, batch_size=1, accumulate_gradients=1)
    assert resolved(settings, SMALL, 48, from_scratch=False, done=Done(10, 50)).steps == 10


def test_the_learning_rate_suits_the_model():
    def chosen(config, from_scratch=False, **settings):
        return resolved(Settings(**settings), config, 400, from_scratch=from_scratch).learning_rate

    assert chosen(ModelConfig()) == pytest.approx(1e-4)
    assert chosen(SMALL) == pytest.approx(3e-4)
    assert chosen(SMALL, lora=8) == pytest.approx(3e-3)
    assert chosen(SMALL, from_scratch=True) == 1e-3
    assert chosen(SMALL, learning_rate=0.5) == 0.5


@pytest.mark.parametrize("name", ["block_size", "sample_length"])
def test_nothing_is_longer_than_the_context(name):
    with pytest.raises(UsageError, match=f"{name} must be at most .* 128, got 129"):
        resolved(Settings(**{name: 129}), SMALL, 400, from_scratch=False)


def test_nothing_is_left_to_choose():
    chosen = resolved(Settings(), SMALL, 400, from_scratch=False)
    assert [name for name, value in vars(chosen).items() if value is None] == ["epochs"]
    assert (chosen.block_size, chosen.sample_length, chosen.warmup_steps) == (128, 128, 15)


def test_lora_targets_are_a_list_with_commas():
    assert Settings().targets() == LORA_TARGETS
    assert Settings(lora_targets="attn.q, mlp.fc").targets() == ("attn.q", "mlp.fc")
