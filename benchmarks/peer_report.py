"""Make the tables of ``peers.py`` from its records: each peer at its best setting, beside the machine's limits."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import median
from typing import Any

from drivers.common import WORKLOADS
from machine_limits import summary
from peer_settings import GPT2LAB, WIDTHS

from gpt2lab.benchmarking import bytes_per_step
from gpt2lab.config import RELEASED_SIZES

Record = dict[str, Any]
FIGURES = {
    **{name: ("tokens_s", f"{name.replace('_', ' ')}, tokens/s", max) for name in WORKLOADS},
    "cold": ("seconds", "start to first token, s", min),
    "memory": ("peak_mb", "peak memory, MB", min),
}
"""Row → the record's field, its heading, and the function that finds the best. Memory is the ``cold`` process's."""


def report(records: list[Record], size: str, threads: int) -> None:
    """Print the limits, a table for each width, and all of it as one line of JSON."""
    figures = collect(records)
    limits = limits_of(records)
    result: Record = {"model": size, "threads": threads, "limits": limits, "widths": {}}
    print("limits: " + ", ".join(f"{name} {values['median']:g}" for name, values in limits.items()))
    for width in WIDTHS:
        rows = {row: best_of_each(figures, width, row) for row in FIGURES}
        rows = {row: found for row, found in rows.items() if found}
        if rows:
            share = bandwidth_share(rows, limits, width, size)
            print_table(width, rows, share)
            result["widths"][width] = {**rows, "share_of_read_bandwidth": share}
    for name, complaint in sorted({(r["setting"], r["error"]) for r in records if "error" in r}):
        print(f"\n{name} failed: {complaint.splitlines()[-1] if complaint else 'without a message'}")
    print(json.dumps(result))


def collect(records: list[Record]) -> dict[tuple[str, str, str, str], list[float]]:
    """Return (width, row, peer, setting) → the figures of all rounds."""
    figures = defaultdict(list)
    for record in records:
        if "workload" not in record or "error" in record:
            continue
        rows = ["cold", "memory"] if record["workload"] == "cold" else [record["workload"]]
        for row in rows:
            figures[record["width"], row, record["peer"], record["setting"]].append(record[FIGURES[row][0]])
    return figures


def limits_of(records: list[Record]) -> dict[str, dict[str, float]]:
    """Return every limit over all rounds, from each round's median; bandwidths are named by their width."""
    rounds = defaultdict(list)
    for record in records:
        if record["setting"] != "limits":
            continue
        named = {f"read_gb_s_{megabytes}": f"read GB/s {width}" for width, megabytes in record["buffers"].items()}
        for name, values in record["figures"].items():
            rounds[named.get(name, name)].append(median(values))
    return {name: summary(values) for name, values in rounds.items()}


def best_of_each(figures: dict[tuple[str, str, str, str], list[float]], width: str, row: str) -> dict[str, Record]:
    """Return peer → summary of its setting with the best median, named in the summary."""
    best = FIGURES[row][2]
    found: dict[str, Record] = {}
    for (of_width, of_row, peer, setting), values in figures.items():
        if (of_width, of_row) == (width, row):
            entry = {**summary(values), "setting": setting, "rounds": len(values)}
            known = found.get(peer)
            found[peer] = entry if known is None or best(entry, known, key=lambda e: e["median"]) is entry else known
    return found


def bandwidth_share(
    rows: dict[str, dict[str, Record]], limits: dict[str, dict[str, float]], width: str, size: str
) -> float | None:
    """Return the rate at which gpt2lab's decoding must read, over that at which the machine reads such a buffer."""
    ours, limit = rows.get("decode", {}).get("gpt2lab"), limits.get(f"read GB/s {width}")
    if ours is None or limit is None:
        return None
    workload = WORKLOADS["decode"]
    context = workload.prompt + workload.new // 2
    read = bytes_per_step(RELEASED_SIZES[size], GPT2LAB[width], context) * ours["median"] / 1e9
    return round(read / limit["median"], 3)


def print_table(width: str, rows: dict[str, dict[str, Record]], share: float | None) -> None:
    """Print a Markdown table: a line for each workload, a column for each peer, and our ratio to the best other."""
    peers = sorted({peer for found in rows.values() for peer in found}, key=lambda peer: peer != "gpt2lab")
    print(f"\n{width}" + ("" if share is None else f": decoding reads {share:.0%} of what memory gives"))
    print(f"\n| | {' | '.join(peers)} | ratio |\n|---|{'---|' * (len(peers) + 1)}")
    for row, found in rows.items():
        cells = [cell(found.get(peer)) for peer in peers]
        print(f"| {FIGURES[row][1]} | {' | '.join(cells)} | {ratio(found, FIGURES[row][2])} |")


def cell(entry: Record | None) -> str:
    if entry is None:
        return "–"
    digits = 0 if entry["median"] >= 100 else 1 if entry["median"] >= 10 else 2
    return " ".join((f"{entry['median']:,.{digits}f}", f"({entry['min']:,.{digits}f}–{entry['max']:,.{digits}f})"))


def ratio(found: dict[str, Record], best: Any) -> str:
    """Return gpt2lab's ratio to the best peer: above 1 gpt2lab is better, whether more is better or less."""
    others = [entry["median"] for peer, entry in found.items() if peer != "gpt2lab"]
    if "gpt2lab" not in found or not others:
        return "–"
    ours, theirs = found["gpt2lab"]["median"], best(others)
    return f"{ours / theirs if best is max else theirs / ours:.2f}"
