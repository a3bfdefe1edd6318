import json

import numpy as np
import pytest
import time_to_loss
from time_to_loss_driver import nanogpt_rates


def test_a_loss_is_reached_at_the_first_validation_that_is_not_above_it():
    curve = [[50, 1.0, 2.0, 2.5], [100, 2.0, 4.0, 1.88], [150, 3.0, 6.0, 1.7]]
    assert time_to_loss.reached(curve, 1.88) == 2.0
    assert time_to_loss.reached(curve, 1.0) is None


def test_seconds_are_left_open_if_a_seed_never_gets_there():
    reaches, fails = [[50, 1.0, 2.0, 1.5]], [[50, 1.0, 2.0, 2.5]]
    assert time_to_loss.summary([reaches, fails], 1.88)["seconds"] is None
    assert time_to_loss.summary([reaches, reaches], 1.88)["seconds"] == 1.0


def test_nanogpt_is_beside_the_best_setting_of_gpt2lab(capsys):
    seconds = {"gpt2lab": 4.0, "gpt2lab, bfloat16": 2.0, "nanoGPT": 6.0}
    records = [{"row": "shakespeare", "name": n, "curve": [[50, s, s, 1.5]]} for n, s in seconds.items()]
    time_to_loss.report(records, ["shakespeare"])
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("| nanoGPT |")).split("|")[3].strip() == "3.00"
    assert json.loads(lines[-1])["rows"]["shakespeare"]["nanoGPT"]["seconds"] == 6.0


def test_characters_are_numbered_as_nanogpt_does(tmp_path):
    (tmp_path / "text").write_text("banana cake")
    assert time_to_loss.write_ids(tmp_path / "text", tmp_path, characters=True) == 7
    train, held_out = (np.fromfile(tmp_path / f"{name}.bin", np.uint16) for name in ("train", "val"))
    assert [*train, *held_out] == [" abcekn".index(character) for character in "banana cake"]
    assert len(held_out) == 2


def test_nanogpts_rate_rises_and_falls_to_a_tenth():
    rates = list(nanogpt_rates(200, peak=1.0, warm=100))
    assert rates[0] == pytest.approx(1 / 101)
    assert max(rates) == rates[100] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)
