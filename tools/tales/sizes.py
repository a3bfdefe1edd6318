"""Compare shapes for ``tales`` by short runs: loss for equal numbers of tokens, and for equal time.

    python tools/tales/sizes.py DATA RUNS --steps 300            # trains, or resumes; Ctrl-C at any time
    python tools/tales/sizes.py DATA RUNS --steps 300 --table    # prints what there is so far

DATA is what ``build.py`` wrote, RUNS a folder for the runs. Every shape fits into 30 MB in its precision. Those in int4
make the last fifth of their updates with ``--quantize int4``. On a shared machine only the loss for a number of tokens
is comparable: the table takes the seconds of an update from ``--seconds NAME=SECONDS``, measured on a quiet machine,
and else the fastest tenth of the run's own updates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

N_VOCAB, N_CTX = 50257, 1024
TOKENS = 8192  # an update's
LIMIT = 30e6  # bytes
QUANTIZED = 0.2  # the part of an int4 run's updates that round


@dataclass(frozen=True)
class Shape:
    """A candidate: ``n_layer`` layers ``n_embd`` wide, with heads of 64, stored in ``precision``."""

    precision: str
    n_embd: int
    n_layer: int

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.precision}-{self.n_embd}x{self.n_layer}"

    @property
    def matrices(self) -> int:
        """The number of weights in matrices."""
        return N_VOCAB * self.n_embd + 12 * self.n_layer * self.n_embd**2

    @property
    def n_params(self) -> int:
        """The number of parameters."""
        return self.matrices + N_CTX * self.n_embd + (13 * self.n_layer + 2) * self.n_embd

    @property
    def n_bytes(self) -> float:
        """The size of its file: 8.125 or 4.375 bits for a weight of a matrix, 32 for any other."""
        bits = {"int8": 8 + 32 / 256, "int4": 4 + 8 / 32 + 32 / 256}[self.precision]
        return self.matrices * bits / 8 + (self.n_params - self.matrices) * 4


SHAPES = [
    Shape("int8", 256, 8),
    Shape("int8", 256, 18),
    Shape("int8", 320, 9),
    Shape("int4", 384, 10),
    Shape("int4", 384, 17),
    Shape("int4", 448, 10),
    Shape("int4", 512, 7),
]


def command(shape: Shape, data: Path, runs: Path, steps: int, *more: str) -> list[str]:
    """Return the command that trains a shape."""
    options = {
        "dataset": data / "train.tokens", "val_dataset": data / "held-out", "checkpoint_dir": runs,
        "run_name": shape.name, "n_ctx": N_CTX, "n_embd": shape.n_embd, "n_head": shape.n_embd // 64,
        "n_layer": shape.n_layer, "batch_size": TOKENS // N_CTX, "accumulate_gradients": 1, "optimizer": "muon",
        "learning_rate": 2e-3, "warmup_steps": 30, "schedule": "stable-decay", "steps": steps,
        "decay_steps": steps * 2 // 5, "narrow_steps": steps * 4 // 5, "precision": "bfloat16",
        "val_every": max(1, steps // 10), "val_batch_size": 4, "val_batch_count": 15, "sample_every": 0,
        "save_every": 50, "keep": 1,
    }  # fmt: skip
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "gpt2lab", "train", "--from_scratch", *flags, *more]


def train(shape: Shape, data: Path, runs: Path, steps: int) -> None:
    """Train a shape to the end, from where its run stands."""
    first = round(steps * (1 - QUANTIZED))
    if shape.precision == "int4":
        if _done(runs / shape.name) < first:
            subprocess.run(command(shape, data, runs, steps, "--stop_after", str(first)), check=True)
        subprocess.run(command(shape, data, runs, steps, "--quantize", "int4"), check=True)
    else:
        subprocess.run(command(shape, data, runs, steps), check=True)


def _done(run: Path) -> int:
    counter = run / "counter"
    return int(counter.read_text(encoding="utf-8")) if counter.exists() else 0


def row(shape: Shape, runs: Path, seconds: dict[str, float]) -> str | None:
    """Return the table's row of a shape, or None before its first validation."""
    metrics = runs / shape.name / "metrics.jsonl"
    if not metrics.exists():
        return None
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    losses = {each["step"]: each["val_loss"] for each in records if "val_loss" in each and each["step"]}
    speeds = [each["tokens_per_second"] for each in records if "tokens_per_second" in each]
    if not losses or not speeds:
        return None
    each = seconds.get(shape.name, TOKENS / float(np.quantile(speeds, 0.9)))
    last = max(losses)
    half = min(losses, key=lambda step: abs(step - last / 2))
    figures = f"{losses[half]:.3f} ({half * TOKENS / 1e6:.2f}) | {losses[last]:.3f} ({last * TOKENS / 1e6:.2f})"
    minutes = f"{each:.2f} | {last * each / 60:.0f}"
    return f"| {shape.name} | {shape.n_params / 1e6:.1f} | {shape.n_bytes / 1e6:.1f} | {figures} | {minutes} |"


def main() -> None:
    """Read the options; train all shapes, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=[shape.name for shape in SHAPES], help="names of shapes")
    parser.add_argument("--seconds", nargs="*", default=[], metavar="NAME=SECONDS", help="of an update")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    seconds = {name: float(value) for name, _, value in (each.partition("=") for each in arguments.seconds)}
    chosen = [shape for shape in SHAPES if shape.name in arguments.only]
    for shape in chosen if not arguments.table else ():
        train(shape, arguments.data, arguments.runs, arguments.steps)
    print("| shape | M parameters | MB | held-out loss half-way (M tokens) | at the end | s an update | minutes |")
    print("|---|---|---|---|---|---|---|")
    for shape in chosen:
        if (line := row(shape, arguments.runs, seconds)) is not None:
            print(line)


if __name__ == "__main__":
    main()
