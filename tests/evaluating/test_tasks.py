"""Benchmarks on miniature data sets in each original's format, compared with plain loops over transformers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.errors import UsageError
from gpt2lab.evaluating import tasks
from gpt2lab.evaluating.sources import Source
from gpt2lab.evaluating.stop_words import STOP_WORDS, stop_tokens


def figures(evaluation):
    return {(figure.protocol, figure.metric): figure.value for figure in evaluation.figures}


def source(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Source(path)


@pytest.fixture
def loop(hf_logprobs, tokenizer):
    """Provide ``loop(context, ending)``: the log-probability of each of the ending's tokens after all before it."""

    def score(context, ending):
        before, after = tokenizer.encode(context), tokenizer.encode(ending)
        rows = hf_logprobs([*before, *after[:-1]])[-len(after) :]
        return rows[np.arange(len(after)), after], rows, after

    return score


# ---- LAMBADA --------------------------------------------------------------------------------------------------------


def learnt_passages(hf_logprobs, tokenizer):
    """Return passages whose last word the random model happens to predict greedily."""
    found = []
    for start in ("The baker had burnt", "Mira counted", "He asked to see", "In the end there was"):
        ids = tokenizer.encode(start)
        while len(ids) < 40:
            row = hf_logprobs(ids)[-1]
            words = [id for id in row.argsort()[::-1][:1000] if tokenizer.token_bytes(int(id))[1:].isalpha()]
            word = int(next(id for id in words if tokenizer.token_bytes(int(id)).startswith(b" ")))
            if row.argmax() == word:
                found.append(tokenizer.decode([*ids, word]))
                break
            ids.append(word)
    return found


def lambada_loop(passages, loop, tokenizer):
    """Compute the three protocols, one passage and one word at a time."""
    results = {"last word": [], "last token": [], "last word, stop-word filter": []}
    nats = {"last word": [], "last token": []}
    stops = stop_tokens(tokenizer)
    for passage in passages:
        context, word = passage.rsplit(" ", 1)
        logprobs, rows, ids = loop(context, " " + word)
        results["last word"].append(all(rows.argmax(-1) == ids))
        nats["last word"].append(-logprobs.sum())
        for old, new in (("“", '"'), ("”", '"'), ("``", '"'), ("''", '"')):
            context = context.replace(old, new)
        logprobs, rows, ids = loop("\n" + context, " " + word)
        results["last token"].append(rows[-1].argmax() == ids[-1])
        nats["last token"].append(-logprobs[-1])
        rows[0, stops] = -np.inf
        results["last word, stop-word filter"].append(all(rows.argmax(-1) == ids))
    wanted = {(protocol, "accuracy"): np.mean(hits) for protocol, hits in results.items()}
    return wanted | {(protocol, "perplexity"): math.exp(np.mean(values)) for protocol, values in nats.items()}


def test_lambada_is_a_plain_loop_over_transformers(run, data, loop):
    found = tasks.lambada(run, Source(data / "lambada_test.jsonl"))
    passages = [json.loads(line)["text"] for line in (data / "lambada_test.jsonl").read_text("utf-8").splitlines()]
    wanted = lambada_loop(passages, loop, run.tokenizer)
    assert figures(found) == pytest.approx(wanted, rel=1e-4)
    assert found.counts["examples"] == len(passages)


def test_lambada_counts_words_that_are_predicted(run, loop, hf_logprobs, tmp_path):
    passages = learnt_passages(hf_logprobs, run.tokenizer)
    assert passages, "the random model predicts nothing: choose another seed"
    lines = [json.dumps({"text": text}) for text in [*passages, "Something that is certainly not what it predicts"]]
    found = figures(tasks.lambada(run, source(tmp_path / "x.jsonl", *lines)))
    wanted = lambada_loop([json.loads(line)["text"] for line in lines], loop, run.tokenizer)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert found["last word", "accuracy"] >= len(passages) / (len(passages) + 1)


def test_the_original_plain_text_is_read_too(run, data):
    assert tasks.lambada(run, Source(data / "lambada_test_plain_text.txt")).counts["examples"] == 2


def test_openai_fed_straight_quotes_after_a_line_break():
    assert tasks.openai_prepared(" “Yes,” she said. ``No,'' he said") == '\n"Yes," she said. "No," he said'


def test_stop_tokens_spell_stop_words_with_and_without_a_space(tokenizer):
    ids = stop_tokens(tokenizer)
    assert {tokenizer.decode([id]).strip() for id in ids} == STOP_WORDS
    assert {tokenizer.encode(" the")[0], tokenizer.encode("the")[0]} <= set(ids)


def test_a_limit_takes_the_first_examples(run, data):
    assert tasks.lambada(replace(run, limit=3), Source(data / "lambada_test.jsonl")).counts["examples"] == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a b"', "line 2 of .* is not JSON"),
        ('["a b"]', "line 2 of .* must be a JSON object, got list"),
        ('{"txt": "a b"}', "line 2 of .* has no 'text'; its keys are 'txt'"),
        ('{"text": 5}', "line 2 of .*: 'text' must be a string, got 5"),
        ('{"text": "word"}', "line 2 of .* has fewer than two words"),
    ],
)
def test_malformed_lambada_names_the_line(run, tmp_path, line, message):
    with pytest.raises(UsageError, match=message):
        tasks.lambada(run, source(tmp_path / "x.jsonl", '{"text": "one two"}', line))


def test_a_file_that_is_not_utf8_names_the_line(run, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"one two\nthr\xe9\xe9 four\n")
    with pytest.raises(UsageError, match=r"line 2 of .*x\.txt is not UTF-8 text"):
        tasks.lambada(run, Source(tmp_path / "x.txt"))


@pytest.mark.parametrize("task", [tasks.lambada, tasks.hellaswag, tasks.cbt])
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_an_empty_file_is_refused(run, tmp_path, task, name):
    with pytest.raises(UsageError, match="has no examples"):
        task(run, source(tmp_path / name))


# ---- HellaSwag ------------------------------------------------------------------------------------------------------


def test_hellaswag_is_a_plain_loop_over_transformers(run, data, loop, tmp_path):
    path: Path = data / "hellaswag_val.jsonl"
    examples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    by_sum, by_mean = [], []
    for example in examples:
        scores = [loop(example["ctx"], " " + ending)[0] for ending in example["endings"]]
        by_sum.append(int(np.argmax([each.sum() for each in scores])))
        by_mean.append(int(np.argmax([each.mean() for each in scores])))
    assert by_sum != by_mean  # or the two could be mistaken for each other
    for chosen, metric in ((by_sum, "accuracy, sum"), (by_mean, "accuracy, mean")):
        lines = [json.dumps({**example, "label": label}) for example, label in zip(examples, chosen, strict=True)]
        found = figures(tasks.hellaswag(run, source(tmp_path / "x.jsonl", *lines)))
        assert found["completion", metric] == 1
    found = figures(tasks.hellaswag(run, Source(path)))
    labels = [example["label"] for example in examples]
    assert found["completion", "accuracy, sum"] == np.mean(np.equal(by_sum, labels))
    assert found["completion", "accuracy, mean"] == np.mean(np.equal(by_mean, labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 4}, "'label' must be from 0 to 3, got 4"),
        ({"label": None}, "'label' must be"),
        ({"endings": "abcd"}, "'endings' must be a list of at least two strings"),
        ({"ctx": None}, "'ctx' must be a string"),
    ],
)
def test_malformed_hellaswag_names_the_line(run, data, tmp_path, change, message):
    example = json.loads((data / "hellaswag_val.jsonl").read_text("utf-8").splitlines()[0])
    with pytest.raises(UsageError, match=f"line 1 of .*: {message}"):
        tasks.hellaswag(run, source(tmp_path / "x.jsonl", json.dumps({**example, **change})))


def test_labels_may_be_spelled_as_text(run, data, tmp_path):
    example = json.loads((data / "hellaswag_val.jsonl").read_text("utf-8").splitlines()[0])
    tasks.hellaswag(run, source(tmp_path / "x.jsonl", json.dumps({**example, "label": "3"})))


# ---- Children's Book Test -------------------------------------------------------------------------------------------


def cbt_loop(text, choices, loop):
    """Return the choice that makes itself and the rest of the sentence likeliest; contexts are cut to fit 64 tokens."""
    from gpt2lab import Tokenizer

    tokenizer = Tokenizer.gpt2()
    before, after = text.split("XXXXX")
    space = " " if before.endswith(" ") else ""
    endings = [space + choice + after for choice in choices]
    longest = max(len(tokenizer.encode(ending)) for ending in endings)
    context = tokenizer.decode(tokenizer.encode(before.removesuffix(" "))[-(65 - longest) :])
    return choices[int(np.argmax([loop(context, ending)[0].sum() for ending in endings]))]


@pytest.mark.parametrize("detokenized", [True, False])
def test_cbt_is_a_plain_loop_over_transformers(run, data, loop, detokenized, tmp_path):
    from gpt2lab.evaluating.detokenizing import treebank

    examples = (data / "cbtest_CN_valid_2000ex.txt").read_text("utf-8").split("\n\n")[:2]
    adapted = []
    for example in examples:
        lines = example.split("\n")
        question, _, _, choices = lines[20].partition(" ")[2].split("\t")
        text = " ".join([*(line.partition(" ")[2] for line in lines[:20]), question])
        best = cbt_loop(treebank(text) if detokenized else text, choices.split("|"), loop)
        adapted.append("\n".join([*lines[:20], f"21 {question}\t{best}\t\t{choices}"]))
    found = tasks.cbt(run, source(tmp_path / "x.txt", "\n\n".join(adapted)), detokenized=detokenized)
    assert [figure.value for figure in found.figures] == [1]
    assert found.counts["contexts cut at their beginning"] == 2


def test_an_answer_that_is_no_choice_counts_as_wrong_and_is_told(run, data, tmp_path):
    text = (data / "cbtest_NE_valid_2000ex.txt").read_text("utf-8").replace("\tKnut\t", "\tHarald\t")
    found = tasks.cbt(run, source(tmp_path / "x.txt", text))
    assert found.figures[0].value == 0
    assert found.counts["answers that are none of the choices"] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n3 ", "\n4 ", "line 3 of .* must begin with the number 3"),
        ("XXXXX", "Knut", "line 21 of .*: the question has no XXXXX"),
        ("\t\t", " ", "line 21 of .*: expected question, answer and choices between tabs, got 2 fields"),
        ("|", ", ", "line 21 of .*: expected at least two choices"),
        ("\n21 ", "\n22 ", "line 21 of .* must begin with the number 21"),
    ],
)
def test_malformed_cbt_names_the_line(run, data, tmp_path, old, new, message):
    text = (data / "cbtest_NE_valid_2000ex.txt").read_text("utf-8").replace(old, new)
    with pytest.raises(UsageError, match=message):
        tasks.cbt(run, source(tmp_path / "x.txt", text))


def test_cbt_cut_short_is_refused(run, data, tmp_path):
    lines = (data / "cbtest_NE_valid_2000ex.txt").read_text("utf-8").split("\n")[:7]
    with pytest.raises(UsageError, match="ends in the middle of an example, after line 7"):
        tasks.cbt(run, source(tmp_path / "x.txt", *lines))
