"""Curves over numbers as a small chart: an ``<svg>`` element in the style of the reports' charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpt2lab.markup.html import escape

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 36

MOST_POINTS = 400
"""The most points of a line: the chart is hardly wider."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of a chart: its ``points`` (x, y), x ascending. ``style`` is 0, 1 or 2: its colour."""

    name: str
    style: int
    points: Sequence[Point]
    thin: bool = False
    dots: bool = False


def curve_chart(title: str, lines: Sequence[Line], x_name: str, x_end: float) -> str:
    """Return a chart of ``lines`` from x = 0 to ``x_end``; the scale of y fits the values."""
    shown = [line for line in lines if line.points]
    values = [y for line in shown for _, y in line.points]
    low, high = _padded(min(values, default=0.0), max(values, default=1.0))
    area = _Area(max(x_end, *(line.points[-1][0] for line in shown), 1.0) if shown else max(x_end, 1.0), low, high)
    parts = [f"<title>{escape(title)}</title>", *_axes(area, x_name)]
    offset = LEFT
    for line in shown:
        parts += _line(line, area)
        parts.append(f'<text class="c{line.style}" x="{offset}" y="14">● {escape(line.name)}</text>')
        offset += 24 + 6 * len(line.name)
    content = "".join(parts)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">{content}</svg>'


@dataclass(frozen=True)
class _Area:
    """The ranges that a chart shows."""

    x_end: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + value / self.x_end * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, most: int) -> Iterator[float]:
    """Yield at most ``most`` + 1 round numbers from ``low`` to ``high``, evenly spaced."""
    rough = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * part for part in (1, 2, 5, 10) if scale * part >= rough * (1 - 1e-9))
    yield from (number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most ``most`` points, each the mean of neighbours, which a line cannot be told from."""
    size = -(-len(points) // most)
    parts = [points[at : at + size] for at in range(0, len(points), max(size, 1))]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return the range with some room, which also holds a range of a single value."""
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _axes(area: _Area, x_name: str) -> list[str]:
    parts = []
    for value in ticks(area.low, area.high, 5):
        y = area.y(value)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in ticks(0, area.x_end, 6):
        parts.append(
            f'<text x="{area.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:,.10g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>']


def _line(line: Line, area: _Area) -> list[str]:
    places = [(area.x(x), area.y(y)) for x, y in thinned(line.points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = f"c{line.style} thin" if line.thin else f"c{line.style}"
    dots = [f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places] if line.dots else []
    return [f'<polyline class="{style}" points="{path}"/>', *dots]
