"""Rewrite everything in the repository that quotes the built-in model, from its file.

    python tools/new_tales.py [--held_out FOLDER] [--stories FOLDER] [--screenshots]

Run it after ``src/gpt2lab/assets/tales.gguf`` has changed, with gpt2lab installed and all its extras. With an unchanged
model, nothing changes. It rewrites

* the hashes in ``tests/engines/test_same_texts.py``;
* the outputs that README.md and docs/ show below commands, unless ``…`` stands for a part of them;
* the facts between ``<!-- tales: NAME -->`` and ``<!-- end -->``, among them, with ``--held_out``, the figures of the
  held-out texts;
* the pictures of ``docs/make_pictures.py``, with ``--stories`` (the training text) also the table and the chart of
  temperature.md, and with ``--screenshots`` those of ``docs/make_screenshots.py``.

At the end it lists what is left: outputs that it could not rewrite, and measurements that take hours.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gpt2lab
from gpt2lab import _native
from gpt2lab.engines.precision import machine_group
from gpt2lab.evaluating import Run, evaluate
from gpt2lab.exploring.sweep import Request, sweep
from gpt2lab.sampling.rules import SamplingParams
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.find import TALES

ROOT = Path(__file__).parents[1]
HASHES = Path("tests", "engines", "test_same_texts.py")
FACT = re.compile(r"(<!-- tales: (\w+) -->).*?(?=<!-- end -->)", re.S)
ROWS = re.compile(r"(\n\| temperature \|[^\n]*\n\|[-|]*\n).*?(?=\n\n)\n", re.S)
PROMPT = "Once upon a time"
BY_HAND = (
    "docs/tales.md: the recipe, the curve, the list of texts, and its remarks on the texts shown",
    "docs/fine-tuning.md: the losses and the samples of fine-tuning on Shakespeare, and their pictures",
    "docs/precision.md: the table of precisions (benchmarks/precision_quality.py)",
    "docs/performance.md, serve.md and playground.md: speeds (gpt2lab bench, benchmarks/soak*.py, benchmarks/page.py)",
    "docs/temperature.md: what the text says of its table",
    "docs/LOG.md stays: it describes the models of its time",
)


def module(path: Path) -> ModuleType:
    """Import a test module from its file."""
    sys.path[:0] = [str(path.parent), str(ROOT / "tests" / "helpers")]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    return made


# Hashes


def hashes(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each hash in the tests with the one that the model gives on this machine."""
    tests = module(root / HASHES)
    isas = _native.instruction_sets()
    for (precision, group), old in tests.LOGITS.items():
        isa = next((isa for isa in isas if machine_group(precision, isa) == group), None)
        if isa is None:
            print(f"left as it is: the hash for {precision} on {group}, unlike this machine (see docs/building.md)")
            continue
        (new,) = {hashlib.sha256(logits).hexdigest() for logits in tests.logits_in_all_ways(precision, isa)}
        yield old, new
    for known, n, length in ((tests.QUICK, *tests.QUICK_SIZE), (tests.NIGHTLY, *tests.NIGHTLY_SIZE)):
        yield from ((old, tests.texts_hash(isas[0], precision, n, length)) for precision, old in known.items())


def rewrite_hashes(root: Path) -> None:
    """Write the hashes into the tests."""
    path = root / HASHES
    text = path.read_text(encoding="utf-8")
    for old, new in hashes(root):
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


# Outputs


def rewrite_outputs(page: Path, docs: Any) -> list[str]:
    """Rewrite the outputs that a page shows; return the places of those that differ but have ``…`` in them.

    ``docs`` is the module of the tests of the docs.
    """
    left, changes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for block in docs.blocks_of(page):
            if block.skipped or block.language not in docs.SHELLS:
                continue
            run = docs.run_block(block, Path(folder))
            if block.output is None or docs.shows(block.output, run.stdout):
                continue
            if run.returncode or "…" in block.output:
                left.append(f"{block}: the output is no longer what the command prints")
            else:
                changes.append((block.output, run.stdout.strip("\n") + "\n"))
    text = page.read_text(encoding="utf-8")
    for old, new in changes:
        text = text.replace(old, new)
    page.write_text(text, encoding="utf-8")
    return left


def shows_outputs(page: Path, docs: Any) -> bool:
    """Return whether a page shows the output of a command."""
    return any(block.output is not None for block in docs.blocks_of(page))


# Facts


def facts(held_out: Path | None = None) -> dict[str, str]:
    """Return the facts by name; those of the held-out texts only with the folder of these."""
    checkpoint = open_checkpoint("tales")
    config = checkpoint.config
    size = f"{TALES.stat().st_size / 1e6:.1f} MB as {checkpoint.precision}"
    made = {
        "size": f"{config.n_params / 1e6:.1f} million parameters, {size}",
        "shape": f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"context of {config.n_ctx} tokens",
        "context": f"{config.n_ctx} tokens",
    }
    if held_out is None:
        return made
    model = gpt2lab.load("tales", precision="float32")
    run, texts = Run(model.engine, model.tokenizer), sorted(held_out.rglob("*.txt"))
    n_bytes = sum(file.stat().st_size for file in texts)
    apart, over = (
        {each.metric: each.value for each in evaluate("perplexity", run, data=str(held_out), stride=stride).figures}
        for stride in (config.n_ctx, config.n_ctx // 2)
    )
    key, bits = "perplexity per token", "bits per byte"
    made["held_out"] = (
        f"({len(texts)} files, {n_bytes:,} bytes), has a perplexity of\n{apart[key]:.2f} and {apart[bits]:.4f} bits "
        f"per byte without overlap, and {over[key]:.2f} and {over[bits]:.4f} with overlap"
    )
    return made


def with_facts(text: str, known: dict[str, str]) -> str:
    """Return a page with the facts that are ``known`` in their places."""
    return FACT.sub(lambda found: found[1] + known[found[2]] if found[2] in known else found[0], text)


# Pictures


def draw(root: Path, stories: Path | None, screenshots: bool) -> None:
    """Draw the pictures again, and with ``stories`` write the table of temperature.md."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    more = [str(stories.absolute())] if stories else []
    subprocess.run([sys.executable, root / "docs" / "make_pictures.py", *more], env=environment, check=True)
    if screenshots:
        subprocess.run([sys.executable, root / "docs" / "make_screenshots.py"], env=environment, check=True)
    if stories:
        page = root / "docs" / "temperature.md"
        text = page.read_text(encoding="utf-8")
        page.write_text(ROWS.sub(lambda found: found[1] + temperature_rows(stories), text), encoding="utf-8")


def temperature_rows(stories: Path) -> str:
    """Return the rows of the table in temperature.md."""
    request = Request(PROMPT, SamplingParams(), nsamples=8, length=100, seed=1, against=str(stories))
    rows = []
    for setting in sweep(gpt2lab.load("tales"), request).settings:
        f = setting.figures
        assert f.copied is not None and f.unknown_words is not None and f.repeated is not None
        words = f"{f.copied.n_words} word" + "s" * (f.copied.n_words != 1)
        nats = (f"{value:.2f}" for value in (f.surprisal, f.entropy, f.drawn_entropy, *f.distinct))
        cells = [setting.name, *nats, f"{100 * f.repeated:.1f} %", words, f"{100 * f.unknown_words:.1f} %"]
        rows.append(f"| {' | '.join(cells)} |\n")
    return "".join(rows)


def main() -> None:
    """Rewrite everything, and list what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held_out", type=Path, help="the folder of the texts that no model was trained on")
    parser.add_argument("--stories", type=Path, help="the folder of the training text")
    parser.add_argument("--screenshots", action="store_true", help="also draw the screenshots; times in them change")
    arguments = parser.parse_args()
    docs = module(ROOT / "tests" / "test_docs.py")
    known = facts(arguments.held_out)
    left = []
    for page in docs.PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_facts(text, known), encoding="utf-8")
        if shows_outputs(page, docs):
            print(f"outputs of {page.relative_to(ROOT)}", flush=True)
            left += rewrite_outputs(page, docs)
    print("hashes", flush=True)
    rewrite_hashes(ROOT)
    print("pictures", flush=True)
    draw(ROOT, arguments.stories, arguments.screenshots)
    print("\nLeft to do by hand:", *left, *BY_HAND, sep="\n* ")


if __name__ == "__main__":
    main()
