"""The results of :class:`gpt2lab.LanguageModel` in a console and in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt2lab
from notebooks import Elements

GOLDEN = Path(__file__).parent / "golden"
NASTY = "</div><script>alert('1')</script><img src=x onerror=\"alert(2)\">"


@pytest.fixture(scope="module")
def model() -> gpt2lab.LanguageModel:
    return gpt2lab.load(GOLDEN / "tiny")


@pytest.fixture(scope="module")
def without_tokenizer() -> gpt2lab.LanguageModel:
    model = gpt2lab.load(GOLDEN / "odd")
    assert model.tokenizer is None
    return model


def shown(result: object) -> Elements:
    """Return what a notebook shows of ``result``, after checks that hold for every result."""
    elements = Elements(result._repr_html_())
    assert elements.open == []
    assert not {"script", "img", "iframe"} & set(elements.tags)
    assert {key for key, _ in elements.attributes} <= {"class", "style", "title", "role", "aria-label", "scope"}
    return elements


def test_a_completion_prints_as_one_line(model):
    written = repr(model.generate("Once upon a time," * 9, length=15, seed=1))
    assert written.startswith("<Completion of 'Once upon a time,") and written.endswith("seed 1, index 0)>")
    assert len(written) < 160


def test_a_completion_shows_prompt_and_text(model):
    completion = model.generate(NASTY, length=8, seed=1)
    assert completion.token_texts is None
    elements = shown(completion)
    assert elements.text.startswith(NASTY + completion.text)
    assert not [name for name in elements.values("class") if name.startswith("t ")]


def test_a_completion_with_logprobs_is_coloured(model):
    completion = model.generate(NASTY, length=8, seed=1, logprobs=True)
    assert "".join(completion.token_texts) == completion.text
    elements = shown(completion)
    assert elements.text.startswith(NASTY + completion.text)
    titles = elements.values("title")
    assert len(titles) == len(completion.tokens)
    assert titles[0].splitlines()[-1] == f"id: {completion.tokens[0]}"


def test_a_coloured_completion_ends_before_its_stop_string(model):
    whole = model.generate("Once", length=8, seed=1, logprobs=True)
    stop = whole.text[-6:-2]
    cut = model.generate("Once", length=8, seed=1, logprobs=True, stop=stop)
    assert stop not in cut.text and stop in "".join(cut.token_texts)
    elements = shown(cut)
    assert elements.text.startswith("Once" + cut.text + "Probability")


def test_a_completion_of_ids_shows_ids(without_tokenizer):
    completion = without_tokenizer.generate([1, 2, 3], length=4, seed=1, logprobs=True)
    assert completion.token_texts is None
    assert "3 ids" in repr(completion)
    assert shown(completion).text.startswith("1 2 3" + " ".join(map(str, completion.tokens)))


def test_a_score_is_a_coloured_text_with_its_figures(model):
    score = model.score("naïve 漢字 " + NASTY)
    assert "".join(score.texts) == "naïve 漢字 " + NASTY
    elements = shown(score)
    assert elements.text.startswith("naïve 漢字 " + NASTY)
    assert f"perplexity {score.perplexity:.3f}" in elements.text
    assert repr(score) == (
        f"<ScoreResult of {len(score.tokens)} tokens: loss {score.loss:.4f} nats a token, "
        f"perplexity {score.perplexity:.3f}, {score.bits_per_byte:.3f} bits a byte>"
    )


def test_an_empty_score_can_be_shown(model):
    assert "0 tokens" in shown(model.score("")).text


def test_a_score_without_tokenizer_shows_ids(without_tokenizer):
    assert "#2 #3 " in shown(without_tokenizer.score([1, 2, 3])).text


def test_the_next_token_is_a_table_of_stages(model):
    found = model.next_token("The king", temperature=0.7, top_k=3, top=5)
    elements = shown(found)
    assert elements.tags.count("tr") == 1 + 5
    assert "top_k (3 tokens)" in elements.text
    best = found.candidates[0]
    assert repr(found).startswith(f"<NextToken after 2 tokens: {best.text!r} ")


def test_a_stream_is_shown_as_it_arrives(model, capsys):
    expected = model.generate("Once upon", length=8, seed=1).text
    seen = []
    stream = model.stream("Once upon", length=8, seed=1)
    pieces = iter([*stream])
    stream = type(stream)((seen.append(capsys.readouterr().out) or piece for piece in pieces), "Once upon")
    stream._ipython_display_()
    assert seen[0] == "Once upon" and len(seen) > 2  # each piece was printed before the next was made
    assert "".join(seen) + capsys.readouterr().out == f"Once upon{expected}\n"


def test_a_stream_that_is_interrupted_while_shown_is_closed(model, monkeypatch):
    def interrupted(*text, **how):
        raise KeyboardInterrupt

    stream = model.stream("Once upon", length=8, seed=1)
    next(stream)
    monkeypatch.setattr("builtins.print", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream._ipython_display_()
    assert list(stream) == []


def test_a_stream_prints_as_one_line(model):
    assert repr(model.stream("Once upon", length=8)) == "<TextStream after 'Once upon': iterate over it for the text>"
