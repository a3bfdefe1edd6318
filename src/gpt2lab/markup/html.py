"""Self-contained pages: style and script are inside, and all text is escaped.

The script's data is JSON in the page, and the script only ever sets text, so nothing that a model writes becomes
markup.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from gpt2lab.errors import UsageError

HERE = Path(__file__).parent
PLAYGROUND = HERE.parent / "serving" / "page"

SCRIPTS = (PLAYGROUND / "elements.js", PLAYGROUND / "token_spans.js", HERE / "report.js")
"""The modules of every page, each after those that it imports: tokens look as they do in the playground."""

STYLES = (PLAYGROUND / "tokens.css", HERE / "report.css", HERE / "chart.css")


EDGES = (0.001, 0.01, 0.1, 0.5)
"""The probabilities at which the next tint begins, as in the playground's ``token_spans.js``."""

MOST_TITLED = 2000
"""The most tokens of a coloured text in a notebook, which keeps all that it shows in its file."""

KEEP_LINES = 'style="white-space: pre-wrap"'
"""An attribute that keeps the line ends of a text even where the style sheet is dropped."""

TINTS = ("under 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 to 50 %", "50 % and more")


class Record(TypedDict, total=False):
    """A token of a coloured text: its text, and the content of its card."""

    text: str
    probability: float
    """The probability that sets the tint; without it there is none."""
    classes: list[str]
    """CSS classes for special tokens."""
    rows: list[tuple[str, str]]
    """Names and values."""
    lists: list[tuple[str, list[tuple[str, float]]]]
    """Headings, each with texts and their probabilities."""


_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "␡"}


def visible(text: str) -> str:
    """Return ``text`` with control characters, except newline and tab, replaced by pictures of them."""
    return text.translate(_CONTROLS)


def escape(text: object) -> str:
    """Escape text for HTML elements and quoted attributes."""
    return html.escape(visible(str(text)))


def page(title: str, body: str, *, scripts: Sequence[str] = (), data: Any = None) -> str:
    """Return a whole page: ``body`` is markup, ``data`` goes to the ``scripts`` (names of files beside this one)."""
    script = one_module([*SCRIPTS, *(HERE / name for name in scripts)])
    style = "".join(path.read_text(encoding="utf-8") for path in STYLES)
    json_data = "" if data is None else f'<script type="application/json" id="data">{json_in_html(data)}</script>\n'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<div id="card" role="status" hidden></div>
{json_data}<script type="module">
{script}</script>
</body>
</html>
"""


def one_module(paths: Iterable[Path]) -> str:
    """Join the modules in ``paths`` for a page that cannot import; they share a scope, so names must not clash."""
    return "\n".join(
        re.sub(r"^import .*?;\n", "", path.read_text(encoding="utf-8"), flags=re.M | re.S) for path in paths
    )


def json_in_html(data: Any) -> str:
    """Return JSON that no ``</script>`` in a text can end."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def in_attribute(data: Any) -> str:
    """Return JSON for an attribute in single quotes."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return html.escape(written, quote=False).replace("'", "&#39;")  # double quotes stay: JSON is full of them


def tokens(records: Sequence[Record], label: str) -> str:
    """Return a coloured text that arrow keys walk through; the page's script shows the cards of its tokens."""
    text = "".join(_token(record, _classes(record, "known")) for record in records)
    name = escape(label)
    data = in_attribute(records)
    return f"<div class='tokens' tabindex='0' role='group' aria-label=\"{name}\" data-tokens='{data}'>{text}</div>"


def titled_tokens(records: Sequence[Record], label: str) -> str:
    """Return the beginning of the same text for places without scripts: a token's card is its title."""
    text = "".join(_token(record, _classes(record), card(record)) for record in records[:MOST_TITLED])
    more = len(records) - MOST_TITLED
    rest = f'<p class="faint">… and {more:,} more tokens</p>' if more > 0 else ""
    return f'<div class="tokens" {KEEP_LINES} role="group" aria-label="{escape(label)}">{text}</div>{rest}'


def level(probability: float) -> int:
    """Return the tint of a probability: 0 for the unlikeliest … 4 for the likely."""
    return sum(probability >= edge for edge in EDGES)


def strength(probability: float) -> int:
    """Return the tint of a cell of a table: 0, which is none, … 5."""
    return sum(probability >= edge for edge in (0.02, 0.1, 0.25, 0.5, 0.8))


def _classes(record: Record, *more: str) -> str:
    text, probability = record["text"], record.get("probability")
    tint = [] if probability is None else [f"p{level(probability)}"]
    marks = ["part"] * (text == "") + ["newline"] * ("\n" in text)
    return " ".join(["t", *tint, *marks, *more, *record.get("classes", ())])


def _token(record: Record, classes: str, card: str = "") -> str:
    """Return the element of a token; the space before a word stays outside the tint."""
    text = record["text"]
    space = " " if len(text) > 1 and text[0] == " " and not text[1].isspace() else ""
    title = f' title="{escape(card)}"' if card else ""
    return f'{space}<span class="{escape(classes)}"{title}>{escape(text[len(space) :])}</span>'


def card(record: Record) -> str:
    """Return the content of a token's card as lines of text."""
    lines = [f"{name}: {value}" for name, value in record.get("rows", ())]
    for heading, entries in record.get("lists", ()):
        lines += [f"{heading}:", *(f"  {text!r} {percent(probability)}" for text, probability in entries)]
    return "\n".join(lines)


def carded(record: Record) -> str:
    """Return the attribute from which a page's script takes the card of an element of the class ``known``."""
    return f"data-token='{in_attribute(record)}'"


def titled(record: Record) -> str:
    """Return the attribute with the same content for places without scripts."""
    return f'title="{escape(card(record))}"'


def tints(title: str) -> str:
    """Return a legend for the tints of probabilities."""
    keys = "".join(f'<li class="t p{number}">{escape(text)}</li>' for number, text in enumerate(TINTS))
    return f'<div class="legend">{escape(title)}<ol class="tints">{keys}</ol></div>'


def probable(ids: Sequence[int], texts: Sequence[str], logprobs: Sequence[float], text: str) -> list[Record]:
    """Return the records of tokens whose ``texts`` joined begin with ``text``, which may end within one of them.

    If they are shorter, the last token gets the rest, the remains of an incomplete character.
    """
    records: list[Record] = []
    for id, added, logprob in zip(ids, texts, logprobs, strict=True):
        shown, text = text[: len(added)], text[len(added) :]
        rows = [("probability", percent(math.exp(logprob))), ("surprisal", f"{-logprob:.2f} nats"), ("id", str(id))]
        records.append({"text": visible(shown), "probability": math.exp(logprob), "rows": rows})
    if records:
        records[-1]["text"] += visible(text)
    return records


def legend(labels: Sequence[str], title: str) -> str:
    """Return a legend for the six colours of another figure."""
    keys = "".join(f'<span class="key s{n}">{escape(label)}</span>' for n, label in enumerate(labels))
    return f'<p class="legend">{escape(title)} {keys}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table that scrolls sideways if it is too wide; cells are text, and a row's first is its heading."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    ]
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(lines)
    return (
        f'<div class="wide" tabindex="0"><table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def command(text: str) -> str:
    """Return a command for the reader to copy."""
    return f'<code class="command">{escape(text)}</code>'


def percent(probability: float) -> str:
    """Format a probability as the playground does: "12.3 %", with the significant digits only."""
    value = 100 * probability
    if value == 0:
        return "0 %"
    if value < 0.001:
        return "< 0.001 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    digits = 0 if value >= 99.95 else 1 if value >= 1 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f} %"


def write(path: str, content: str | bytes) -> None:
    """Write a file. Raises :class:`~gpt2lab.errors.UsageError` on failure."""
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
