"""The pure part of benchmarks/training.py."""

import training


def test_the_ratio_is_to_the_fastest_row_in_the_same_precision():
    speeds = {"gpt2lab": 10, "nanoGPT": 4, "nanoGPT, compiled": 5, "gpt2lab, bfloat16": 30, "nanoGPT, bfloat16": 20}
    results = {f"{name} 124M 1x1024": {"tokens_s": speed} for name, speed in speeds.items()}
    assert training.ratios_of("124M 1x1024", results) == {"float32": 2.0, "bfloat16": 1.5}
    assert training.ratios_of("124M 4x256", results) == {}
