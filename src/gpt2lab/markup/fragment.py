"""What a notebook shows: a fragment of a page with its style inside, and without scripts.

The markup and the style are those of the reports. The style is nested under a class, so it changes nothing else in the
notebook. A notebook that is not trusted drops the style; the fragment can still be read. It loads nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from functools import cache
from zlib import compress, crc32

import numpy as np
import numpy.typing as npt

from gpt2lab.markup.html import HERE, KEEP_LINES, STYLES, escape, percent, strength


def fragment(body: str) -> str:
    """Return ``body``, which is markup, with the reports' style."""
    return f'<div class="gpt2lab"><style>{_nested_style()}</style>{body}</div>'


@cache
def _nested_style() -> str:
    """Return the reports' style for the inside of an element of the class ``gpt2lab``."""
    style = "".join(path.read_text(encoding="utf-8") for path in (*STYLES, HERE / "fragment.css"))
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.S)
    style = re.sub(r"(?<![\w.#-])(:root|body)(?= *\{)", "&", style)
    return f".gpt2lab {{\n{style.strip()}\n}}"


def prompt(text: str) -> str:
    """Return a prompt as a block."""
    return f'<div class="prompt" {KEEP_LINES}>{escape(text)}</div>'


def plain_text(text: str) -> str:
    """Return a text without colours as a block."""
    return f'<div class="tokens" {KEEP_LINES}>{escape(text)}</div>'


def faint(text: str) -> str:
    """Return a line in small print."""
    return f'<p class="faint">{escape(text)}</p>'


def tinted_table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[float | None]]]) -> str:
    """Return a table of probabilities, the larger the stronger tinted; None is an empty cell."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = (f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, cells in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(probability: float | None) -> str:
    if probability is None:
        return "<td></td>"
    tint = f' class="l{strength(probability)}"' if strength(probability) else ""
    return f"<td{tint}>{percent(probability)}</td>"


def svg_picture(svg: str, alternative: str) -> str:
    """Return a picture of an ``<svg>`` element with the charts' style; ``alternative`` says what it shows."""
    style = (HERE / "chart.css").read_text(encoding="utf-8")
    whole = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{style}</style>", 1
    )
    return _picture(whole.encode(), "image/svg+xml", alternative)


def heat_picture(weights: npt.NDArray[np.floating], side: int, alternative: str) -> str:
    """Return a picture of weights ``[rows, columns]`` of 0 … 1 with cells ``side`` pixels wide.

    The ink grows with the square root of the weight, as in the reports; otherwise only the strongest would be visible.
    """
    inks = np.rint(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)
    return _picture(_png(inks.repeat(side, 0).repeat(side, 1)), "image/png", alternative)


def _picture(data: bytes, kind: str, alternative: str) -> str:
    content = base64.b64encode(data).decode()
    return f'<img alt="{escape(alternative)}" src="data:{kind};base64,{content}">'


LENS = (11, 92, 173)
"""The colour of attention and of the logit lens: ``--lens`` in ``report.css``."""


def _png(inks: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG with a palette of 256 opacities of one colour."""
    height, width = inks.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), inks], axis=1)  # each begins with its filter: none
    chunks = [
        (b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x03\x00\x00\x00"),
        (b"PLTE", bytes(LENS) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    written = (
        len(data).to_bytes(4, "big") + name + data + crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)
