"""``gpt2lab bench``: every workload in every requested precision, and invalid requests. No figure is judged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import gpt2lab as package
from gpt2lab.benchmarking import bytes_per_step, measure, random_checkpoint, workloads
from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import UsageError
from gpt2lab.weights import tensor_shapes

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


def test_a_line_for_every_workload(gpt2lab) -> None:
    result = gpt2lab("bench", "--model_name", TINY, "--rounds", 1, "--threads", 1)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [re.split(r"  +", line)[:2] for line in lines[1:]] == [
        ["int8", "decode"],
        ["int8", "batch of 8"],
        ["int8", "prompt"],
    ]


def test_json_has_an_object_for_every_precision(gpt2lab) -> None:
    result = gpt2lab("bench", "--model_name", TINY, "--precision", "all", "--rounds", 1, "--threads", 1, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["precision"] for record in records] == list(PRECISIONS)
    for record in records:
        assert (record["rounds"], record["threads"]) == (1, 1)
        assert [entry["workload"] for entry in record["results"]] == ["decode", "batch of 8", "prompt"]
        assert [entry["gb_s"] is None for entry in record["results"]] == [False, True, True]
        for entry in record["results"]:
            assert 0 < entry["tokens_s"]["min"] <= entry["tokens_s"]["median"] <= entry["tokens_s"]["max"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rounds", 0), "rounds must be at least 1, got 0"),
        (("--random", "124M"), "--model_name or --random, not both"),
        (("--threads", 0), "threads must be"),
    ],
)
def test_bad_values_are_one_line(gpt2lab, flags, message) -> None:
    result = gpt2lab("bench", "--model_name", TINY, *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_an_unknown_size_is_one_line(gpt2lab) -> None:
    result = gpt2lab("bench", "--random", "125M")
    assert result.exit_code == 2
    assert "unknown size '125M'" in result.stderr


def test_random_weights_have_the_shape_of_the_size_and_are_the_same_each_time() -> None:
    checkpoint = random_checkpoint("gpt2")
    assert checkpoint.config == RELEASED_SIZES["124M"]
    assert list(checkpoint.tensors) == list(tensor_shapes(checkpoint.config))
    matrix = checkpoint.tensors["h.3.attn.c_attn.weight"]
    assert matrix.shape == (768, 2304)
    assert (matrix == random_checkpoint("124M").tensors["h.3.attn.c_attn.weight"]).all()
    assert matrix.std() == pytest.approx(0.02, rel=0.05)
    assert set(checkpoint.tensors["h.3.ln_1.weight"]) == {1.0}


@pytest.mark.parametrize("n_ctx", [4, 5, 8, 64, 512, 1024])
def test_workloads_fit_the_context(n_ctx: int) -> None:
    made = workloads(n_ctx)
    assert all(workload.prompt > 0 and workload.prompt + workload.new <= n_ctx for workload in made)
    assert [workload.new > 1 for workload in made] == [True, True, False]


@pytest.mark.parametrize("n_ctx", [1, 3])
def test_a_context_without_room_for_two_tokens_is_not_timed(n_ctx: int) -> None:
    with pytest.raises(UsageError, match=f"a context of {n_ctx} tokens is too short"):
        workloads(n_ctx)


def test_bytes_per_step_are_weights_keys_and_values() -> None:
    config = ModelConfig(n_vocab=100, n_ctx=16, n_embd=32, n_head=2, n_layer=1)
    weights = 100 * 32 + 12 * 32 * 32
    others = 4 * (config.n_params - weights - 16 * 32)
    assert bytes_per_step(config, "float32", context=0) == 4 * weights + others
    assert bytes_per_step(config, "int8", context=0) == weights * 65 // 64 + others
    keys_and_values = 2 * 10 * (32 + 2 * 4)
    assert bytes_per_step(config, "int4", context=10, batch=3) == weights * 35 // 64 + others + 3 * keys_and_values


def test_every_round_has_its_figure() -> None:
    model = package.load(TINY, precision="float32", threads=1)
    speeds = list(measure(model, rounds=3))
    assert [len(speed.tokens_s) for speed in speeds] == [3, 3, 3]
    assert all(figure > 0 for speed in speeds for figure in speed.tokens_s)
    with pytest.raises(UsageError):
        measure(model, rounds=0)
