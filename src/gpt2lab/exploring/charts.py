"""Figures of a sweep as small line charts: the panels, and SVG in the page's colours.

:mod:`gpt2lab.exploring.plots` draws the same panels with matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpt2lab.markup.html import escape

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 28, 34


@dataclass(frozen=True)
class Panel:
    """One chart: a line for each of ``series``, with a point for each setting; None is a missing point."""

    title: str
    unit: str
    settings: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    top: float | None = None
    """Upper end of the scale; None chooses a round number above all values."""


def scale_top(panel: Panel) -> float:
    """Return the panel's own upper end, or else a number above all values that divides well into four parts."""
    if panel.top is not None:
        return panel.top
    largest = max([v for line in panel.series.values() for v in line if v is not None], default=0.0)
    if largest == 0:
        return 1.0
    scale = 10.0 ** (len(str(int(largest))) - 1) if largest >= 1 else 0.1
    return next(scale * step for step in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10) if scale * step >= largest)


def spoken(panel: Panel) -> str:
    """Return the values of a chart in words."""
    return "; ".join(
        f"{name}: {', '.join('none' if v is None else f'{v:.3g}' for v in line)}" for name, line in panel.series.items()
    )


def svg(panel: Panel) -> str:
    """Return the chart as an ``<svg>`` element; colours come from the page's style."""
    top = scale_top(panel)
    parts = [f"<title>{escape(panel.title)} ({escape(panel.unit)}) at {escape(', '.join(panel.settings))}</title>"]
    parts.append(f"<desc>{escape(spoken(panel))}</desc>")
    parts += _axes(panel.settings, top)
    offset = LEFT
    for number, (name, line) in enumerate(panel.series.items()):
        parts += _line(f"c{number}", name, panel.settings, line, top)
        if len(panel.series) > 1:
            parts.append(f'<text class="c{number}" x="{offset}" y="14">● {escape(name)}</text>')
            offset += 24 + 6 * len(name)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _axes(settings: Sequence[str], top: float) -> list[str]:
    parts = []
    for part in range(5):
        y = _y(top * part / 4, top)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{top * part / 4:g}</text>')
    for i, name in enumerate(settings):
        x, y = _x(i, len(settings)), HEIGHT - BOTTOM + 15
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text x="{middle:.1f}" y="{HEIGHT - 3}" text-anchor="middle">temperature</text>']


def _line(style: str, name: str, settings: Sequence[str], values: Sequence[float | None], top: float) -> list[str]:
    points = [(i, v, _x(i, len(values)), _y(v, top)) for i, v in enumerate(values) if v is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for _, _, x, y in points)
    dots = [
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
        f"<title>{escape(name)} at {escape(settings[i])}: {v:.4g}</title></circle>"
        for i, v, x, y in points
    ]
    return [f'<polyline class="{style}" points="{path}"/>', *dots]


def _x(i: int, n: int) -> float:
    return LEFT + (i + 0.5) * (WIDTH - RIGHT - LEFT) / n


def _y(value: float, top: float) -> float:
    return TOP + (1 - value / top) * (HEIGHT - BOTTOM - TOP)
