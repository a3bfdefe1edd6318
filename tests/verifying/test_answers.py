"""The answers that come with gpt2lab, other answers files, and the benchmarks among the answers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from answers_table import MADE, PAGE, made
from oracle import random_checkpoint

from gpt2lab import Tokenizer
from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.errors import DownloadError, UsageError
from gpt2lab.evaluating import Run, evaluate
from gpt2lab.verifying import PUBLISHED, benchmarks, verify
from gpt2lab.verifying.answers import read_answers
from gpt2lab.verifying.benchmarks import Benchmark
from gpt2lab.verifying.checks import Digest, Greedy, Loss, Surprisals, Tokens
from gpt2lab.verifying.llm_c import Batch
from gpt2lab.weights.vocabulary import GPT2_ENCODER_SHA256, GPT2_MERGES_SHA256

DATA = Path(__file__).parents[1] / "evaluating" / "data"
TEXTS = {"lambada": "lambada_test.jsonl", "wikitext2": "wiki.test.raw", "hellaswag": "hellaswag_val.jsonl"}


def published(size):
    made = type("Made", (), {"config": RELEASED_SIZES[size]})
    return read_answers(PUBLISHED, size, made)


def of_kind(kind, *sizes):
    return [answer for size in sizes or RELEASED_SIZES for answer in published(size) if isinstance(answer.check, kind)]


@pytest.mark.parametrize("size", RELEASED_SIZES)
def test_every_size_has_answers_with_names_of_their_own_and_sources(size):
    answers = published(size)
    assert len({answer.name for answer in answers}) == len(answers) >= 5
    assert all(len(answer.source) > 10 for answer in answers)


def test_the_ids_of_the_published_texts_are_ours():
    tokenizer = Tokenizer.gpt2()
    assert all(tokenizer.encode(answer.check.text) == answer.check.ids for answer in of_kind(Tokens))
    for answer in of_kind(Surprisals):
        assert len(tokenizer.encode(answer.check.text)) == len(answer.check.nats) + (not answer.check.opened)


def test_ten_and_more_surprisals_and_continuations_are_published_for_124m():
    assert sum(len(answer.check.nats) for answer in of_kind(Surprisals, "124M")) >= 10
    assert len(of_kind(Greedy, "124M")) >= 5


def test_the_digests_of_the_vocabulary_are_those_of_openais_files():
    digests = {(answer.check.file, answer.check.sha256) for answer in of_kind(Digest)}
    assert digests >= {("vocab.json", GPT2_ENCODER_SHA256), ("merges.txt", GPT2_MERGES_SHA256)}
    assert all(len(sha256) == 64 for _, sha256 in digests)


def test_the_batch_of_llm_c_begins_as_its_file_does():
    subject = type("Any", (), {"tokenizer": Tokenizer.gpt2(), "end_of_text": 50256})
    for answer in of_kind(Batch, "124M"):
        ids = answer.check.ids(subject)
        assert len(ids) == 4 * 64 + 1
        assert ids[:6].tolist() == [50256, 5962, 22307, 25, 198, 8421]  # <|endoftext|>First Citizen:\nBefore


@pytest.fixture(scope="module")
def run():
    config = ModelConfig(n_embd=16, n_head=2, n_layer=1)  # with the context of the released sizes
    return Run(NativeEngine(random_checkpoint(config), threads=1), Tokenizer.gpt2())


def test_every_published_benchmark_is_one_that_eval_measures(run):
    for answer in of_kind(Benchmark):
        check = answer.check
        texts = (check.text,) if check.text else ()
        found = evaluate(check.task, run, data=str(DATA / TEXTS[check.task]), stride=check.stride, texts=texts)
        assert (check.protocol, check.metric) in {(each.protocol, each.metric) for each in found.figures}, answer.name


def lambada(value, tmp_path, **more):
    """Return an answers file with one accuracy on LAMBADA."""
    check = {"kind": "benchmark", "name": "LAMBADA", "source": "this test", "task": "lambada", "protocol": "last word"}
    given = {**check, "metric": "accuracy", "value": value, "tolerance": 0.01, "examples": 2, **more}
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"models": {"124M": [given]}}))
    return path


@pytest.fixture
def data(monkeypatch):
    """Let the benchmarks read their small data set here."""
    path = str(DATA / TEXTS["lambada"])
    monkeypatch.setattr("gpt2lab.verifying.benchmarks.evaluate", partial(evaluate, data=path))


def test_a_benchmark_uses_its_first_examples_and_their_error(hub, data, tmp_path):
    ((_, outcome),) = verify("124M", answers=lambada(0.0, tmp_path)).outcomes
    assert outcome.passed and outcome.values["examples"] == 2
    assert outcome.values["tolerance"] == pytest.approx(0.01 + 4 * outcome.values["standard_error"])


def test_a_whole_benchmark_has_only_its_own_tolerance(hub, data, tmp_path):
    ((_, outcome),) = verify("124M", answers=lambada(0.5, tmp_path), full=True).outcomes
    assert outcome.passed is False and outcome.values["tolerance"] == 0.01


def test_figures_of_one_evaluation_are_measured_once(hub, data, tmp_path, monkeypatch):
    path = lambada(0.5, tmp_path)
    content = json.loads(path.read_text())
    content["models"]["124M"] *= 3
    path.write_text(json.dumps(content))
    calls = []
    measured = benchmarks.evaluate
    monkeypatch.setattr(benchmarks, "evaluate", lambda *given, **more: calls.append(given) or measured(*given, **more))
    assert len(verify("124M", answers=path).outcomes) == 3
    assert len(calls) == 1


def test_a_benchmark_without_its_data_is_skipped_with_the_reason(hub, monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise DownloadError("no network")

    monkeypatch.setattr("gpt2lab.verifying.benchmarks.evaluate", unreachable)
    ((_, outcome),) = verify("124M", answers=lambada(0.5, tmp_path)).outcomes
    assert (outcome.passed, outcome.got) == (None, "no network")


def test_a_protocol_that_does_not_exist_names_those_that_do(hub, data, tmp_path):
    with pytest.raises(UsageError, match=r"has no accuracy \(guessing\); it has accuracy \(last word\)"):
        verify("124M", answers=lambada(0.5, tmp_path, protocol="guessing"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ('{"models": []}', "must be objects"),
        ('{"models": {"124M": [{}]}}', "answer 1 of 124M: 'kind' must be one of digest, tokens"),
        ('{"models": {"124M": [{"kind": "tokens"}]}}', "'name' and 'source' are needed"),
        ('{"models": {"124M": [{"kind": "tokens", "name": "a", "source": "b", "text": "c"}]}}', "'ids'"),
        (
            '{"models": {"124M": [{"kind": "tokens", "name": "a", "source": "b", "text": "c", "ids": "d"}]}}',
            "a list, each",
        ),
        ('{"models": {"124M": 5}}', "the answers of 124M must be a list"),
    ],
)
def test_a_malformed_answers_file_is_one_line(hub, tmp_path, content, says):
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(UsageError) as raised:
        verify("124M", answers=path)
    assert says in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_an_answer_about_nothing_is_refused():
    with pytest.raises(UsageError, match="'text' must not be empty"):
        Loss("", 1.0, 0.1)
    with pytest.raises(UsageError, match="'batch' and 'time' must be at least 1"):
        Batch(["a"], 0, 8)


def test_the_table_of_the_page_is_current():
    page = PAGE.read_text(encoding="utf-8")
    assert MADE.search(page)
    assert page == made(page), "run tools/answers_table.py"
