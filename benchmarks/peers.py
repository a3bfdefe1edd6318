"""gpt2lab beside Hugging Face transformers, CTranslate2, llama.cpp and OpenVINO GenAI: same weights, same work.

    python benchmarks/peers.py [--size 124M] [--rounds 5] [--threads 2] [--isa avx2] [--environments peers] [--setup]

Each peer has an environment of its own, ``peers/NAME``, which is made from ``benchmarks/environments/NAME.txt`` when it
is missing. ``--setup`` makes the environments and the models, and measures nothing. Each round measures the limits of
the machine. Then, for each width and workload, all settings run one after the other, each in a process of its own, so
that a change in the machine's load affects all alike. Every figure is appended to ``--out`` as soon as it is measured;
a second run with the same file measures only what is missing. ``--isa`` restricts every program to one instruction set.
Prints the processor, all versions and medians with min–max, each peer at the best of its settings; the last line is
JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drivers.common import WORKLOADS
from machine_limits import cpu_name, measure
from peer_environments import Environments, restrictable
from peer_models import prepare
from peer_report import Heading, report
from peer_settings import GPT2LAB, ISAS, PEERS, WIDTHS, Setting, settings_for
from records import Record, Records

from gpt2lab.benchmarking import bytes_per_step
from gpt2lab.config import RELEASED_SIZES
from gpt2lab.system.cores import physical_cores

HERE = Path(__file__).parent
PROTOCOL = 2
"""Version of the procedure; it rises when figures can no longer be compared with earlier ones."""
LIMIT = 600
"""Seconds after which a process is stopped."""


def main() -> None:
    arguments = parse()
    if arguments.isa and not restrictable():
        sys.exit(f"--isa {arguments.isa} is for x86-64 processors, which this is not: leave it out")
    environments = Environments(arguments.environments, arguments.isa)
    peers = [peer for peer in arguments.peers if is_set_up(peer, environments)]
    wanted = [s for s in settings_for(arguments.isa) if s.peer in peers and s.width in arguments.precisions]
    models = models_of(wanted, arguments, environments)
    settings = [setting for setting in wanted if setting.model in models]
    if arguments.setup:
        return
    records = Records(arguments.out)
    for number in range(arguments.rounds):
        run_round(number, arguments, environments, records, settings, models)
    versions = {peer: environments.versions(peer) for peer in peers}
    heading = Heading(cpu_name(), arguments.size, arguments.threads, arguments.isa, versions)
    report(records.of(**same(arguments)), [setting.name for setting in settings], heading)


def is_set_up(peer: str, environments: Environments) -> bool:
    """Make a peer's environment if it is missing; return whether there is one now."""
    try:
        environments.set_up(peer)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{peer} is left out, because its environment cannot be made: {error}", file=sys.stderr)
        return False
    return True


def models_of(settings: list[Setting], arguments: argparse.Namespace, environments: Environments) -> dict[str, Path]:
    """Return kind → path of the models of all settings, converted if they are missing; report what fails."""
    models = {}
    for kind, peer in {setting.model: setting.peer for setting in reversed(settings)}.items():
        try:
            models[kind] = prepare(kind, arguments.size, arguments.models, environments.python(peer).parent)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = (getattr(error, "stderr", None) or b"").decode(errors="replace")[-300:]
            print(f"{peer}: no {kind} model, left out: {error} {detail}", file=sys.stderr)
    return models


def same(arguments: argparse.Namespace) -> Record:
    """Return what all records of one comparison share."""
    return {"protocol": PROTOCOL, "size": arguments.size, "threads": arguments.threads, "isa": arguments.isa}


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
    parser.add_argument("--peers", type=some_of(PEERS), default=list(PEERS), help="comma-separated; default all")
    parser.add_argument("--precisions", type=some_of(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--workloads", type=some_of(workloads), default=workloads)
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"), help="results, appended")
    parser.add_argument("--models", type=Path, default=Path("peer-models"), help="folder of converted models")
    parser.add_argument("--environments", type=Path, default=Path("peers"), help="folder of the peers' environments")
    parser.add_argument("--isa", choices=ISAS, default="", help="restrict every program to this instruction set")
    parser.add_argument("--setup", action="store_true", help="make the environments and models, and measure nothing")
    return parser.parse_args()


def run_round(
    number: int,
    arguments: argparse.Namespace,
    environments: Environments,
    records: Records,
    settings: list[Setting],
    models: dict[str, Path],
) -> None:
    """Measure what the round still lacks, each workload with all settings; every other round in the opposite order."""
    key = same(arguments) | {"round": number}
    if not records.of(**key, setting="limits"):
        config = RELEASED_SIZES[arguments.size]
        buffers = {width: bytes_per_step(config, name, 80) >> 20 for width, name in GPT2LAB.items()}
        figures = measure(arguments.threads, list(buffers.values()), repeats=3, isa=arguments.isa)
        records.add(**key, setting="limits", buffers=buffers, figures=figures)
    for width, workload in itertools.product(WIDTHS, arguments.workloads):
        for setting in [s for s in settings if s.width == width][:: 1 if number % 2 == 0 else -1]:
            if not records.of(**key, setting=setting.name, workload=workload):
                python = environments.python(setting.peer)
                figures = run(setting, python, arguments.threads, models[setting.model], workload)
                records.add(**key, setting=setting.name, peer=setting.peer, width=width, **figures)
                print(f"round {number + 1}, {setting.name}: {figures}", file=sys.stderr, flush=True)


def run(setting: Setting, python: Path, threads: int, model: Path, workload: str) -> Record:
    """Return what a driver process measured, or an ``error``."""
    command = [str(python), str(HERE / "drivers" / f"{setting.peer}_driver.py")]
    command += ["--model", str(model), "--threads", str(setting.threads or threads)]
    command += ["--options", json.dumps(setting.options), "--workloads", workload]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **setting.environment}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package starts from compiled modules; so does ours
    try:
        command += ["--started", str(time.monotonic())]
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=LIMIT)
        output, complaint = ended.stdout, ended.stderr.decode(errors="replace").strip()[-300:]
    except subprocess.TimeoutExpired as stopped:
        output, complaint = stopped.stdout or b"", f"took longer than {LIMIT} s"
    measured = [json.loads(line) for line in output.splitlines() if line.startswith(b'{"workload"')]
    return measured[0] if measured else {"workload": workload, "error": complaint}


if __name__ == "__main__":
    main()
