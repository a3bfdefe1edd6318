"""Perplexity of the user's files and of WikiText: what counts, and how text is prepared."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import needs
from gpt2lab import scoring
from gpt2lab.errors import UsageError
from gpt2lab.evaluating import TEXTS, corpora, evaluate
from gpt2lab.evaluating.detokenizing import wikitext
from gpt2lab.evaluating.sources import Source

STORY = "Käthe had a goose. The goose had no opinion.\r\nThat was all there was to say about it.\n"


def figures(evaluation):
    return {(figure.protocol, figure.metric): figure.value for figure in evaluation.figures}


def nats(run, text, stride=64):
    return -sum(scoring.token_logprobs(run.engine, [50256, *run.tokenizer.encode(text)], stride))


def test_line_ends_are_read_as_in_training_and_bytes_are_those_of_the_text_read(run, tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"\xef\xbb\xbf" + STORY.encode())
    text = STORY.replace("\r\n", "\n")
    found = evaluate("perplexity", run, data=str(path), stride=64)
    assert found.counts == {"bytes": len(text.encode()), "tokens": len(run.tokenizer.encode(text))}
    bits = figures(found)["non-overlapping, stride 64", "bits per byte"]
    assert bits == pytest.approx(nats(run, text) / math.log(2) / len(text.encode()), rel=1e-6)


def test_both_strides_are_shown_by_default(run, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY * 10, encoding="utf-8")
    found = evaluate("perplexity", run, data=str(path))
    assert {protocol for protocol, _ in figures(found)} == {"non-overlapping, stride 64", "strided, stride 32"}
    assert all(figure.error > 0 for figure in found.figures)


def test_records_and_files_are_documents_of_their_own(run, tmp_path):
    (tmp_path / "a.txt").write_text("One goose.", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Two geese.", encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in ("One goose.", "Two geese.")]
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    folder = figures(evaluate("perplexity", run, data=str(tmp_path), stride=64))
    records = figures(evaluate("perplexity", run, data=str(tmp_path / "c.jsonl"), stride=64))
    assert folder == records
    total = nats(run, "One goose.") + nats(run, "Two geese.")
    assert folder["non-overlapping, stride 64", "bits per byte"] == pytest.approx(total / math.log(2) / 20, rel=1e-6)


def test_a_limit_is_of_lines(run, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("first\nsecond\nthird\n", encoding="utf-8")
    assert evaluate("perplexity", replace(run, limit=2), data=str(path), stride=64).counts["bytes"] == len(
        "first\nsecond\n"
    )


def test_an_empty_file_is_refused(run, tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match=r"empty\.txt is empty"):
        evaluate("perplexity", run, data=str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc\xff", r"not UTF-8 text \(byte 3, line 1\)"),
        (b"ab\ncd\0", r"x\.txt is a binary file, not text \(byte 5 is 0\)"),
        ("wide".encode("utf-16-le"), r"byte 1 is 0"),
    ],
)
def test_a_binary_file_is_refused(run, tmp_path, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        evaluate("perplexity", run, data=str(tmp_path / "x.txt"))


def test_wikitext_divides_by_its_authors_words_and_bytes(run, data):
    path = data / "wiki.test.raw"
    raw = path.read_text("utf-8")
    found = corpora.wikitext(run, Source(path), 64, ["detokenised", "raw"])
    words = len(raw.split()) + raw.count("\n")
    assert found.counts["words"] == words
    assert found.counts["bytes"] == len(raw.encode())
    detokenized = nats(run, "".join(map(wikitext, raw.splitlines(keepends=True))))
    for protocol, total in (("raw", nats(run, raw)), ("detokenised", detokenized)):
        name = f"{protocol}, non-overlapping, stride 64"
        assert figures(found)[name, "perplexity per word"] == pytest.approx(math.exp(total / words), rel=1e-5)
        assert figures(found)[name, "bits per byte"] == pytest.approx(total / math.log(2) / len(raw.encode()), rel=1e-5)


def test_the_guides_text_is_that_of_the_hubs_rows_joined(run, data, hf_logprobs):
    raw = (data / "wiki.test.raw").read_text("utf-8")
    rows = [line if line.strip() else "" for line in raw.splitlines(keepends=True)]
    ids = run.tokenizer.encode("\n\n".join(rows))
    found = figures(corpora.wikitext(run, Source(data / "wiki.test.raw"), 64, ["guide"]))
    logprobs = []
    for begin in range(0, len(ids), 64):
        window = ids[begin : begin + 64]
        logprobs += hf_logprobs(window)[np.arange(len(window) - 1), window[1:]].tolist()
    assert found == {
        ("guide, non-overlapping, stride 64", "perplexity per token"): pytest.approx(
            math.exp(-np.mean(logprobs)), rel=1e-4
        )
    }


def test_the_hubs_parquet_is_the_same_text(run, data, tmp_path):
    pyarrow = needs.package("pyarrow")
    lines = (data / "wiki.test.raw").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "wiki.test.raw").write_text(
        "".join(lines[1:]), encoding="utf-8"
    )  # all empty lines of this file hold a space
    rows = [{"text": line if line.strip() else ""} for line in lines[1:]]
    importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = corpora.wikitext(run, Source(tmp_path / "x.parquet"), None, TEXTS)
    assert found == corpora.wikitext(run, Source(tmp_path / "wiki.test.raw"), None, TEXTS)


def test_options_that_a_task_has_not_are_refused(run):
    for options, message in (
        ({"task": "lambda"}, "unknown task 'lambda'"),
        ({"task": "hellaswag", "stride": 5}, "hellaswag takes no stride"),
        ({"task": "wikitext2", "stride": 65}, "stride must be from 1 to"),
        ({"task": "cbt-cn", "texts": ["guide"]}, "cbt-cn has no text 'guide'; it has detokenised, raw"),
        ({"task": "lambada", "texts": ["raw"]}, "lambada has no text 'raw'"),
        ({"task": "perplexity"}, "give --data FILE"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(**{"run": run, **options})
    with pytest.raises(UsageError, match="limit must be at least 1, got 0"):
        evaluate("lambada", replace(run, limit=0))
