"""Pages that need nothing but themselves: style and script are inside, and everything that is text is escaped.

Data for the script is JSON in the page, and the script only ever sets text, so nothing a model writes becomes markup.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from gpt2lab.errors import UsageError

HERE = Path(__file__).parent
PLAYGROUND = HERE.parent / "serving" / "page"

SCRIPTS = (PLAYGROUND / "elements.js", PLAYGROUND / "token_spans.js", HERE / "report.js")
"""Modules of every page, each after those that it imports: tokens look as they do in the playground."""

STYLES = (PLAYGROUND / "tokens.css", HERE / "report.css")


class Record(TypedDict, total=False):
    """A token of a coloured text: its text, and what the card that it shows says."""

    text: str
    probability: float
    """It gives the tint; without one there is none."""
    classes: list[str]
    """For what is special about it."""
    rows: list[tuple[str, str]]
    """Names and values."""
    lists: list[tuple[str, list[tuple[str, float]]]]
    """Headings, each with texts and their probabilities."""


_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "␡"}


def visible(text: str) -> str:
    """``text`` with control characters but newline and tab as pictures of them."""
    return text.translate(_CONTROLS)


def escape(text: object) -> str:
    """Text for HTML, inside elements and quoted attributes."""
    return html.escape(visible(str(text)))


def page(title: str, body: str, *, scripts: Sequence[str] = (), data: Any = None) -> str:
    """A whole page: ``body`` is markup, ``data`` goes to the ``scripts`` (names of files beside this one)."""
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
    """The modules in ``paths`` as one, for a page that cannot import: they share a scope, so no two name alike."""
    return "\n".join(
        re.sub(r"^import .*?;\n", "", path.read_text(encoding="utf-8"), flags=re.M | re.S) for path in paths
    )


def json_in_html(data: Any) -> str:
    """JSON that no ``</script>`` in a text can end."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def in_attribute(data: Any) -> str:
    """JSON for an attribute in single quotes."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return html.escape(written, quote=False).replace("'", "&#39;")  # double quotes as they are: JSON is full of them


def tokens(records: Sequence[Record], label: str) -> str:
    """A coloured text that arrow keys walk through; plain until the script has coloured it."""
    text = escape("".join(record["text"] for record in records))
    name = escape(label)
    data = in_attribute(records)
    return f"<div class='tokens' tabindex='0' role='group' aria-label=\"{name}\" data-tokens='{data}'>{text}</div>"


def tints(title: str) -> str:
    """What the tints of probabilities stand for."""
    return f'<div class="legend">{escape(title)}<ol class="tints"></ol></div>'


def legend(labels: Sequence[str], title: str) -> str:
    """What the six colours of another figure mean."""
    keys = "".join(f'<span class="key s{n}">{escape(label)}</span>' for n, label in enumerate(labels))
    return f'<p class="legend">{escape(title)} {keys}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls sideways where it has no room; cells are text, the first of a row is its heading."""
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
    """A command to be copied."""
    return f'<code class="command">{escape(text)}</code>'


def percent(probability: float) -> str:
    """A probability to be read: as a percentage, or as a power of ten below a thousandth."""
    if probability >= 0.001 or probability == 0:
        return f"{probability:.1%}"
    return f"{probability:.1e}"


def write(path: str, content: str | bytes) -> None:
    """Write a file. Raises :class:`~gpt2lab.errors.UsageError` if that cannot be done."""
    data = content.encode() if isinstance(content, str) else content
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
