"""Measure training steps beside nanoGPT's model and a plain Hugging Face loop: tokens per second, peak memory.

    python benchmarks/training.py --nanogpt FOLDER [--python peers/transformers/bin/python] [--rounds 3] [--threads 2]

``FOLDER`` is a checkout of karpathy/nanoGPT; ``--python`` has torch and, for its rows, transformers. Every setting runs
in a separate process, once a round, and every other round in the opposite order. Figures are appended to ``--out`` as
soon as they are measured; a second run with the same file measures only what is missing. Prints medians
(smallest–largest) beside the arithmetic limit, which takes a C++ compiler, and the speed of PyTorch's own matrix
products; then gpt2lab's tokens per second divided by those of nanoGPT's fastest row in the same precision. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import machine_limits

HERE = Path(__file__).parent
SHAPES = ("124M 1x1024", "124M 4x256", "tales 8x512")  # model, and batch x tokens
SETTINGS: dict[str, list[str]] = {
    "gpt2lab": ["--program", "gpt2lab"],
    "gpt2lab, memory saving": ["--program", "gpt2lab", "--recompute", "layers"],
    "gpt2lab, LoRA": ["--program", "gpt2lab", "--lora", "8"],
    "gpt2lab, bfloat16": ["--program", "gpt2lab", "--precision", "bfloat16"],
    "nanoGPT": ["--program", "nanogpt"],
    "nanoGPT, fused AdamW": ["--program", "nanogpt", "--fused"],
    "nanoGPT, compiled": ["--program", "nanogpt", "--compile"],
    "nanoGPT, bfloat16": ["--program", "nanogpt", "--fused", "--precision", "bfloat16"],
    "nanoGPT, bfloat16, compiled": ["--program", "nanogpt", "--fused", "--precision", "bfloat16", "--compile"],
    "transformers": ["--program", "transformers"],
}
Record = dict[str, Any]


def main() -> None:
    arguments = parse()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    records: list[Record] = [json.loads(line) for line in lines if line.endswith("}")]
    wanted = [(name, shape) for shape in arguments.shapes.split(",") for name in SETTINGS]
    wanted = [(name, shape) for name, shape in wanted if arguments.nanogpt or not name.startswith("nanoGPT")]
    for number in range(arguments.rounds):
        for name, shape in [("limit", ""), *wanted[:: 1 if number % 2 == 0 else -1]]:
            key = {"name": name, "shape": shape, "round": number, "threads": arguments.threads}
            if not any(key.items() <= record.items() for record in records):
                records.append(key | measure(name, shape, arguments))
                with arguments.out.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                print(records[-1], file=sys.stderr, flush=True)
    report([record for record in records if record["threads"] == arguments.threads])


def measure(name: str, shape: str, arguments: argparse.Namespace) -> Record:
    command = [arguments.python, str(HERE / "drivers" / "training_driver.py"), "--threads", str(arguments.threads)]
    if name == "limit":
        command += ["--program", "limit"]
    else:
        model, size = shape.split()
        batch, time = size.split("x")
        command += [*SETTINGS[name], "--model", model, "--batch", batch, "--time", time]
        command += ["--nanogpt", arguments.nanogpt]
    source = str(HERE.parent / "src")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": source}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        return {"error": (run.stderr.strip().splitlines() or ["no message"])[-1][-200:]}
    figures: Record = json.loads(run.stdout.splitlines()[-1])
    if name == "limit":
        peaks = machine_limits.measure(arguments.threads)
        tiles = peaks.get("bfloat16_tiles_gflop_s")  # without these bfloat16 has no peak of its own
        figures |= {"float32_peak": statistics.median(peaks["float32_gflop_s"])}
        figures |= {"bfloat16_peak": statistics.median(tiles) if tiles else figures["bfloat16"]}
    return figures


def report(records: list[Record]) -> None:
    limits, products = (
        {
            precision: statistics.median(record[precision + kind] for record in records if precision + kind in record)
            for precision in ("float32", "bfloat16")
        }
        for kind in ("_peak", "")
    )
    print(", ".join(f"{p}: limit {limits[p]:.0f} GFLOP/s, PyTorch's products {products[p]:.0f}" for p in limits) + "\n")
    print("| shape | | tokens/s | of the limit | peak MiB | processes |\n|---|---|---|---|---|---|")
    results: dict[str, Record] = {}
    for shape in SHAPES:
        for name in SETTINGS:
            rows = [r for r in records if r["name"] == name and r["shape"] == shape and "tokens_s" in r]
            if rows:
                rates, peaks = [r["tokens_s"] for r in rows], [r["peak_mib"] for r in rows]
                rate, peak = statistics.median(rates), statistics.median(peaks)
                limit = limits["bfloat16" if "bfloat16" in name else "float32"]
                part = "" if "LoRA" in name else f"{statistics.median(r['gflop_s'] for r in rows) / limit:.2f}"
                print(f"| {shape} | {name} | {spread(rates)} | {part} | {spread(peaks)} | {len(rows)} |")
                results[f"{name} {shape}"] = {"tokens_s": round(rate, 1), "peak_mib": round(peak)}
    ratios = {shape: ratios_of(shape, results) for shape in SHAPES}
    for shape, found in ratios.items():
        for precision, ratio in found.items():
            print(f"{shape}, {precision}: {ratio:.2f} of nanoGPT's best")
    figures = {"limits_gflop_s": limits, "pytorch_products_gflop_s": products, "results": results, "ratios": ratios}
    print(json.dumps(figures))


def ratios_of(shape: str, results: dict[str, Record]) -> dict[str, float]:
    """Return gpt2lab's speed divided by nanoGPT's best, by precision; leaves out what was not measured."""
    ratios = {}
    for precision, ours in (("float32", "gpt2lab"), ("bfloat16", "gpt2lab, bfloat16")):
        names = [n for n in SETTINGS if n.startswith("nanoGPT") and ("bfloat16" in n) == (precision == "bfloat16")]
        theirs = [results[f"{name} {shape}"]["tokens_s"] for name in names if f"{name} {shape}" in results]
        if theirs and f"{ours} {shape}" in results:
            ratios[precision] = round(results[f"{ours} {shape}"]["tokens_s"] / max(theirs), 3)
    return ratios


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nanogpt", default="", help="folder with nanoGPT's model.py; without it its rows are left out"
    )
    parser.add_argument("--python", default=sys.executable, help="Python with torch, and transformers for its rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="model and batch x tokens, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("training.jsonl"), help="results, appended")
    return parser.parse_args()


if __name__ == "__main__":
    main()
