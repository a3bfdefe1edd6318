"""Make the tables of ``peers.py`` from its records: each peer at its best setting, beside the machine's limits.

All programs in a row are compared over the same rounds, those that every one of them has completed. A ratio is the
median of the rounds' ratios.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from drivers.common import WORKLOADS
from limit_shares import arithmetic_limit, most_tokens_s
from machine_limits import summary
from peer_settings import GPT2LAB, UNRESTRICTED, WIDTHS
from records import Record

from gpt2lab.config import RELEASED_SIZES

FIGURES = {
    **{name: ("tokens_s", f"{name.replace('_', ' ')}, tokens/s", max) for name in WORKLOADS},
    "cold": ("seconds", "start to first token, s", min),
    "memory": ("peak_mb", "peak memory, MB", min),
}
"""Row → the record's field, its heading, and the function that finds the best. Memory is the ``cold`` process's."""
Figures = dict[tuple[str, str, str, str], dict[int, float]]
"""(width, row, peer, setting) → round → figure."""


@dataclass(frozen=True)
class Heading:
    """The conditions of a comparison: the processor, the model's size, and peer → package → version."""

    cpu: str
    size: str
    threads: int
    isa: str
    versions: dict[str, dict[str, str]]

    def lines(self) -> list[str]:
        """Return the lines above the tables."""
        packages = [f"{name} {number}" for found in self.versions.values() for name, number in found.items()]
        lines = [f"CPU: {self.cpu}", f"{self.size}, {self.threads} threads; {', '.join(dict.fromkeys(packages))}"]
        if self.isa:
            lines.append(f"restricted to {self.isa}")
            lines += [note for peer, note in UNRESTRICTED.items() if peer in self.versions]
        return lines


def report(records: list[Record], settings: Sequence[str], heading: Heading) -> None:
    """Print the heading, the limits, a table for each width, and all of it as one line of JSON."""
    figures = collect(records, settings)
    limits = limits_of(records)
    result: Record = {**asdict(heading), "limits": limits, "widths": {}}
    print("\n".join(heading.lines()))
    print("limits: " + ", ".join(f"{name} {values['median']:g}" for name, values in limits.items()))
    print("a ratio above 1 means that gpt2lab is better than the best of the others")
    for width in WIDTHS:
        rows = {row: best_of_each(figures, width, row) for row in FIGURES}
        rows = {row: found for row, found in rows.items() if found}
        if rows:
            shares = {row: share_of_limit(row, found, limits, width, heading.size) for row, found in rows.items()}
            print_table(width, rows, shares)
            ratios = {row: ratio(found, FIGURES[row][2]) for row, found in rows.items()}
            result["widths"][width] = {"rows": rows, "ratios": ratios, "shares_of_limit": shares}
    failures = {(r["setting"], r["error"]) for r in records if "error" in r and r["setting"] in settings}
    for name, complaint in sorted(failures):
        print(f"\n{name} failed: {complaint.splitlines()[-1] if complaint else 'without a message'}")
    print(json.dumps(result))


def collect(records: list[Record], settings: Sequence[str]) -> Figures:
    """Return the figures of ``settings``, without those that failed."""
    figures: Figures = defaultdict(dict)
    for record in records:
        if "workload" not in record or "error" in record or record["setting"] not in settings:
            continue
        rows = ["cold", "memory"] if record["workload"] == "cold" else [record["workload"]]
        for row in rows:
            key = (record["width"], row, record["peer"], record["setting"])
            figures[key][record["round"]] = record[FIGURES[row][0]]
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


def best_of_each(figures: Figures, width: str, row: str) -> dict[str, Record]:
    """Return peer → summary of its setting with the best median, over the rounds that all settings have."""
    best = FIGURES[row][2]
    of_row = {key: values for key, values in figures.items() if key[:2] == (width, row)}
    common = set.intersection(*map(set, of_row.values())) if of_row else set()
    found: dict[str, Record] = {}
    for (_, _, peer, setting), values in of_row.items() if common else ():
        each = [values[number] for number in sorted(common)]
        entry = {**summary(each), "setting": setting, "rounds": len(common), "each": each}
        known = found.get(peer)
        found[peer] = entry if known is None or best(entry, known, key=lambda e: e["median"]) is entry else known
    return found


def share_of_limit(
    row: str, found: dict[str, Record], limits: dict[str, dict[str, float]], width: str, size: str
) -> float | None:
    """Return gpt2lab's speed over the most that the limits allow; None for rows without a limit."""
    bandwidth, medians = limits.get(f"read GB/s {width}"), {name: values["median"] for name, values in limits.items()}
    if row not in WORKLOADS or "gpt2lab" not in found or bandwidth is None:
        return None
    precision = GPT2LAB[width]
    operations = 1e9 * medians[arithmetic_limit(precision, medians)]
    most = most_tokens_s(RELEASED_SIZES[size], precision, *WORKLOADS[row], 1e9 * bandwidth["median"], operations)
    return round(float(found["gpt2lab"]["median"]) / most, 3)


def print_table(width: str, rows: dict[str, dict[str, Record]], shares: dict[str, float | None]) -> None:
    """Print a Markdown table: a line for each workload, a column for each peer, our ratio, our share."""
    peers = sorted({peer for found in rows.values() for peer in found}, key=lambda peer: peer != "gpt2lab")
    columns = [width, *peers, "ratio", "of the limit", "rounds"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row, found in rows.items():
        cells = [cell(found.get(peer)) for peer in peers]
        better, share = ratio(found, FIGURES[row][2]), shares[row]
        cells += ["–" if better is None else f"{better:.2f}", "" if share is None else f"{share:.2f}"]
        print(f"| {FIGURES[row][1]} | {' | '.join(cells)} | {next(iter(found.values()))['rounds']} |")


def cell(entry: Record | None) -> str:
    if entry is None:
        return "–"
    digits = 0 if entry["median"] >= 100 else 1 if entry["median"] >= 10 else 2
    return " ".join((f"{entry['median']:,.{digits}f}", f"({entry['min']:,.{digits}f}–{entry['max']:,.{digits}f})"))


def ratio(found: dict[str, Record], best: Any) -> float | None:
    """Return gpt2lab's ratio to the best peer: above 1 gpt2lab is better, whether more is better or less."""
    others = [entry for peer, entry in found.items() if peer != "gpt2lab"]
    if "gpt2lab" not in found or not others:
        return None
    pairs = zip(found["gpt2lab"]["each"], best(others, key=lambda entry: entry["median"])["each"], strict=True)
    return round(median(ours / theirs if best is max else theirs / ours for ours, theirs in pairs), 3)
