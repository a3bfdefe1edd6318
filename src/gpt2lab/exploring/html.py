"""Pages that need nothing but themselves: style and script are inside, and everything that is text is escaped.

Data for the script is JSON in the page, and the script only ever sets text, so nothing a model writes becomes markup.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.errors import UsageError

HERE = Path(__file__).parent

_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "␡"}


def visible(text: str) -> str:
    """``text`` with control characters but newline and tab as pictures of them."""
    return text.translate(_CONTROLS)


def escape(text: object) -> str:
    """Text for HTML, inside elements and quoted attributes."""
    return html.escape(visible(str(text)))


def page(title: str, body: str, *, scripts: Sequence[str] = (), data: Any = None) -> str:
    """A whole page: ``body`` is markup, ``data`` goes to the ``scripts`` (names of files beside this one)."""
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("report.js", *scripts))
    style = (HERE / "report.css").read_text(encoding="utf-8")
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
{json_data}<script>
{script}</script>
</body>
</html>
"""


def json_in_html(data: Any) -> str:
    """JSON that no ``</script>`` in a text can end."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def token(text: str, level: int, rows: Iterable[tuple[str, str]], lists: Iterable[Any] = (), mark: str = "") -> str:
    """One token of a coloured text; ``rows`` and ``lists`` are on the card that it shows.

    ``lists`` are (heading, [(text, probability) …]); ``mark`` is a class for what is special about it.
    """
    classes = " ".join(filter(None, ("t", f"s{level}" if level else "", "nl" if text.startswith("\n") else "", mark)))
    return f"<span class='{classes}' data-d='{details(text, rows, lists)}'>{escape(text)}</span>"


def details(text: str, rows: Iterable[tuple[str, str]], lists: Iterable[Any] = ()) -> str:
    """What the card of a token says, for its ``data-d`` attribute in single quotes; see :func:`token`."""
    record = {"t": visible(text), "r": list(rows), "l": list(lists)}
    data = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return html.escape(data, quote=False).replace("'", "&#39;")  # double quotes as they are: JSON is full of them


def tokens(spans: Iterable[str], label: str) -> str:
    """A coloured text that arrow keys walk through."""
    return f'<div class="tokens" tabindex="0" role="group" aria-label="{escape(label)}">{"".join(spans)}</div>'


def legend(labels: Sequence[str], title: str) -> str:
    """What the six colours mean."""
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
