import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
import needs
from gpt2lab import reference
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights.find import open_checkpoint

TOOLS = Path(__file__).parents[2] / "tools" / "tales"
sys.path.insert(0, str(TOOLS))

import build  # noqa: E402
import cutting  # noqa: E402
import difficulty  # noqa: E402
import judge  # noqa: E402
import overlap  # noqa: E402
import sizes  # noqa: E402
import texts  # noqa: E402

LONG = "The old fox went on and on until the wood was far behind him, and then he lay down to sleep. " * 6


def kept(*paragraphs):
    return cutting.cut("\n\n".join(["THE FOX", LONG, *paragraphs])).documents[0][1:]


@pytest.mark.parametrize(
    "heading",
    [
        "CHAPTER IV",
        "Chapter Twelve",
        "Chapter X. THE FOX SLEEPS.",
        "XII",
        "IX. THE ICE MAIDEN",
        "The Lost Half-Hour",
        "JUNE 5: A Cold",
        "STORY II",
    ],
)
def test_a_heading_starts_a_document_and_is_left_out(heading):
    made = cutting.cut(f"THE FOX\n\n{LONG}\n\n{heading}\n\n{LONG}")
    assert made.documents == [[LONG.strip()], [LONG.strip()]]


@pytest.mark.parametrize("line", ['"Yes," said he.', "I was glad.", "I cried.", "So Karin began:", "Mix it well."])
def test_a_short_sentence_is_no_heading(line):
    assert kept(line) == [line]


@pytest.mark.parametrize(
    "paragraph",
    [
        "[Illustration: a fox]",
        "* * * * *",
        "Note: this tale is told in many lands.",
        "(From the Cossack)",
        "Adapted from the French of Perrault",
        "This etext was made by Project Gutenberg.",
        "The night is cold, And the wind is bold, And the fox is old, With a heart of gold.",
    ],
)
def test_what_is_no_story_is_left_out(paragraph):
    assert kept(paragraph, "He woke up.") == ["He woke up."]


def test_verse_of_a_paragraph_a_line_is_left_out():
    lines = ["It is not he who runs away", "And hides himself in fear,", "But he who stands his ground."]
    assert kept(*lines, "So said the fox.") == ["So said the fox."]


def test_a_sentence_that_breaks_off_is_left_out():
    assert kept("He ran home. There he found that his", "He wept.") == ["He ran home.", "He wept."]


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("ONCE UPON A TIME there was a fox.", "Once upon a time there was a fox."),
        (
            "PETER RABBIT ran, and old Peter said to Rabbit and me",
            "Peter Rabbit ran, and old Peter said to Rabbit and me",
        ),
        ("I was glad.", "I was glad."),
        ("A fox ran.", "A fox ran."),
        ("NO MORE!", "NO MORE!"),
    ],
)
def test_capitals_at_the_beginning_of_a_chapter_become_small(printed, read):
    assert cutting.without_capitals(printed) == read


def test_the_preface_is_left_out_up_to_the_next_heading():
    assert cutting.cut(f"PREFACE\n\n{LONG}\n\nTHE FOX\n\n{LONG}").documents == [[LONG.strip()]]


def words(seed, count=200):
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(10_000, size=count))


def test_a_text_has_the_sequences_of_an_earlier_one_whatever_its_punctuation():
    text = words(1)
    each = [overlap.grams(one) for one in (text, words(2), text.upper().replace(" ", ", "), words(3) + " " + text)]
    assert overlap.seen_before(each).round(1).tolist() == [0, 0, 1, 0.5]
    assert overlap.shared_with(each, overlap.distinct(each[:1])).tolist() == [188, 0, 188, 188]


def test_a_text_shorter_than_a_sequence_has_none():
    assert len(overlap.grams("only a few words")) == 0


def test_short_words_in_short_sentences_are_simple():
    simple, hard = "The cat sat. The dog ran. " * 20, "Notwithstanding considerable perplexity, they acquiesced. " * 20
    low, high = difficulty.difficulty(difficulty.measures([simple, hard]))
    assert low < 0 < high


def test_weights_are_the_times_that_a_document_occurs():
    assert build.times(np.arange(9.0), [2, 1, 0], 0).tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert build.times(np.arange(3000.0), [0.5, 1, 1], 0)[:1000].mean() == pytest.approx(0.5, abs=0.05)


def test_every_candidate_fits_into_30_mb():
    assert all(shape.n_bytes <= sizes.LIMIT for shape in sizes.SHAPES)


def test_the_text_is_built_without_copies_of_what_is_held_out(tmp_path):
    stories, books = tmp_path / "stories", tmp_path / "books"
    stories.mkdir(), books.mkdir()
    for number in range(60):
        (stories / f"old-{number:03}.txt").write_text(f"Then {words(number)}.\n")
    copies = "\n\n".join(f"TALE {number + 1}\n\nThen {words(number)}." for number in range(60))
    (books / "again.txt").write_text(copies)
    (books / "aside.txt").write_text(f"ONE\n\nSo {words(100)}.")
    (books / "new.txt").write_text(f"ONE\n\nSo {words(101)}.\n\nTWO\n\nSo {words(100)}.")
    folders = ["--stories", str(stories), "--books", str(books), "--hold_out", "aside"]
    run = subprocess.run(
        [sys.executable, str(TOOLS / "build.py"), *folders, "--weights", "1", "1", "1", str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    texts = [json.loads(line)["text"] for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    aside = [path.read_text() for path in (tmp_path / "out" / "held-out" / "old").iterdir()]
    assert len(aside) == 1 and not set(aside) & set(texts)
    assert len(texts) == len(set(texts)) == 60  # 59 old stories and one new
    assert run.stdout.count("0.000% of its sequences") == 2
    assert (tmp_path / "out" / "train.tokens").is_dir()


def test_pairs_hide_which_story_is_whose_and_the_key_tells(tmp_path):
    old, new = [f"old {number}" for number in range(40)], [f"new {number}" for number in range(40)]
    judge.write_pairs(tmp_path / "pairs", old, new)
    rows = [line.split("\t") for line in (tmp_path / "pairs" / "key.tsv").read_text().splitlines()]
    for number, (name, key) in enumerate(rows):
        first, second = (tmp_path / "pairs" / f"{name}.txt").read_text().split("STORY B")
        which = first if key == "A is old" else second
        assert f"old {number}\n" in which and f"new {number}" not in which and f"new {number}\n" in first + second
    assert {key for _, key in rows} == {"A is old", "B is old"}


def test_the_probability_of_unused_tokens_is_theirs_together(tmp_path):
    text = "Once upon a time there was a fox."
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "fox.txt").write_text(text)
    model = gpt2lab.load(Path(__file__).parents[1] / "golden" / "tiny", precision="float32")
    logits = model.logits(text).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    seen = {*model.tokenizer.encode(text), model.tokenizer.end_of_text}
    expected = 1 - p[:, sorted(seen)].sum(-1).mean()
    assert judge.unused_probability(model, tmp_path / "texts", tmp_path / "texts") == pytest.approx(expected)


LIST = "slug\ttitle\tauthor\tgutenberg\tcharacters\nfox\tThe Fox: A Tale\tHill, A. (Ann); Low, B.\t12\t3456\n"


def test_tokens_that_never_occur_become_improbable_and_the_others_keep_their_rows():
    needs.package("torch")
    import unseen

    checkpoint = open_checkpoint(Path(__file__).parents[1] / "golden" / "tiny")
    tokens = np.tile(np.arange(100, 400), 4)
    made = unseen.without_unseen(checkpoint, Tokenizer.gpt2(), tokens, windows=8)
    rows, old = made.tensors["wte.weight"], checkpoint.tensors["wte.weight"]
    changed = np.flatnonzero((rows != old).any(-1))
    assert not np.isin(changed, [*range(100, 400), 50256]).any()

    def probability(weights):
        logits, _ = reference.forward(dict(weights), checkpoint.config, tokens[:50])
        return reference.softmax(logits)[:, changed].sum(-1).mean()

    assert probability(checkpoint.tensors) > 0.9
    assert probability(made.tensors) < 0.1


def test_the_table_of_books_names_what_is_held_out():
    assert texts.rows(LIST, {"fox"})[2] == "| The Fox | Hill, A.; Low, B. | 12 | 3,456 | held out |\n"
    assert texts.rows(LIST, set())[2] == "| The Fox | Hill, A.; Low, B. | 12 | 3,456 |  |\n"


def test_a_held_out_book_that_is_not_listed_is_a_mistake():
    with pytest.raises(ValueError, match="not in the list: cat"):
        texts.rows(LIST, {"cat"})
