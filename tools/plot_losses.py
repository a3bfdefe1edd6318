"""Draw the losses of a training log as an SVG picture.

    python tools/plot_losses.py train.log losses.svg

Reads the lines that ``gpt2lab train`` prints; if a run was resumed from an earlier step, the later lines count.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 720, 400, 48
TOP_LOSS = 7.0  # the first updates fall from ln 50257 = 10.8; larger losses are not drawn
LINE = re.compile(r"\[(\d+) \| [\d.]+\] (?:loss=[\d.]+ avg=([\d.]+)|validation loss = ([\d.]+))")

Points = list[tuple[int, float]]


def read(log: str) -> tuple[Points, Points]:
    """Return (step, running mean of the training loss) and (step, held-out loss), by step."""
    training: dict[int, float] = {}
    held_out: dict[int, float] = {}
    for step, average, validation in LINE.findall(log):
        target, value = (training, average) if average else (held_out, validation)
        target[int(step)] = float(value)
    return sorted(training.items()), sorted(held_out.items())


def draw(training: Points, held_out: Points) -> str:
    """Return the picture: a line for training, a dotted line for the held-out loss, axes with a few numbers."""
    last = max(step for step, _ in training)
    bottom = int(2 * min(loss for _, loss in training + held_out)) / 2

    def place(step: float, loss: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / last
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (loss - bottom) / (TOP_LOSS - bottom)

    def line(points: Points, style: str) -> str:
        seen = [place(*point) for point in points if point[1] <= TOP_LOSS]
        return f'<polyline fill="none" {style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in seen)}"/>'

    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#c33"/>' for x, y in (place(*p) for p in held_out)]
    parts = [
        *axes(last, bottom, place),
        line(training[:: max(1, len(training) // 400)], 'stroke="#36c" stroke-width="1.5"'),
        line(held_out, 'stroke="#c33" stroke-width="1.5" stroke-dasharray="4 3"'),
        *marks,
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN}" text-anchor="end" fill="#36c">training (running mean)</text>',
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN + 18}" text-anchor="end" fill="#c33">held out</text>',
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return "\n".join([f'{head} font-size="13">', background, *parts, "</svg>", ""])


def axes(last: int, bottom: float, place: Callable[[float, float], tuple[float, float]]) -> Iterable[str]:
    """Yield grid lines with their numbers: losses in steps of one half, updates in four parts."""
    for half in range(int(2 * bottom), int(2 * TOP_LOSS) + 1):
        (left, y), (right, _) = place(0, half / 2), place(last, half / 2)
        yield f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="#ddd"/>'
        yield f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{half / 2}</text>'
    for quarter in range(5):
        x, y = place(last * quarter / 4, bottom)
        yield f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{last * quarter // 4}</text>'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">updates; loss in nats a token</text>'


if __name__ == "__main__":
    log = Path(sys.argv[1]).read_text(encoding="utf-8")
    Path(sys.argv[2]).write_text(draw(*read(log)), encoding="utf-8")
