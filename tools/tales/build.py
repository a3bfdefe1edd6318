"""Make the training text and the held-out texts of ``tales`` from two folders of books.

    python tools/tales/build.py --stories STORIES --books BOOKS --hold_out NAME [--hold_out NAME …] OUT

STORIES is the output of ``stories.py``. The pieces that ``gpt2lab train --held_out 0.025`` held out of it stay held
out. BOOKS has one text file a book; those named by ``--hold_out`` are held out as a whole, and ``cutting.py`` cuts the
others. Writes

    OUT/train.tokens/       shards for ``gpt2lab train --dataset``
    OUT/held-out/old, new/  a text file for each held-out document; ``held-out`` is for ``--val_dataset``
    OUT/report.tsv          characters before and after, and the characters left out of each book by reason
    OUT/documents.tsv       each training document with its difficulty and the number of times it occurs

A document is left out if sequences of 13 words of it are in a held-out text, or if most of them are in an earlier
document. The simplest third of the documents occurs twice in an epoch; ``--weights`` changes that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cutting import cut, noise, whole
from difficulty import difficulty, measures
from numpy.typing import NDArray
from overlap import Hashes, distinct, grams, seen_before, shared_with

from gpt2lab.data.open import open_documents
from gpt2lab.data.split import hold_out
from gpt2lab.tokenizer import Tokenizer

OLD_HELD_OUT = 0.025  # the share and the seed of the run that made the first tales
OLD_SEED = 0
MOST_SHARED = 0.01  # of a training document's sequences, with held-out texts
FEWEST_SHARED = 8  # of its sequences: a formula such as "once upon a time there was a king" is no copy
MOST_REPEATED = 0.25  # of a training document's sequences, with earlier documents


@dataclass
class Document:
    """A text to train on or to hold out."""

    name: str
    book: str
    text: str


def old_documents(stories: Path) -> tuple[list[Document], list[Document]]:
    """Return the documents of the first ``tales``: those it was trained on, and those held out."""
    files = sorted(stories.rglob("*.txt"))
    documents = open_documents([str(stories)], Tokenizer.gpt2())
    if len(documents) != len(files):
        raise SystemExit(f"{stories} has {len(files)} files, but {len(documents)} documents")
    order = np.random.default_rng(OLD_SEED).permutation(len(documents))
    ring = hold_out(documents, OLD_HELD_OUT, OLD_SEED)[1]
    if ring is None:
        raise SystemExit(f"{stories} is too small to hold anything out")
    aside = _chosen(documents.lengths, order, int(OLD_HELD_OUT * len(documents.tokens)))
    if len(aside) != ring.n_documents:
        raise SystemExit(f"{ring.n_documents} documents were held out of {stories}, but {len(aside)} were found again")
    made: tuple[list[Document], list[Document]] = [], []
    for number, file in enumerate(files):
        text = file.read_text(encoding="utf-8").strip()
        made[number in aside].append(Document(file.stem, file.stem.rpartition("-")[0], text))
    return made


def _chosen(lengths: NDArray[np.int64], order: NDArray[np.int64], room: int) -> set[int]:
    """Return the documents that :func:`gpt2lab.data.split.hold_out` holds out whole, in its order."""
    chosen, shortest = set[int](), int(lengths.min())
    for index in order.tolist():
        if room < shortest:
            break
        if lengths[index] <= room:
            chosen.add(index)
            room -= int(lengths[index])
    return chosen


def cleaned(text: str, left_out: Counter[str]) -> str:
    """Return a story of the old set without the paragraphs that ``cutting.py`` leaves out."""
    kept = []
    for paragraph in text.split("\n\n"):
        reason = noise(paragraph)
        rest = "" if reason else whole(paragraph)
        left_out[reason or "broken sentences"] += len(paragraph) - len(rest)
        kept += [rest] if rest else []
    return "\n\n".join(kept)


def new_documents(books: Path, held_out: Sequence[str]) -> tuple[list[Document], list[Document], list[list[object]]]:
    """Return the documents to train on, those of the held-out books, and a row of the report for each book."""
    made: tuple[list[Document], list[Document]] = [], []
    rows: list[list[object]] = []
    found = {file.stem: file for file in sorted(books.rglob("*.txt"))}
    if missing := sorted(set(held_out) - set(found)):
        raise SystemExit(f"{books} has no book {missing[0]}")
    for name, file in found.items():
        text = file.read_text(encoding="utf-8")
        parts = cut(text)
        for number, document in enumerate(parts.documents, 1):
            made[name in held_out].append(Document(f"{name}-{number:03}", name, "\n\n".join(document)))
        after = sum(len(paragraph) for document in parts.documents for paragraph in document)
        rows.append([name, len(text), after, len(parts.documents), json.dumps(dict(parts.left_out))])
    return (*made, rows)


def without_copies(documents: list[Document], held_out: list[Document]) -> tuple[list[Document], dict[str, str]]:
    """Return the documents that copy no held-out text and no earlier document, and why the others were left out."""
    each = [grams(document.text) for document in documents]
    others = distinct([grams(document.text) for document in held_out])
    shared = shared_with(each, others)
    sizes = np.maximum(1, [len(one) for one in each])
    copies = (shared >= FEWEST_SHARED) & (shared > MOST_SHARED * sizes)
    remaining = np.flatnonzero(~copies)
    repeated = np.zeros(len(each))
    repeated[remaining] = seen_before([each[index] for index in remaining])
    why = {documents[i].name: "shares text with the held-out sets" for i in np.flatnonzero(copies)}
    why |= {documents[i].name: "occurs twice" for i in np.flatnonzero(repeated > MOST_REPEATED)}
    return [document for document in documents if document.name not in why], why


def times(scores: NDArray[np.float64], weights: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return how often each document occurs: by the third of the difficulties that it is in.

    A weight's fraction is the probability of one more.
    """
    thirds = np.searchsorted(np.quantile(scores, [1 / 3, 2 / 3]), scores)
    wanted = np.asarray(weights)[thirds]
    more = np.random.default_rng(seed).random(len(scores)) < wanted - np.floor(wanted)
    counts: NDArray[np.int64] = (np.floor(wanted) + more).astype(np.int64)
    return counts


def overlap_line(name: str, held_out: list[Document], train: Hashes) -> str:
    """Return how much of a held-out set also occurs in the training text."""
    each = [grams(document.text) for document in held_out]
    shared = shared_with(each, train)
    sizes = np.maximum(1, [len(one) for one in each])
    worst = int(np.argmax(shared / sizes))
    size = sum(len(document.text) for document in held_out)
    return (
        f"held out, {name}: {len(held_out)} documents, {size:,} characters; {shared.sum() / sizes.sum():.3%} of its "
        f"sequences of 13 words are in the training text (most: {shared[worst] / sizes[worst]:.2%} of "
        f"{held_out[worst].name})"
    )


def write(out: Path, train: list[Document], counts: NDArray[np.int64], held_out: dict[str, list[Document]]) -> None:
    """Write the texts, and encode those to train on."""
    for name, documents in held_out.items():
        (out / "held-out" / name).mkdir(parents=True)
        for document in documents:
            path = out / "held-out" / name / f"{document.name}.txt"
            path.write_text(document.text + "\n", encoding="utf-8")
    with (out / "train.jsonl").open("w", encoding="utf-8") as file:
        for document, count in zip(train, counts.tolist(), strict=True):
            file.write((json.dumps({"text": document.text + "\n"}) + "\n") * count)
    encode = [sys.executable, "-m", "gpt2lab", "encode", str(out / "train.jsonl"), str(out / "train.tokens")]
    subprocess.run(encode, check=True)


def main() -> None:
    """Read the options, build, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, required=True)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--hold_out", action="append", required=True)
    parser.add_argument("--weights", type=float, nargs=3, default=[2, 1, 1], help="for simple, middling, hard texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out} exists: name a folder that does not")
    arguments.out.mkdir(parents=True)
    build(arguments)


def build(arguments: argparse.Namespace) -> None:
    """Build everything that the module's docstring lists."""
    old, old_aside = old_documents(arguments.stories)
    new, new_aside, rows = new_documents(arguments.books, arguments.hold_out)
    left_out: Counter[str] = Counter()
    before = sum(len(document.text) for document in old)
    old = [Document(each.name, each.book, cleaned(each.text, left_out)) for each in old]
    old = [each for each in old if each.text]
    rows.append(["(old stories)", before, sum(len(each.text) for each in old), len(old), json.dumps(left_out)])
    train, why = without_copies(old + new, old_aside + new_aside)
    table = measures([document.text for document in train])
    scores = difficulty(table)
    counts = times(scores, arguments.weights, arguments.seed)
    write(arguments.out, train, counts, {"old": old_aside, "new": new_aside})
    head = ["book", "characters", "kept", "documents", "left out"]
    _table(arguments.out / "report.tsv", [head, *rows, *(["(document left out)", name, why[name]] for name in why)])
    head = ["document", "difficulty", "letters a word", "words a sentence", "rare words", "times"]
    each = zip(train, scores, table, counts, strict=True)
    _table(
        arguments.out / "documents.tsv",
        [head, *([one.name, f"{s:.3f}", *(f"{x:.3f}" for x in row), n] for one, s, row, n in each)],
    )
    every = distinct([grams(document.text) for document in train])
    print(f"left out as copies: {Counter(why.values())}")
    print(f"train: {len(train)} documents, {sum(len(document.text) for document in train):,} characters")
    print(overlap_line("old", old_aside, every))
    print(overlap_line("new", new_aside, every))


def _table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
