import json

import learning_rates
import pytest


def test_the_default_is_compared_with_the_lowest_loss():
    assert learning_rates.beside_best({1.0: 4.0, 2.0: 3.2, 0.5: 5.0}) == pytest.approx(1.25)
    assert learning_rates.beside_best({1.0: 4.0, 2.0: 4.4}) == 1.0


def test_a_sweep_without_the_default_says_nothing_about_it():
    assert learning_rates.beside_best({2.0: 3.2}) is None


def test_the_default_is_tried_first_among_nine_rates():
    assert learning_rates.FACTORS[0] == 1.0
    assert len(set(learning_rates.FACTORS)) == 9


def test_a_rate_that_diverged_is_never_the_best(capsys):
    key = {"text": "a.txt", "bytes": 9, "start": "scratch", "steps": 5, "flags": ""}
    records = [key | {"factor": 1.0, "loss": 4.0}, key | {"factor": 16.0, "error": "the loss is nan"}]
    learning_rates.report([(key, records)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["comparisons"][0]["default_over_best"] == 1.0
