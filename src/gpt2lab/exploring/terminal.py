"""Results of exploring on a terminal: rich tables, and texts coloured by surprisal.

The output goes through ``print``, because rich would exit with its own status if nobody reads its output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.exploring.compared import KL_LEVELS
from gpt2lab.exploring.swept import figure_notes, figure_table
from gpt2lab.markup.html import visible

if TYPE_CHECKING:
    from gpt2lab.exploring.attend_page import Attention
    from gpt2lab.exploring.compared import Comparison, Moved
    from gpt2lab.exploring.document import Document
    from gpt2lab.exploring.merging import Piece
    from gpt2lab.exploring.next import NextToken, Staged
    from gpt2lab.exploring.patch_page import PatchMap
    from gpt2lab.exploring.reading import Reading
    from gpt2lab.exploring.swept import Sweep

LEVELS = (0.5, 0.2, 0.05, 0.01, 0.001)
"""The probabilities that separate the six levels, from expected to most surprising."""

LEGEND = [*(f"≥ {border:.1%}".replace(".0%", "%") for border in LEVELS), "less"]

STYLES = (
    "",
    "black on #feedde",
    "black on #fdd0a2",
    "black on #fdae6b",
    "black on #f16913",
    "white on #a63603",
)
"""Styles of the six levels, from expected to most surprising; the colours are readable on every terminal."""

CUT = "·"

SHORT = {
    "temperature": "T",
    "surprisal": "surpr.",
    "sampling entropy": "drawn",
    "distinct-1": "dist-1",
    "repeated 4-grams": "rep-4",
    "longest copied": "copied",
    "unknown words": "unknown",
}
"""Headings for narrow terminals."""


def level(probability: float) -> int:
    """Return 0 (expected) to 5 (most surprising): the number of :data:`LEVELS` above a probability."""
    return sum(probability < border for border in LEVELS)


def show(*parts: Any) -> None:
    """Print rich renderables and lines of text."""
    console = Console(highlight=False)
    with console.capture() as captured:
        for part in parts:
            whole = isinstance(part, str) or (isinstance(part, Text) and bool(part.no_wrap))  # must stay copyable
            console.print(part, soft_wrap=whole, markup=False)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def coloured(readings: Iterable[Reading], edges: Sequence[int] = ()) -> Text:
    """Return a text whose tokens are coloured by surprisal, with ``▏`` before those in ``edges``."""
    text = Text()
    for number, reading in enumerate(readings):
        if number in edges:
            text.append("▏", style="bold cyan")
        text.append(visible(reading.text), style=STYLES[level(reading.probability)])
    return text


def legend(labels: Sequence[str], title: str) -> Text:
    """Return a legend for the colours."""
    return Text.assemble(title, *((f" {label} ", style) for label, style in zip(labels, STYLES, strict=True)))


def show_sweep(sweep: Sweep) -> None:
    """Print figures, then the samples of each setting under the command that reproduces them."""
    head, rows = figure_table(sweep)
    figures = _table(*(SHORT.get(name, name) for name in head))
    for row in rows:
        figures.add_row(*(cell.removesuffix(" words") for cell in row))
    parts: list[Any] = [f"seed {sweep.request.seed}", figures, Text(figure_notes(sweep), style="dim"), ""]
    parts.append(legend(LEGEND, "probability in the unmodified model: "))
    for setting in sweep.settings:
        parts += ["", Text(f"temperature {setting.name}", style="bold"), _command(setting.command)]
        for number, sample in enumerate(setting.samples, 1):
            parts.append(Text(f"{number}. ", style="bold").append(coloured(sample.readings)))
    show(*parts)


def show_next(result: NextToken) -> None:
    """Print the stages of one setting, or the outcomes of several, as columns; then the draws."""
    table = _stages_table(result, result.settings[0]) if len(result.settings) == 1 else _settings_table(result)
    show(table, "", *(line for setting in result.settings for line in _draw_lines(setting)))


def _stages_table(result: NextToken, staged: Staged) -> Table:
    table = _table("token", "logit", *(stage.name for stage in staged.stages))
    for column in table.columns[2:]:
        column.justify = "left"
    width = _bar_width(len(staged.stages))
    for number, token in enumerate(result.shown):
        cells = [_cell(stage.probabilities[number], max(stage.probabilities), width) for stage in staged.stages]
        logit = staged.stages[0].logits[number]
        table.add_row(_token(token.text, token.id), "-inf" if logit is None else f"{logit:.2f}", *cells)
    table.add_section()
    table.add_row("tokens left", "", *(f"{stage.kept:>7,}" for stage in staged.stages))
    table.add_row("probability cut", "", *(f"{_percent(stage.cut_probability):>7}" for stage in staged.stages))
    table.add_row("entropy, nats", "", *(f"{stage.entropy:7.2f}" for stage in staged.stages))
    return table


def _settings_table(result: NextToken) -> Table:
    last = [staged.stages[-1] for staged in result.settings]
    table = _table("token", "model", *(f"T={staged.params.temperature:g}" for staged in result.settings))
    for column in table.columns[1:]:
        column.justify = "left"
    model = result.settings[0].stages[0]
    columns = [model, *last]
    for number, token in enumerate(result.shown):
        cells = [
            _cell(each.probabilities[number], max(each.probabilities), _bar_width(len(columns))) for each in columns
        ]
        table.add_row(_token(token.text, token.id), *cells)
    table.add_section()
    table.add_row("tokens left", *(f"{each.kept:>7,}" for each in columns))
    table.add_row("entropy, nats", *(f"{each.entropy:7.2f}" for each in columns))
    table.add_row("drawn", "", *(_token(s.drawn.text, s.drawn.id) for s in result.settings))
    return table


def _draw_lines(staged: Staged) -> list[str]:
    d = staged.drawn
    name = _token(d.text, d.id)
    lines = [
        f"T={staged.params.temperature:g}, seed {d.seed}, sample 0, position {d.position}: number {d.number:.6f}. "
        f"Probabilities in order of id add up to {d.low:.6f} before {name} and {d.high:.6f} with it: {name} is drawn.",
        f"  {d.command}",
    ]
    if d.generated != d.id:
        other = _token(d.generated_text, d.generated)
        why = "its weights have another precision, and the number lies close to a border"
        lines.append(f"  draws {other}: {why}; both agree with --precision float32")
    return lines


def _bar_width(columns: int) -> int:
    """Return the characters left for a bar in each of ``columns``, beside a token, its logit, and percentages."""
    return max(0, min(16, (Console().width - 24) // columns - 10))


def _cell(probability: float, largest: float, width: int) -> Text:
    """Return a percentage, and if there is room, a bar in proportion to the largest of its column."""
    if probability == 0:
        return Text(f"{CUT:>7}", style="dim")
    eighths = round(8 * width * probability / largest)
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]
    return Text(f"{_percent(probability):>7}").append(" " + bar.rstrip() if width > 1 else "", style="cyan")


def show_score(document: Document, source: str) -> None:
    """Print the coloured text and its loss."""
    show(
        legend(LEGEND, "probability: "),
        "",
        coloured(document.readings, document.edges),
        "",
        f"{source}: {document.summary}",
        Text(document.windows, style="dim"),
    )


def show_comparison(comparison: Comparison) -> None:
    """Print the texts, coloured by KL, and the tokens that moved most."""
    c = comparison
    parts: list[Any] = [f"A: {c.model_a}", f"B: {c.model_b}", f"seed {c.seed}"]
    parts.append(legend([*(f"< {border:g}" for border in KL_LEVELS), "more"], "KL(A‖B) at a token, nats: "))
    for written in c.written:
        text = Text()
        for place in written.places:
            text.append(visible(place.text), style=STYLES[sum(place.kl >= border for border in KL_LEVELS)])
        mean = "–" if written.kl is None else f"{written.kl:.4f}"
        heading = Text(f"{written.author}, sample {written.number}: KL(A‖B) {mean} nats a token", style="bold")
        parts += ["", heading, _command(written.command), text]
    total = "–" if c.kl is None else f"{c.kl:.4f}"
    parts += ["", f"KL(A‖B) over all texts: {total} nats a token", ""]
    for title, moved in (("B expects more often:", c.up), ("B expects less often:", c.down)):
        parts += [Text(title, style="bold"), _moved(moved), ""] if moved else []
    show(*parts[:-1])


def _moved(moved: Sequence[Moved]) -> Table:
    table = _table("token", "A", "B")
    for each in moved:
        table.add_row(_token(each.text, each.id), _percent(each.a), _percent(each.b))
    return table


def show_merges(pieces: Sequence[Piece]) -> None:
    """Print each piece: its bytes, then the symbols after each merge, then its ids."""
    parts: list[Any] = []
    for piece in pieces:
        parts += ["", Text(f"{visible(piece.text)!r}  {piece.bytes}", style="bold"), f"  {' '.join(piece.symbols)}"]
        for merge in piece.merges:
            parts.append(f"  {' '.join(merge.symbols)}    merge {merge.rank:,}: {' + '.join(merge.pair)}")
        parts.append(f"  ids {' '.join(map(str, piece.ids))}")
    n_ids = sum(len(piece.ids) for piece in pieces)
    show(*parts[1:], "", f"{len(pieces)} pieces, {n_ids} tokens")


def show_lens(attention: Attention) -> None:
    """Print the logit lens: each layer's predictions for the last tokens, as many as fit the terminal's width."""
    columns = max(1, min(len(attention.ids), (Console().width - 10) // 16))
    table = _table("layer", *(f"{_short(token)} →" for token in attention.tokens[-columns:]))
    for number, layer in enumerate(attention.lens):
        cells = [
            Text(f"{_short(g[0].text)} {g[0].probability:.0%}", style=_lens_style(g[0].probability)) for g in layer
        ]
        table.add_row("input" if number == 0 else str(number), *cells[-columns:])
    left_out = len(attention.ids) - columns
    notes = [f"{left_out} earlier tokens are not shown: --html shows all"] if left_out else []
    show(table, *notes)


def show_patches(found: PatchMap) -> None:
    """Print the shares that come back from patches of the residual stream, for as many last tokens as fit."""
    columns = max(1, min(len(found.clean), (Console().width - 10) // 10))
    table = _table("layer", *map(_short, found.clean[-columns:]))
    for layer, row in enumerate(found.effects["resid_pre"]):
        cells = [Text(f"{value:.2f}", style="bold" if value >= 0.5 else "" if value >= 0.1 else "dim") for value in row]
        table.add_row(str(layer), *cells[-columns:])
    note = (
        f"{found.answer_text!r} over {found.other_text!r}: {found.clean_difference:.2f} nats after the clean prompt, "
        f"{found.corrupted_difference:.2f} after the corrupted one; a cell is the share of that difference that comes "
        "back. --html also shows attention and MLPs"
    )
    left_out = len(found.clean) - columns
    show(table, note, *([f"{left_out} earlier tokens are not shown: --html shows all"] if left_out else []))


def _lens_style(probability: float) -> str:
    return "bold" if probability >= 0.5 else "" if probability >= 0.1 else "dim"


def _short(text: str) -> str:
    quoted = repr(visible(text))
    return quoted if len(quoted) <= 10 else quoted[:8] + "…'"


def _token(text: str, id: int) -> str:
    return repr(visible(text)) if text else f"#{id}"


def _command(command: str) -> Text:
    return Text(command, style="dim", no_wrap=True)


def _table(*head: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", no_wrap=bool(number == 0))
    return table


def _percent(probability: float) -> str:
    """Format a probability for a narrow column: below a thousandth in scientific notation."""
    if probability >= 0.001 or probability == 0:
        return f"{probability:.1%}"
    return f"{probability:.1e}"
