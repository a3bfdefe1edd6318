from gpt2lab.training.checkpoints import load_state
from gpt2lab.training.pace import Pace
from gpt2lab.training.restoring import restore
from gpt2lab.training.resuming import ended


def paced(minutes, steps=1000, each=2.0, count=5, between=0.0):
    pace = Pace(minutes, steps)
    for _ in range(count):
        pace.took(each, between)
    return pace


def last(pace, step, seconds):
    pace.plan(step, seconds)
    return pace.last


def test_the_time_left_is_filled_with_updates():
    assert last(paced(1), 5, 10.0) == 30


def test_a_slower_machine_makes_fewer():
    assert last(paced(1, each=5.0), 5, 10.0) == 15


def test_time_between_updates_counts_as_theirs():
    assert last(paced(1, between=3.0), 5, 10.0) == 15


def test_the_last_validation_has_its_time():
    pace = paced(1)
    pace.reserve = 20.0
    assert last(pace, 5, 10.0) == 20


def test_steps_are_the_most_updates():
    assert last(paced(1, steps=12), 5, 10.0) == 12


def test_after_the_deadline_there_are_no_more():
    assert last(paced(1), 31, 61.0) == 31


def test_a_resumed_run_begins_with_its_earlier_pace():
    assert last(Pace(1, 1000), 10, 20.0) == 30


def test_a_new_run_has_time_for_all():
    assert last(Pace(1, 1000), 0, 0.0) == 1000


def test_the_rate_falls_to_its_end_by_the_deadline(make_trainer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gpt2lab.training.loop.time.perf_counter", lambda: now[0])
    trainer = make_trainer(steps=500, minutes=1, schedule="stable-decay", decay_steps=10, learning_rate=0.01)
    update = trainer.update

    def slow():
        now[0] += 1.0 if trainer.step < 20 else 2.0  # the machine becomes slower
        return update()

    trainer.update = slow
    rates = [made.learning_rate for made in trainer.updates()]
    assert trainer.outcome == "finished" and 56 <= now[0] <= 60
    assert rates[10] == 0.01 and rates[-1] < 0.003
    assert load_state(trainer.last_state).progress["step"] == trainer.step


def test_a_run_whose_time_is_over_stays_ended(make_trainer):
    trainer = make_trainer(steps=500, minutes=1e-9)
    trainer.train()
    again = make_trainer(steps=500, minutes=1e-9)
    restore(again, load_state(trainer.last_state))
    again.pace.plan(again.step, again.seconds)
    assert again.last_step == trainer.step == 1


def test_a_run_at_its_deadline_asks_for_more_minutes(make_trainer):
    trainer = make_trainer(steps=500, minutes=1e-9)
    trainer.train()
    again = make_trainer(steps=500, minutes=1e-9)
    restore(again, load_state(trainer.last_state))
    again.seconds = 0.0  # a plan may end shortly before the deadline
    again.pace.last = again.step
    assert ended(again).endswith("to continue, give more --minutes")
