"""``gpt2lab encode`` beside Hugging Face ``datasets.map`` with a fast tokenizer: same text, same number of processes.

    python benchmarks/encoding.py --text corpus/*.txt --peer_python peers/transformers/bin/python [--megabytes 500]

The files are repeated until they have that size together. Each round measures every program once, in turns, each in a
separate process. The time of gpt2lab is that of the whole command, including its start, reading and writing. The time
of the peer is that of ``map`` alone, and also with ``load_dataset`` before it. Memory is the largest sum of the
resident sets of a process and its children, sampled ten times a second (Linux only). Every figure is appended to
``--out`` as soon as it is measured. Prints medians; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from gpt2lab.data.open import open_documents
from gpt2lab.system.cores import logical_cores
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights.vocabulary import gpt2_vocabulary, tokenizer_json

DRIVER = Path(__file__).parent / "drivers" / "datasets_driver.py"
PEERS = ("line", "document")
"""The ways in which the peer can read the text: a line as an example, its default, or a file as one, like gpt2lab."""


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        size = repeat(arguments.text, folder / "text", int(arguments.megabytes * 1e6))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(gpt2_vocabulary())))
        same = {"megabytes": size / 1e6, "jobs": arguments.jobs}
        programs = ["gpt2lab", *(arguments.programs if has_datasets(arguments.peer_python) else [])]
        for number in range(arguments.rounds):
            for program in programs[:: 1 if number % 2 == 0 else -1]:
                figures = {"program": program, **same, **measure(program, folder, arguments)}
                print(figures, file=sys.stderr, flush=True)
                with arguments.out.open("a") as file:
                    file.write(json.dumps(figures) + "\n")
    report(
        [record for record in map(json.loads, arguments.out.read_text().splitlines()) if same.items() <= record.items()]
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="files to repeat")
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--jobs", type=int, default=logical_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", nargs="*", choices=PEERS, default=list(PEERS), help="ways of the peer to measure")
    parser.add_argument("--peer_python", default=sys.executable, help="Python of the peer's environment")
    parser.add_argument("--out", type=Path, default=Path("encoding.jsonl"), help="results, appended")
    parser.add_argument("--folder", type=Path, default=Path(), help="folder with room for the text and its tokens")
    return parser.parse_args()


def has_datasets(python: str) -> bool:
    found = subprocess.run([python, "-c", "import datasets, transformers"], capture_output=True).returncode == 0
    if not found:
        listed = "benchmarks/environments/transformers.txt"
        print(f"datasets or transformers is missing in {python}: install {listed} there", file=sys.stderr)
    return found


def repeat(files: list[Path], folder: Path, size: int) -> int:
    """Copy ``files``, repeatedly, until there are at least ``size`` bytes; return the number of bytes."""
    folder.mkdir()
    done = number = 0
    while done < size:
        source = files[number % len(files)]
        shutil.copyfile(source, folder / f"{number:06d}.txt")
        done += source.stat().st_size
        number += 1
    return done


def measure(program: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds, tokens and peak memory of one run, and delete its output."""
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        if program == "gpt2lab":
            out = work / "tokens"
            command = [sys.executable, "-m", "gpt2lab", "encode", folder / "text", out, "--jobs", arguments.jobs]
            seconds, memory, _ = run(command)
            documents = open_documents([str(out)], Tokenizer.gpt2())
            return {"seconds": seconds, "tokens": len(documents.tokens), "peak_mb": memory}
        command = [arguments.peer_python, DRIVER, "--files", folder / "text", "--sample_by", program, "--cache", work]
        seconds, memory, output = run([*command, "--tokenizer", folder / "tokenizer.json", "--jobs", arguments.jobs])
        return {"seconds": seconds, **json.loads(output.splitlines()[-1]), "peak_mb": memory}
    finally:
        shutil.rmtree(work)


def run(command: list[Any]) -> tuple[float, float, str]:
    """Run a command; return its wall seconds, its peak memory in MB and its output."""
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # its processes are enough
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
    peaks = [0.0]
    watcher = threading.Thread(target=watch, args=(process, peaks), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    watcher.join()
    return seconds, max(peaks), output


def watch(process: subprocess.Popen[str], peaks: list[float]) -> None:
    """Record the memory of a process and its children until it ends."""
    while process.poll() is None:
        peaks.append(sum(resident_mb(pid) for pid in tree(process.pid)))
        time.sleep(0.1)


def tree(pid: int) -> Iterator[int]:
    """Yield the ids of a process and all of its children."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))
    except OSError:
        return


def resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


def report(records: list[dict[str, Any]]) -> None:
    """Print each program's medians over all rounds with the same text and processes; the last line is JSON."""
    size = records[0]["megabytes"]
    medians: dict[str, dict[str, float]] = {}
    for program in dict.fromkeys(record["program"] for record in records):
        rounds = [record for record in records if record["program"] == program]
        names = [name for name in ("seconds", "load", "map", "peak_mb") if name in rounds[0]]
        medians[program] = {name: median(record[name] for record in rounds) for name in names}
        counted = medians[program].get("map", medians[program]["seconds"])
        medians[program]["mb_per_s"] = size / counted
        whole = f"{medians[program]['seconds']:7.1f} s in all, peak {medians[program]['peak_mb']:6.0f} MB"
        step = "command" if program == "gpt2lab" else f"map, by {program}"
        print(f"{program:10} {size / counted:6.2f} MB/s ({step}), {whole}, rounds: {len(rounds)}")
    peers = [figures for program, figures in medians.items() if program != "gpt2lab"]
    ratio = medians["gpt2lab"]["mb_per_s"] / max(figures["mb_per_s"] for figures in peers) if peers else None
    jobs = records[0]["jobs"]
    print(json.dumps({"megabytes": size, "jobs": jobs, "times_the_best_peer": ratio, "medians": medians}))


if __name__ == "__main__":
    main()
