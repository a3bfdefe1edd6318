"""gpt2lab beside Hugging Face transformers, CTranslate2, llama.cpp and OpenVINO GenAI: same weights, same work.

    python benchmarks/peers.py [--environments peers] [--size 124M] [--rounds 5] [--threads 2]

Each peer has an environment of its own, ``peers/NAME``, with the packages in ``benchmarks/environments/NAME.txt``.
Each round measures the limits of the machine and then every setting once, in a separate process (a second one for
the start), so that a change in the machine's load affects all alike. Every figure is appended to ``--out`` as soon as
it is measured; a second run with the same file measures only what is missing. Prints medians with min–max, each peer
at the best of its settings; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drivers.common import WORKLOADS
from machine_limits import measure
from peer_models import prepare
from peer_report import Record, report
from peer_settings import GPT2LAB, MODULES, SETTINGS, WIDTHS, Setting

from gpt2lab.benchmarking import bytes_per_step
from gpt2lab.config import RELEASED_SIZES
from gpt2lab.system.cores import physical_cores

HERE = Path(__file__).parent
LIMIT = 600
"""Seconds after which a process is stopped."""


def main() -> None:
    arguments = parse()
    records = Records(arguments.out)
    settings = [setting for setting in SETTINGS if wanted(setting, arguments)]
    models = {}
    for setting in settings:
        programs = python_of(setting, arguments).parent
        try:
            models[setting.model] = prepare(setting.model, arguments.size, arguments.models, programs)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = (getattr(error, "stderr", None) or b"").decode()[-300:]
            print(f"{setting.name}: no {setting.model} model, left out: {error} {detail}", file=sys.stderr)
    for number in range(arguments.rounds):
        run_round(number, arguments, records, [s for s in settings if s.model in models], models)
    report(records.of(size=arguments.size, threads=arguments.threads), arguments.size, arguments.threads)


def parse() -> argparse.Namespace:
    def some_of(known: Any) -> Callable[[str], list[str]]:
        def parse_list(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := set(chosen) - set(known):
                raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is none of {', '.join(known)}")
            return chosen

        return parse_list

    workloads = [*WORKLOADS, "cold"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=RELEASED_SIZES, default="124M")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=some_of(MODULES), default=list(MODULES), help="comma-separated; default all")
    parser.add_argument("--precisions", type=some_of(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--workloads", type=some_of(workloads), default=workloads)
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"), help="results, appended")
    parser.add_argument("--models", type=Path, default=Path("peer-models"), help="folder of converted models")
    parser.add_argument("--environments", type=Path, default=Path("peers"), help="folder of the peers' environments")
    return parser.parse_args()


def wanted(setting: Setting, arguments: argparse.Namespace) -> bool:
    """Return whether the setting was requested and is installed."""
    if setting.peer not in arguments.peers or setting.width not in arguments.precisions:
        return False
    module = MODULES[setting.peer]
    python = python_of(setting, arguments)
    found = [python, "-c", f"import importlib.util as u; exit(not u.find_spec('{module}'))"]
    if python.exists() and subprocess.run(found).returncode == 0:
        return True
    listed = f"benchmarks/environments/{setting.peer}.txt"
    print(f"{setting.name} is left out, because {python} has no {module}: install {listed} there", file=sys.stderr)
    return False


def python_of(setting: Setting, arguments: argparse.Namespace) -> Path:
    """Return the Python that runs a setting: this one for gpt2lab, and that of the peer's own environment."""
    if setting.peer == "gpt2lab":
        return Path(sys.executable)
    return arguments.environments.absolute() / setting.peer / "bin" / "python"


class Records:
    """The file of results: one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._all: list[Record] = [json.loads(line) for line in lines if line.endswith("}")]  # a kill cuts the last

    def add(self, **record: Any) -> None:
        self._all.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def of(self, **wanted: Any) -> list[Record]:
        return [r for r in self._all if all(r.get(name) == value for name, value in wanted.items())]


def run_round(
    number: int, arguments: argparse.Namespace, records: Records, settings: list[Setting], models: dict[str, Path]
) -> None:
    """Measure what the round still lacks; every other round in the opposite order."""
    same = {"size": arguments.size, "threads": arguments.threads, "round": number}
    if not records.of(**same, setting="limits"):
        config = RELEASED_SIZES[arguments.size]
        buffers = {width: bytes_per_step(config, name, 80) >> 20 for width, name in GPT2LAB.items()}
        figures = measure(arguments.threads, list(buffers.values()), repeats=3)
        records.add(**same, setting="limits", buffers=buffers, figures=figures)
    for setting in settings[:: 1 if number % 2 == 0 else -1]:
        done = {record["workload"] for record in records.of(**same, setting=setting.name)}
        missing = [workload for workload in arguments.workloads if workload not in done]
        for group in ([w for w in missing if w != "cold"], [w for w in missing if w == "cold"]):
            for figures in run(setting, arguments, models[setting.model], group):
                records.add(**same, setting=setting.name, peer=setting.peer, width=setting.width, **figures)
                print(f"round {number + 1}, {setting.name}: {figures}", file=sys.stderr, flush=True)


def run(setting: Setting, arguments: argparse.Namespace, model: Path, workloads: list[str]) -> Iterator[Record]:
    """Yield what one process measured; workloads that it did not reach have an ``error`` instead."""
    if not workloads:
        return
    command = [str(python_of(setting, arguments)), str(HERE / "drivers" / f"{setting.peer}_driver.py")]
    command += ["--model", str(model), "--threads", str(setting.threads or arguments.threads)]
    command += ["--options", json.dumps(setting.options), "--workloads", ",".join(workloads)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **setting.environment}
    try:
        command += ["--started", str(time.monotonic())]
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=LIMIT)
        output, complaint = ended.stdout, ended.stderr.decode(errors="replace").strip()[-300:]
    except subprocess.TimeoutExpired as stopped:
        output, complaint = stopped.stdout or b"", f"took longer than {LIMIT} s"
    measured = [json.loads(line) for line in output.splitlines() if line.startswith(b'{"workload"')]
    yield from measured
    for workload in workloads[len(measured) :]:
        yield {"workload": workload, "error": complaint}


if __name__ == "__main__":
    main()
