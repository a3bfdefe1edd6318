"""Compare a new ``tales`` with the old one: bits per byte, stories for a blind comparison, copied runs, unused tokens.

    python tools/tales/judge.py --old tales --new checkpoint/tales2 --held_out DATA/held-out --train DATA OUT

DATA is what ``build.py`` wrote. Prints, for each model, bits per byte without overlap on the old and the new held-out
texts, the longest run of words that its stories copy from the training text, and the probability of all tokens that do
not occur there. Writes 40 pairs of stories (200 tokens, temperature 0.8, top-k 40) to ``OUT/pair-01.txt`` and so on,
each with the old and the new model's in random order; ``OUT/key.tsv`` names the models and is not for readers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import gpt2lab
from gpt2lab.data.open import open_documents
from gpt2lab.evaluating import Run, evaluate
from gpt2lab.exploring.copying import longest_runs
from gpt2lab.model import LanguageModel

PROMPT = "Once upon a time"
PAIRS, LENGTH = 40, 200
STYLE = {"temperature": 0.8, "top_k": 40}
PROBED = 24  # held-out windows of one context each
LONGEST_COPY = 30  # words
MOST_UNUSED = 2e-4  # probability


def bits_per_byte(model: LanguageModel, texts: Path) -> float:
    """Return the bits per byte of a folder of texts, in windows without overlap."""
    figures = evaluate("perplexity", Run(model.engine, model.tokenizer), data=str(texts)).figures
    return next(figure.value for figure in figures if figure.metric == "bits per byte")


def unused_probability(model: LanguageModel, train: Path, texts: Path) -> float:
    """Return the mean probability, over held-out tokens, of all ids together that do not occur in ``train``."""
    seen = np.unique(np.asarray(open_documents([str(train)], model.tokenizer).tokens[:]))
    unused = np.setdiff1d(np.arange(model.config.n_vocab), [*seen.tolist(), model.tokenizer.end_of_text])
    found = []
    files = sorted(texts.rglob("*.txt"))
    for file in files[:: max(1, len(files) // PROBED)]:
        ids = model.tokenizer.encode(file.read_text(encoding="utf-8"))[: model.config.n_ctx]
        logits = model.logits(ids).astype(np.float64)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        found.append(p[:, unused].sum(-1) / p.sum(-1))
    return float(np.concatenate(found).mean())


def stories(model: LanguageModel) -> list[str]:
    """Return the stories to compare; half of them begin with a prompt."""
    half = PAIRS // 2
    made = [*model.generate(PROMPT, n=half, length=LENGTH, seed=1, **STYLE)]
    made += model.generate("", n=PAIRS - half, length=LENGTH, seed=2, **STYLE)
    return [(PROMPT if number < half else "") + each.text for number, each in enumerate(made)]


def write_pairs(out: Path, old: Sequence[str], new: Sequence[str]) -> None:
    """Write a file for each pair, in random order, and the key."""
    out.mkdir(parents=True)
    swapped = np.random.default_rng().random(len(old)) < 0.5  # unseeded, so nobody can compute the key
    rows = []
    for number, (one, other, swap) in enumerate(zip(old, new, swapped.tolist(), strict=True), 1):
        first, second = (other, one) if swap else (one, other)
        page = f"STORY A\n\n{first.strip()}\n\n\nSTORY B\n\n{second.strip()}\n"
        (out / f"pair-{number:02}.txt").write_text(page, encoding="utf-8")
        rows.append(f"pair-{number:02}\t{'B' if swap else 'A'} is old\n")
    (out / "key.tsv").write_text("".join(rows), encoding="utf-8")


def training_text(path: Path) -> Iterator[str]:
    """Yield the training documents."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def main() -> None:
    """Read the options, write the pairs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default="tales")
    parser.add_argument("--new", required=True)
    parser.add_argument("--old_precision", default="int8")
    parser.add_argument("--new_precision", default="int8")
    parser.add_argument("--held_out", type=Path, required=True, help="a folder with the folders old and new")
    parser.add_argument("--train", type=Path, required=True, help="the folder with train.jsonl and train.tokens")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chosen = {"old": (arguments.old, arguments.old_precision), "new": (arguments.new, arguments.new_precision)}
    told: dict[str, list[str]] = {}
    print("| model | bits per byte, old texts | new texts | longest run copied | never-seen tokens |")
    print("|---|---|---|---|---|")
    for name, (model_name, precision) in chosen.items():
        model = gpt2lab.load(model_name, precision=precision)
        told[name] = stories(model)
        bits = [bits_per_byte(model, arguments.held_out / part) for part in ("old", "new")]
        copied = longest_runs(told[name], training_text(arguments.train / "train.jsonl"))
        run = max(copied, key=lambda run: run.n_words)
        unused = unused_probability(model, arguments.train / "train.tokens", arguments.held_out)
        marks = ["" if run.n_words <= LONGEST_COPY else " (too long)", "" if unused < MOST_UNUSED else " (too much)"]
        figures = f"{bits[0]:.4f} | {bits[1]:.4f} | {run.n_words} words{marks[0]} | {unused:.4%}{marks[1]}"
        print(f"| {name}: {model_name}, {precision} | {figures} |", flush=True)
    write_pairs(arguments.out, told["old"], told["new"])


if __name__ == "__main__":
    main()
