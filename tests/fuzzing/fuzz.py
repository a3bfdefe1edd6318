"""Fuzz every reader: each case is a good file, spoilt; it must be read, or refused with one line of the program's own.

    python tests/fuzzing/fuzz.py --cases 100000 --state fuzz.json    # again with the same file: goes on where it was
    python tests/fuzzing/fuzz.py --only npz --case 4711              # one case again, with its traceback

Cases run in child processes with bounded memory, a thousand in each. A case depends on the seed, the target and its
number alone. The exit status is 1 if a case raised another error, printed, took too much memory or time, or crashed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

MEMORY = 512 << 20  # bytes of address space for all cases of a child, beyond what the imports take
LONGEST = 4000  # characters of a message
SECONDS = 10  # of processor time for a case
CHUNK = 1000  # cases of a child


class TooLong(BaseException):
    """A case takes too long; not an Exception, which a reader could take for a fault of the file."""


# ---- the child ------------------------------------------------------------------------------------------------------


def run_cases(target: str, seed: int, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Run cases in this process; yield a record before each case, and one for its outcome."""
    from targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        write, read = TARGETS[target][0](Path(folder))
        _bound_memory()
        signal.signal(signal.SIGPROF, _too_long)
        for number in range(first, last):
            yield {"case": number}
            write(Random(f"{seed}/{target}/{number}"))
            yield {"case": number, **_outcome(read)}


def _outcome(read: Any) -> dict[str, Any]:
    """Read a case; return ``fault`` with what is wrong, or ``refused``."""
    import click

    from gpt2lab.errors import Gpt2LabError

    printed = io.StringIO()
    refused = False
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # as Python does outside of tests
            read()
    except click.ClickException:  # the command line shortens its message
        refused = True
    except Gpt2LabError as error:
        refused = True
        if not str(error) or "\n" in str(error) or len(str(error)) > LONGEST:
            return {"fault": f"a message of {len(str(error))} characters: {str(error)[:200]!r}"}
        if _lacked_memory(error):
            return {"fault": traceback.format_exc()}
    except BaseException:
        return {"fault": traceback.format_exc()}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if printed.getvalue():
        return {"fault": f"it printed {printed.getvalue()[:200]!r}"}
    return {"refused": refused}


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, MemoryError):
        error = error.__context__
    return error is not None


def _bound_memory() -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux
        return
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _too_long(*_: object) -> None:
    raise TooLong(f"more than {SECONDS} s of processor time")


def child(arguments: list[str]) -> None:
    """Run cases and print a line of JSON for each record; the last line says that it is done."""
    target, seed, first, last = arguments[0], *map(int, arguments[1:])
    out = os.fdopen(os.dup(1), "w", buffering=1)
    for record in run_cases(target, seed, first, last):
        out.write(json.dumps(record) + "\n")
    out.write('{"done": true}\n')


# ---- the parent -----------------------------------------------------------------------------------------------------


class Progress:
    """The number of cases of each target that have run and were refused, and the faults. Perhaps kept in a file."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self._path = path
        self.seed = seed
        self.done: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.faults: list[dict[str, Any]] = []
        if path is not None and path.exists():
            kept = json.loads(path.read_text())
            if kept["seed"] == seed:
                self.done, self.refused, self.faults = kept["done"], kept["refused"], kept["faults"]

    def add(self, target: str, last: int, refused: int, faults: list[dict[str, Any]]) -> None:
        self.done[target] = last
        self.refused[target] = self.refused.get(target, 0) + refused
        self.faults += faults
        if self._path is not None:
            kept = {"seed": self.seed, "done": self.done, "refused": self.refused, "faults": self.faults}
            text = json.dumps(kept, indent=1)
            self._path.with_suffix(".new").write_text(text)
            self._path.with_suffix(".new").replace(self._path)


def plan(cases: int, only: list[str], names: dict[str, int]) -> dict[str, int]:
    """Return the number of cases of each target."""
    chosen = {name: share for name, share in names.items() if not only or name in only}
    total = sum(chosen.values())
    return {name: -(-cases * share // total) for name, share in chosen.items()}


def run_chunk(target: str, seed: int, first: int, last: int) -> tuple[int, int, list[dict[str, Any]]]:
    """Run cases in a child; return the number of the first that has not run, how many were refused, and the faults."""
    command = [sys.executable, __file__, "--child", target, *map(str, (seed, first, last))]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
    records = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    faults = [{"target": target, **record} for record in records if "fault" in record]
    refused = sum(record.get("refused", False) for record in records)
    if records and records[-1].get("done"):
        return last, refused, faults
    number = next((record["case"] for record in reversed(records) if "case" in record), first)
    what = f"the process ended with status {ended.returncode}: {ended.stderr[-1500:]}"
    return number + 1, refused, [*faults, {"target": target, "case": number, "fault": what}]


def fuzz(cases: int, seed: int, only: list[str], state: Path | None, say: Any = print) -> list[dict[str, Any]]:
    """Run all cases that have not run yet; return every fault found, also by earlier calls with the same state."""
    from targets import TARGETS

    progress = Progress(state, seed)
    wanted = plan(cases, only, {name: share for name, (_, share) in TARGETS.items()})
    begin = time.monotonic()
    while left := [name for name in wanted if progress.done.get(name, 0) < wanted[name]]:
        for target in left:  # a chunk of each in turn, so that a run that is stopped has tried them all
            first = progress.done.get(target, 0)
            reached, refused, faults = run_chunk(target, seed, first, min(first + CHUNK, wanted[target]))
            progress.add(target, reached, refused, faults)
            done = sum(min(progress.done.get(name, 0), wanted[name]) for name in wanted)
            seconds = time.monotonic() - begin
            say(
                f"{done:,} of {sum(wanted.values()):,} cases, {len(progress.faults)} faults, {seconds:.0f} s ({target})"
            )
            for fault in faults:
                say(f"  {target} case {fault['case']}: {fault['fault'].strip().splitlines()[-1]}")
    for target in wanted:
        say(f"{target}: {progress.done[target]:,} cases, {progress.refused[target]:,} refused")
    return progress.faults


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="number of cases of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], metavar="TARGET", help="may be repeated")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the progress here, and go on from it")
    parser.add_argument("--case", type=int, help="run one case of one target in this process")
    asked = parser.parse_args()
    if asked.case is not None:
        records = run_cases(asked.only[0], asked.seed, asked.case, asked.case + 1)
        faults = [record["fault"] for record in records if "fault" in record]
        print(*faults or ["no fault"])
        return 1 if faults else 0
    return 1 if fuzz(asked.cases, asked.seed, asked.only, asked.state, lambda line: print(line, flush=True)) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        sys.exit(main())
