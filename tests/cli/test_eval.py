"""``gpt2lab eval`` from the command line, on the built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.weights import Checkpoint, convert, tensor_shapes

DATA = Path(__file__).parents[1] / "evaluating" / "data"


def error_of(result):
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("gpt2lab: error: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_a_benchmark_is_shown_beside_what_others_found(gpt2lab):
    result = gpt2lab("eval", "lambada", "--data", DATA / "lambada_test.jsonl")
    assert result.exit_code == 0, result.output
    assert "last word, stop-word filter" in result.stdout and "4 examples" in result.stdout
    for word in ("124M", "355M", "774M", "1558M", "45.99 %", "63.24 %", "40.06"):
        assert word in result.stdout


def test_perplexity_of_a_text_is_that_of_score(gpt2lab, tmp_path):
    (tmp_path / "tale.txt").write_text("Once upon a time there was a king who had three sons. " * 20)
    found = json.loads(gpt2lab("eval", "perplexity", "--data", tmp_path / "tale.txt", "--json").stdout)
    scored = json.loads(gpt2lab("score", tmp_path / "tale.txt", "--json").stdout)
    values = {figure["metric"]: figure["value"] for figure in found["figures"]}
    assert values["perplexity per token"] == pytest.approx(scored["perplexity"], rel=1e-4)
    assert values["bits per byte"] == pytest.approx(scored["bits_per_byte"], rel=1e-4)
    assert found["counts"]["bytes"] == scored["n_bytes"]
    assert found["precision"] == "float32"


def test_json_has_every_figure_and_those_published(gpt2lab):
    result = gpt2lab("eval", "cbt_cn", "--data", DATA, "--json", "--limit", 1, "--precision", "int8")
    found = json.loads(result.stdout)
    assert found["task"] == "cbt-cn" and found["precision"] == "int8" and found["counts"]["examples"] == 1
    assert found["figures"][0]["standard_error"] is None
    assert found["published"][0]["values"]["124M"] == 87.65


def test_several_tasks_need_their_own_data(gpt2lab):
    assert "--data applies to a single task, got lambada, hellaswag" in error_of(
        gpt2lab("eval", "lambada", "hellaswag", "--data", DATA)
    )


def test_an_unknown_task_is_refused(gpt2lab):
    assert "unknown task 'piqa'; tasks are perplexity, lambada" in error_of(gpt2lab("eval", "piqa"))


def test_a_model_without_a_tokenizer_is_refused(gpt2lab, tmp_path):
    config = ModelConfig(n_vocab=23, n_ctx=7, n_embd=4, n_head=1, n_layer=1)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    convert(Checkpoint(config, tensors, None, "test", "float32", tmp_path), tmp_path / "model")
    result = gpt2lab("eval", "lambada", "--data", DATA, "--model_name", tmp_path / "model")
    assert "has no tokenizer" in error_of(result)


def test_malformed_data_is_one_line(gpt2lab, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "one two"}\n{')
    assert "line 2 of" in error_of(gpt2lab("eval", "lambada", "--data", tmp_path / "x.jsonl"))
