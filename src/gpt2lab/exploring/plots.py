"""The charts of a sweep as a picture file, drawn by matplotlib, which is imported only here and only when needed."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Literal

from gpt2lab.errors import UsageError
from gpt2lab.exploring.charts import scale_top
from gpt2lab.exploring.swept import panels

if TYPE_CHECKING:
    from gpt2lab.exploring.swept import Sweep

COLOURS = ("#c2410c", "#0b5cad", "#4d7c0f")


def check_matplotlib() -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` if matplotlib cannot be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f'pictures need matplotlib ({error}): pip install "gpt2lab[explore]"') from None


def picture(sweep: Sweep, format: Literal["png", "svg"]) -> bytes:
    """Return the picture's file contents; the same sweep gives the same bytes with the same matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window system

    shown = panels(sweep)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context({"svg.hashsalt": "gpt2lab", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, panel in zip(places, shown, strict=False):
            for colour, (name, values) in zip(COLOURS, panel.series.items(), strict=False):
                heights = [float("nan") if value is None else value for value in values]
                axes.plot(range(len(heights)), heights, "o-", color=colour, label=name, markersize=4)
            axes.set_xticks(range(len(panel.settings)), panel.settings)
            axes.set_ylim(0, 1.05 * scale_top(panel))
            axes.set(title=panel.title, ylabel=panel.unit, xlabel="temperature")
            axes.grid(alpha=0.3)
            if len(panel.series) > 1:
                axes.legend(fontsize=8)
        for axes in places[len(shown) :]:
            axes.set_axis_off()
        file = BytesIO()
        figure.savefig(file, format=format, dpi=150, metadata={"Date": None} if format == "svg" else {"Software": None})
    return file.getvalue()
