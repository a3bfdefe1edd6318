"""Compare train's default learning rate with eight others, judged by held-out loss.

    python benchmarks/learning_rates.py --texts short.txt medium.txt long.txt [--steps 300] [-- --block_size 128 ...]

Trains on each text twice with each rate: a new model of ``tales``' shape, and a copy of ``tales``. The rates are the
default times powers of two. Everything else is a default of ``gpt2lab train`` unless it stands after ``--``, and all
rates make the same number of updates on the same windows. A run counts with its lowest held-out loss, because that
model is the one it keeps. The default is tried first, so an interrupted sweep can be read too. Every result is
appended to ``--out``; a second run with the same file measures only what is missing. Losses do not depend on the load
of the machine. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from machine_limits import cpu_name
from records import Record, Records

from gpt2lab.config import ModelConfig
from gpt2lab.training.settings import Settings, default_learning_rate
from gpt2lab.weights import open_checkpoint

STARTS = ("scratch", "tales")
FACTORS = (1.0, 4.0, 0.25, 2.0, 0.5, 8.0, 0.125, 16.0, 0.0625)
"""The rates as multiples of the default, in the order in which they are tried: those around the best one first."""
CLOSE = 1.01
"""The default may be worse than the best rate by this factor of the loss."""


def main() -> None:
    arguments = parse()
    records = Records(arguments.out)
    config = open_checkpoint("tales").config
    for factor in FACTORS[: arguments.rates]:
        for text in arguments.texts:
            for start in arguments.starts:
                key = key_of(arguments, text, start) | {"factor": factor}
                if not records.of(**key):
                    figures = train(arguments, text, start, default_rate(start, config) * factor)
                    records.add(**key, cpu=cpu_name(), **figures)
                    print(key | figures, file=sys.stderr, flush=True)
    keys = [key_of(arguments, text, start) for start in arguments.starts for text in arguments.texts]
    report([(key, records.of(**key)) for key in keys])


def key_of(arguments: argparse.Namespace, text: Path, start: str) -> Record:
    """Return what all rates of one comparison share."""
    flags = " ".join(arguments.flags)
    return {"text": text.name, "bytes": text.stat().st_size, "start": start, "steps": arguments.steps, "flags": flags}


def default_rate(start: str, config: ModelConfig) -> float:
    return default_learning_rate(Settings(), config, from_scratch=start == "scratch")


def train(arguments: argparse.Namespace, text: Path, start: str, rate: float) -> Record:
    """Return the rate and the held-out losses of a run, the lowest and the last; an ``error`` if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gpt2lab", "train", "--dataset", str(text), "--checkpoint_dir", folder]
        command += ["--from_scratch"] if start == "scratch" else ["--model_name", "tales"]
        command += ["--learning_rate", repr(rate), "--steps", str(arguments.steps), *arguments.flags]
        command += ["--val_every", str(max(1, arguments.steps // 3)), "--sample_every", "0", "--save_every", "0"]
        run = subprocess.run(command, capture_output=True, text=True)
        metrics = Path(folder, "run1", "metrics.jsonl")
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    losses = [record["val_loss"] for record in map(json.loads, lines) if "val_loss" in record]
    if run.returncode:
        return {"rate": rate, "error": (run.stderr.strip().splitlines() or ["no message"])[-1][-200:]}
    return {"rate": rate, "loss": min(losses), "last_loss": losses[-1]}


def report(comparisons: list[tuple[Record, list[Record]]]) -> None:
    """Print the loss of every rate, a row for each start and text, and the default's loss beside the best."""
    factors = sorted(FACTORS)
    print(f"{cpu_name()}; held-out loss by learning rate, as a multiple of the default\n")
    print(f"| start | text, bytes | updates | {' | '.join(f'{f:g}' for f in factors)} | default / best |")
    print(f"|---|---|---|{'---|' * (len(factors) + 1)}")
    results = []
    for key, records in comparisons:
        losses = {record["factor"]: record.get("loss", math.inf) for record in records}
        cells = [f"{losses[factor]:.3f}" if factor in losses else "" for factor in factors]
        excess = beside_best(losses)
        row = [key["start"], f"{key['text']}, {key['bytes']:,}", f"{key['steps']} {key['flags']}", *cells]
        print(f"| {' | '.join(row)} | {'' if excess is None else f'{excess:.3f}'} |")
        results.append(key | {"losses": losses, "default_over_best": excess})
    worse = [each for each in results if each["default_over_best"] and each["default_over_best"] > CLOSE]
    print(f"\nthe default is within 1 % of the best rate in {len(results) - len(worse)} of {len(results)} comparisons")
    print(json.dumps({"cpu": cpu_name(), "comparisons": results}))


def beside_best(losses: dict[float, float]) -> float | None:
    """Return the default's loss over the lowest, 1 if it is the lowest; None without the default's."""
    return losses[1.0] / min(losses.values()) if 1.0 in losses else None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="files of different sizes")
    parser.add_argument("--starts", choices=STARTS, nargs="+", default=list(STARTS))
    parser.add_argument("--rates", type=int, default=len(FACTORS), help="try the first N rates only")
    parser.add_argument("--steps", type=int, default=300, help="updates of every run")
    parser.add_argument("--out", type=Path, default=Path("learning_rates.jsonl"), help="results, appended")
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="other flags of gpt2lab train, for all runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
