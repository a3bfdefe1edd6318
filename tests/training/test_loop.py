import math
import os
import signal
from itertools import permutations

import numpy as np
import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.errors import CheckpointError, TrainingError
from gpt2lab.training.checkpoints import load_state, states
from gpt2lab.training.restoring import restore
from gpt2lab.weights import open_checkpoint

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")


def weights(trainer):
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(make_trainer, optimizer):
    trainer = make_trainer(optimizer=optimizer, steps=150)
    first = trainer.update()
    for _ in range(149):
        last = trainer.update()
    assert first > 3.5
    assert last < 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "dropout": 0.1, "accumulate_gradients": 2},
        {"optimizer": "adam", "noise": 0.3, "memory_saving_gradients": True},
        {"optimizer": "sgd", "sampling": "uniform"},
        {"optimizer": "muon", "narrow_steps": 6},
        {"lora": 2, "dropout": 0.1},
        {"quantize": "int4", "average": 0.9},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_resuming_equals_not_stopping(make_trainer, counting, settings):
    settings = {**settings, "steps": 9, "val_every": 3, "seed": 5}
    whole = make_trainer("whole", held_out=counting, **settings)
    whole.train()
    first = make_trainer("parts", held_out=counting, **settings, stop_after=4)
    first.train()
    torch.manual_seed(99)
    second = make_trainer("parts", held_out=counting, **settings)
    restore(second, load_state(first.last_state))
    second.train()
    assert_same(weights(whole), weights(second))
    assert (whole.step, whole.position, whole.average) == (second.step, second.position, second.average)


def test_accumulated_batches_equal_a_large_one(make_trainer):
    large, small = make_trainer(batch_size=6), make_trainer(batch_size=2, accumulate_gradients=3)
    assert large.update() == pytest.approx(small.update(), rel=1e-5)
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_memory_saving_gradients_change_nothing_but_memory(make_trainer):
    settings = {"batch_size": 2, "accumulate_gradients": 2, "dropout": 0.2}
    plain, saving = make_trainer(**settings), make_trainer(**settings, memory_saving_gradients=True)
    assert [plain.update() for _ in range(3)] == [saving.update() for _ in range(3)]


class Prompted(Windows):
    """Return windows whose first half bears no loss."""

    def batch(self, position, size):
        batch = super().batch(position, size)
        batch.trained[:, : self.length // 2] = False
        return batch


def test_the_loss_is_the_mean_over_trained_targets(make_trainer):
    prompted = Prompted(Ring(Documents.of([np.arange(1, 51)] * 8), separator=0), 12, seed=3)
    trainer = make_trainer(windows=prompted, batch_size=2, accumulate_gradients=2)
    trainer.model.eval()
    losses = []
    for position in (0, 2):
        batch = prompted.batch(position, 2)
        with torch.no_grad():
            hidden = trainer.model.hidden(torch.from_numpy(batch.tokens))
            logprobs = trainer.model.logits(hidden).log_softmax(-1).flatten(0, 1)
        targets = torch.from_numpy(batch.targets.flatten())
        losses.append(-logprobs[torch.arange(len(targets)), targets][torch.from_numpy(batch.trained.flatten())])
    assert trainer.update() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


class Silent(Windows):
    """Return windows, the first three of which bear no loss at all."""

    def batch(self, position, size):
        batch = super().batch(position, size)
        batch.trained[: max(0, 3 - position)] = False
        return batch


def test_updates_without_a_learned_target_change_nothing_and_have_no_loss(make_trainer):
    silent = Silent(Ring(Documents.of([np.arange(1, 51)] * 8), separator=0), 12, seed=3)
    trainer = make_trainer(windows=silent, batch_size=1, steps=5)
    before = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    for _ in range(3):
        assert trainer.update() is None
    assert_same(before, weights(trainer))
    assert (trainer.step, trainer.position) == (3, 3)


def test_updates_without_a_learned_target_are_left_out_of_the_average_counted_and_told(make_trainer):
    silent = Silent(Ring(Documents.of([np.arange(1, 51)] * 8), separator=0), 12, seed=3)
    trainer = make_trainer(windows=silent, batch_size=1, steps=5)
    trainer.train()
    made = trainer.reporter.updates
    assert [update.loss for update in made[:3]] == [update.average for update in made[:3]] == [None] * 3
    assert made[3].average == made[3].loss > 1
    assert trainer.reporter.said.count("warning: update 1 had no learned target, only prompts: it changed nothing") == 1
    again = make_trainer(windows=silent, batch_size=1, steps=6)
    restore(again, load_state(trainer.last_state))
    assert trainer.unlearned == again.unlearned == 3


def test_noise_replaces_inputs_and_depends_on_the_window_alone(make_trainer, counting):
    trainer = make_trainer(noise=0.5, batch_size=4, accumulate_gradients=1)
    (noisy,) = trainer.batches.of_update(0)
    clean = counting.batch(0, 4)
    changed = noisy.tokens != clean.tokens
    assert 0.3 < changed.mean() < 0.7
    assert (noisy.targets == clean.targets).all()
    two_at_a_time = make_trainer(noise=0.5, batch_size=2, accumulate_gradients=2)
    assert (np.concatenate([batch.tokens for batch in two_at_a_time.batches.of_update(0)]) == noisy.tokens).all()


def test_ctrl_c_finishes_the_update_saves_and_says_so(make_trainer):
    trainer = make_trainer(steps=1000)
    update = trainer.update

    def interrupted_update():
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update()

    trainer.update = interrupted_update
    assert trainer.train() == "interrupted"
    assert (trainer.step, trainer.interrupted) == (3, signal.SIGINT)
    assert trainer.reporter.said == ["interrupted", f"Saving {trainer.run / 'state-0000003'}"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert open_checkpoint(trainer.run).config == trainer.model.config


def test_losses_before_and_after_widening_are_not_compared(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=6, narrow_steps=3, val_every=2, patience=1)
    losses = {}

    def validate(held_out):
        losses[trainer.step] = 1.0 + trainer.step  # worse each time
        return losses[trainer.step]

    trainer.validate = validate
    assert trainer.train() == "no better"
    assert list(losses) == [
        0,
        2,
        4,
        6,
    ]  # patience does not end what is narrow yet; right after widening, 4, is the best
    assert (trainer.best_step, trainer.step) == (4, 6)


def test_a_state_is_saved_when_the_last_is_long_ago(make_trainer):
    trainer = make_trainer(steps=6, save_minutes=1.5)
    update = trainer.update

    def slow_update():
        trainer.saved_at -= 40  # seconds; a patched clock would be that of all threads of the process, servers' too
        return update()

    trainer.update = slow_update
    trainer.train()
    assert [state.name for state in states(trainer.run)] == ["state-0000003", "state-0000006"]


def test_a_state_is_saved_before_samples_which_may_fail(make_trainer):
    trainer = make_trainer(steps=2, sample_every=2, save_every=2)

    def full(step, tensors):
        raise OSError(28, "No space left on device")

    trainer.sampler = full
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert [state.name for state in states(trainer.run)] == ["state-0000002"]


def test_a_second_ctrl_c_stops_at_once(make_trainer):
    trainer = make_trainer(steps=1000)

    def update():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    trainer.update = update
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not states(trainer.run)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_no_number_stops_before_it_is_applied(make_trainer, monkeypatch, broken):
    trainer = make_trainer(save_every=2)
    for _ in range(2):
        trainer.update()
    trainer.save()
    before = weights(trainer)
    if broken == "loss":
        loss = trainer._loss
        trainer._loss = lambda *arguments: loss(*arguments) * math.nan
    else:
        monkeypatch.setattr(trainer.world, "clip", lambda *_: math.inf)
    with pytest.raises(TrainingError, match=r"at update 3.*state-0000002.*learning_rate"):
        trainer.train()
    assert_same(before, weights(trainer))
    assert load_state(trainer.last_state).progress["step"] == trainer.step == 2


def test_stop_after_counts_all_updates_and_leaves_the_schedule(make_trainer):
    whole = make_trainer("whole", steps=6)
    whole.train()
    parts = make_trainer("parts", steps=6, stop_after=4)
    parts.train()
    assert parts.step == 4
    rates = [update.learning_rate for update in whole.reporter.updates]
    assert [update.learning_rate for update in parts.reporter.updates] == rates[:4]


def test_what_is_due_happens_after_its_update_and_after_the_last(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=7, val_every=3, save_every=2, sample_every=4)
    sampled = []
    trainer.sampler = lambda step, tensors: sampled.append((step, sorted(tensors) == sorted(trainer.tensors())))
    trainer.train()
    assert [made.step for made in trainer.reporter.validations] == [0, 3, 6, 7]
    assert [line for line in trainer.reporter.said if "state" in line] == [
        f"Saving {trainer.run / f'state-000000{step}'}" for step in (2, 4, 6, 7)
    ]
    assert sampled == [(4, True), (7, True)]


def test_the_run_folder_is_the_best_model_and_loads(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=6, val_every=1)
    losses = iter([4.0, 3.0, 2.0, 2.5, 2.4, 2.3, 2.2])
    kept = {}

    def validate(_held_out):
        kept[trainer.step] = weights(trainer)
        return next(losses)

    trainer.validate = validate
    trainer.train()
    checkpoint = open_checkpoint(trainer.run)
    assert (trainer.best, trainer.best_step, trainer.since_best) == (2.0, 2, 4)
    assert checkpoint.config == trainer.model.config
    assert_same({n: torch.from_numpy(np.array(t)) for n, t in checkpoint.tensors.items()}, kept[2])


def test_without_a_held_out_part_the_run_folder_is_the_latest_model(make_trainer):
    trainer = make_trainer(steps=3)
    trainer.train()
    tensors = open_checkpoint(trainer.run).tensors
    assert_same({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, weights(trainer))


def test_patience_ends_training(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=50, val_every=1, patience=3)
    trainer.validate = lambda _held_out: 1.0
    assert trainer.train() == "no better"
    assert trainer.step == 3
    assert [state.name for state in states(trainer.run)] == ["state-0000003"]


def test_validation_is_a_mean_over_the_same_evenly_spread_windows_and_leaves_training_alone(make_trainer):
    held_out = Windows(Ring(Documents.of([np.arange(1, 51)] * 4), separator=0), 12, seed=0)
    trainer = make_trainer(dropout=0.5, val_batch_size=3, val_batch_count=2)
    before = weights(trainer)
    first = trainer.validate(held_out)
    assert trainer.validate(held_out) == first
    assert_same(before, weights(trainer))
    assert first == pytest.approx(math.log(64), abs=0.3)
    seen = np.concatenate([batch.tokens for batch in held_out.in_order(3, 6)])
    assert len(seen) == 6 < len(held_out)


def test_first_updates_may_choose_among_the_datasets_own_tokens(make_trainer):
    trainer = make_trainer(narrow_steps=3, weight_decay=0.0, steps=300)
    start = weights(trainer)["wte.weight"]
    for _ in range(3):
        trainer.update()
    narrow = weights(trainer)["wte.weight"]
    assert torch.equal(start[51:], narrow[51:])
    assert not torch.equal(start[1:51], narrow[1:51])
    for _ in range(200):
        trainer.update()
    trainer.model.eval()
    logits = trainer.model.logits(trainer.model.hidden(torch.arange(1, 13)[None]))
    assert logits.softmax(-1)[..., 51:].sum(-1).max() < 0.01


def test_lora_saves_a_merged_model_and_a_state_of_the_adapter_alone(make_trainer):
    trainer = make_trainer(lora=2, lora_targets="attn.q,mlp.fc", steps=4)
    start = {name: t.clone() for name, t in trainer.tensors().items()}
    trainer.train()
    state = load_state(trainer.last_state)
    assert state.kind == "adapter"
    assert sum(t.numel() for t in state.weights.values()) < 0.2 * sum(t.numel() for t in start.values())
    merged = {n: torch.from_numpy(np.array(t)) for n, t in open_checkpoint(trainer.run).tensors.items()}
    changed = {name for name in merged if not torch.equal(merged[name], start[name])}
    assert changed == {f"h.{i}.{name}.weight" for i in range(2) for name in ("attn.c_attn", "mlp.c_fc")}
    trainer.model.eval()
    tokens = torch.arange(12)[None]
    from gpt2lab.training.module import GPT2

    plain = GPT2(trainer.model.config).eval()
    plain.load_state_dict(merged)
    torch.testing.assert_close(plain.hidden(tokens), trainer.model.hidden(tokens), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({"lora": 2}, {}, "trained with --lora"),
        ({}, {"lora": 2}, "trained without --lora"),
        ({"lora": 2}, {"lora": 4}, "does not fit this model or optimizer"),
        ({"lora": 2, "lora_targets": "attn.q"}, {"lora": 2}, "is in only one of the two"),
        (
            {},
            {"config": ModelConfig(n_vocab=64, n_ctx=12, n_embd=8, n_head=2, n_layer=2)},
            r"\[48\] in the state, \[24\] in the model",
        ),
        ({}, {"config": ModelConfig(n_vocab=64, n_ctx=12, n_embd=16, n_head=2, n_layer=3)}, "h.2"),
        (
            {},
            {"config": ModelConfig(n_vocab=64, n_ctx=12, n_embd=16, n_head=4, n_layer=2)},
            "n_head is 2 in the state, 4",
        ),
        *[
            ({"optimizer": a}, {"optimizer": b}, "does not fit this model or optimizer")
            for a, b in permutations(OPTIMIZERS, 2)
        ],
    ],
)
def test_a_state_that_does_not_fit_is_refused(make_trainer, made, asked, message):
    trainer = make_trainer(**made)
    trainer.update()
    state = load_state(trainer.save())
    with pytest.raises(CheckpointError, match=message):
        restore(make_trainer(**asked), state)


def interrupt_at(trainer, step):
    update = trainer.update

    def interrupted_update():
        if trainer.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return update()

    trainer.update = interrupted_update


@pytest.mark.parametrize("step", range(1, 6))
def test_an_interrupt_at_any_step_changes_nothing_of_what_follows(make_trainer, counting, step):
    settings = {"held_out": counting, "steps": 5, "val_every": 2}
    whole, first, second = make_trainer("whole", **settings), *(make_trainer("parts", **settings) for _ in range(2))
    whole.train()
    interrupt_at(first, step)
    assert first.train() == "interrupted"
    restore(second, load_state(first.last_state))
    assert second.train() == "finished"
    for name in ("step", "best", "best_step", "since_best"):
        assert getattr(second, name) == getattr(whole, name), name
    assert_same(weights(whole), weights(second))
    assert (second.run / "model.safetensors").read_bytes() == (whole.run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("other", ["another text", "more of it", "nothing"])
def test_another_held_out_text_has_its_own_best(make_trainer, counting, other):
    first = make_trainer(held_out=counting, steps=2, val_every=1, val_batch_count=1)
    first.train()
    text = Windows(Ring(Documents.of([np.arange(50, 0, -1)] * 8), separator=0), 12, seed=3)
    held_out = {"another text": text, "more of it": counting, "nothing": None}[other]
    count = 2 if other == "more of it" else 1
    second = make_trainer(held_out=held_out, steps=3, val_every=1, val_batch_count=count)
    restore(second, load_state(first.last_state))
    assert second.reporter.said == ["the held-out text has changed: the choice of the best model starts again"]
    assert (second.best, second.best_step, second.since_best) == (math.inf, 0, 0)
    second.train()
    assert [made.step for made in second.reporter.validations] == ([] if held_out is None else [2, 3])


def test_a_state_of_before_these_were_remembered_loads(make_trainer, counting):
    first = make_trainer(held_out=counting, steps=2, val_every=1)
    first.train()
    state = load_state(first.last_state)
    for name in ("settings", "config", "held_out"):
        del state.progress[name]
    second = make_trainer(held_out=counting, steps=3, val_every=1, val_batch_count=1)
    restore(second, state)
    assert (second.best, second.best_step) == (first.best, first.best_step)


def test_a_run_that_validates_no_more_keeps_its_latest_model(make_trainer, counting):
    first = make_trainer(held_out=counting, steps=2, val_every=1)
    first.train()
    second = make_trainer(held_out=counting, steps=4, val_every=0)
    restore(second, load_state(first.last_state))
    second.train()
    tensors = open_checkpoint(second.run).tensors
    assert_same({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, weights(second))


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_are_no_numbers_are_not_saved(make_trainer, counting, validated):
    trainer = make_trainer(held_out=counting if validated else None, steps=2, val_every=2)
    update = trainer.update

    def breaking_update():
        loss = update()
        if trainer.step == trainer.last_step:
            trainer.model.h[0].mlp.c_fc.weight.data[0, 0] = math.nan
        return loss

    trainer.update = breaking_update
    with pytest.raises(TrainingError, match="held-out loss is nan" if validated else "weights are not finite"):
        trainer.train()
    assert states(trainer.run) == []
    assert validated == (trainer.run / "model.safetensors").exists()  # that of before training
