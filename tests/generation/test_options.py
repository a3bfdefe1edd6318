"""The values that options of generation accept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt2lab.errors import SamplingError, UsageError
from gpt2lab.generation.options import Options, make_options
from gpt2lab.sampling import SamplingParams


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"top_logprobs": -1}, "top_logprobs must be at least 0, got -1"),
        ({"stop": ("a", "")}, r"stop strings must be non-empty text, got \['a', ''\]"),
        ({"overflow": "wrap"}, "overflow must be one of error, slide, got 'wrap'"),
        ({"speculation": "on"}, "speculation must be one of auto, off, got 'on'"),
    ],
)
def test_options_check_themselves_however_they_are_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**{"sampling": SamplingParams(), "seed": 0, **wrong})
    with pytest.raises(UsageError, match=message):
        replace(make_options(), **wrong)
    with pytest.raises(UsageError, match=message):
        make_options(**wrong)


def test_a_seed_ends_below_two_to_the_63() -> None:
    assert make_options(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(SamplingError, match="seed must be below 2\\^63, got 9223372036854775808"):
        make_options(seed=2**63)


def test_whole_numbers_of_numpy_become_pythons() -> None:
    options = make_options(seed=np.int64(3), length=np.int32(4), batch_size=np.uint8(5), top_logprobs=np.int16(1))
    numbers = (options.seed, options.length, options.batch_size, options.top_logprobs)
    assert numbers == (3, 4, 5, 1)
    assert {type(number) for number in numbers} == {int}


def test_what_is_not_given_has_the_defaults_of_the_options_and_a_seed_of_its_own() -> None:
    options = make_options()
    assert options == Options(SamplingParams(), options.seed)
    assert options.seed != make_options().seed
