"""The longest copied run against a plain search, and dictionaries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.errors import UsageError
from gpt2lab.exploring import copying
from gpt2lab.exploring.copying import Run, longest_runs, read_corpus, vocabulary, words_of

texts = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=12).map(" ".join)


def longest_by_search(text: str, corpus: list[str]) -> int:
    words = text.split()
    hay = [f" {' '.join(each.split())} " for each in corpus]
    runs = [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    return max((len(run) for run in runs if any(f" {' '.join(run)} " in each for each in hay)), default=0)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=3))
def test_the_longest_run_is_that_of_a_plain_search(samples, corpus):
    found = longest_runs(samples, corpus)
    assert [run.n_words for run in found] == [longest_by_search(sample, corpus) for sample in samples]
    for run, sample in zip(found, samples, strict=True):
        assert run.text in " ".join(sample.split()) and len(run.text.split()) == run.n_words


def test_line_breaks_do_not_matter_and_texts_do_not_run_into_each_other():
    assert longest_runs(["once upon a time"], ["…\nonce  upon\na time?"]) == [Run(3, "once upon a")]
    assert longest_runs(["a b c d"], ["x a b", "c d y"]) == [Run(2, "a b")]


def test_blocks_do_not_break_a_run(monkeypatch):
    monkeypatch.setattr(copying, "BLOCK", 7)
    text = "the quick brown fox jumps over the lazy dog"
    assert longest_runs([text], [text]) == [Run(9, text)]


def test_words_are_letters_in_lower_case_with_apostrophes():
    assert words_of("Don’t STOP: it's 2 o'clock, 'Été'!") == ["don't", "stop", "it's", "o'clock", "été"]
    assert vocabulary(["One two\n", "TWO three"]) == {"one", "two", "three"}


def test_a_corpus_is_a_file_or_the_txt_files_of_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")
    (tmp_path / "a.txt").write_text("\ufeffone", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    assert list(read_corpus(str(tmp_path))) == ["one", "two"]
    assert list(read_corpus(str(tmp_path / "b.txt"))) == ["two"]
    with pytest.raises(UsageError, match=r"c.bin is not UTF-8 text \(byte 0\)"):
        list(read_corpus(str(tmp_path / "c.bin")))
    with pytest.raises(UsageError, match="cannot read"):
        list(read_corpus(str(tmp_path / "none")))
