"""Attention and the logit lens: the data and its HTML, as a page (a grid of heads, one large) or for a notebook."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpt2lab.errors import shortened
from gpt2lab.markup import html
from gpt2lab.markup.fragment import fragment, heat_picture
from gpt2lab.markup.html import escape, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt2lab.exploring.reading import Alternative


@dataclass(frozen=True)
class Attention:
    """A model's attention and its predictions after each layer.

    Attributes:
        tokens: the prompt's tokens as text.
        ids: the same tokens as ids.
        lens: the likeliest next tokens at each token, for the input and then each layer:
            ``[n_layer + 1][n_seq][top]``.
        weights: float32 ``[n_layer, n_head, n_seq, n_seq]``: the attention of a row's token to a column's; each row
            sums to 1.
    """

    prompt: str
    tokens: list[str]
    ids: list[int]
    lens: list[list[list[Alternative]]]
    weights: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        n_layer, n_head, n_seq, _ = self.weights.shape
        return f"<Attention on {shortened(self.prompt)}: {n_seq} tokens, {n_layer} layers of {n_head} heads>"

    def _repr_html_(self) -> str:
        """Return the logit lens and a picture of each head for a notebook."""
        return fragment(
            f"<h4>Logit lens: what each layer would predict next</h4>{_lens(self, html.titled)}"
            f"<h4>Attention: rows are tokens, columns the tokens that they attend to</h4>{_pictures(self)}"
        )


def attend_page(attention: Attention, model_name: str) -> str:
    """Return the whole report as one page; weights are rounded to 255ths."""
    n_layer, n_head, n_seq, _ = attention.weights.shape
    body = f"""<h1>What a model attends to</h1>
<div class="prompt">{escape(attention.prompt) or "(no prompt: the token that starts a text)"}</div>
<p class="faint">{escape(model_name)}: {n_layer} layers of {n_head} heads, {n_seq} token{"s" * (n_seq != 1)}.</p>
<h2>Logit lens: what each layer would predict next</h2>
<p class="faint">Each cell shows the token that would be likeliest after its column's token if its layer were the last.
The stronger the colour, the more probable the token. The bottom row is the model's own prediction.</p>
{_lens(attention, html.carded)}
<h2>Attention</h2>
<p class="faint">One picture for each head. Each row is a token, and each column a token that it attends to: itself or
an earlier one. Colour grows with the square root of the weight. Choose a head to enlarge it.</p>
<div id="attention">{_grid(n_layer, n_head)}
<div><h3 id="head" aria-live="polite"></h3>
<p id="where" class="faint">Point at or tap a cell, or a token below.</p>
<div class="wide"><canvas id="large" role="img" aria-labelledby="head"></canvas></div>
<p class="faint">Choose a token to colour those that it attends to.</p>
<div id="looks" class="tokens" role="group" aria-label="Tokens of the prompt"></div></div></div>"""
    title = f"gpt2lab attend: {attention.prompt[:60]}"
    return html.page(title, body, scripts=("attend.js",), data=_data(attention))


def _data(attention: Attention) -> dict[str, Any]:
    """Return the data that the script draws: the lower triangle of each head, row by row, one byte per weight."""
    n_seq = len(attention.ids)
    rows, columns = np.tril_indices(n_seq)
    triangle = np.rint(attention.weights[:, :, rows, columns] * 255).astype(np.uint8)  # [n_layer, n_head, n(n+1)/2]
    return {
        "tokens": [html.visible(token) for token in attention.tokens],
        "layers": attention.weights.shape[0],
        "heads": attention.weights.shape[1],
        "weights": base64.b64encode(triangle.tobytes()).decode(),
    }


def _grid(n_layer: int, n_head: int) -> str:
    def button(layer: int, head: int) -> str:
        return (
            f'<button type="button" data-layer="{layer}" data-head="{head}" aria-pressed="false" '
            f'aria-label="Layer {layer + 1}, head {head + 1}"><canvas></canvas></button>'
        )

    return _table_of_heads(n_layer, n_head, button)


def _pictures(attention: Attention) -> str:
    n_layer, n_head, n_seq, _ = attention.weights.shape

    def picture(layer: int, head: int) -> str:
        return heat_picture(attention.weights[layer, head], max(1, 64 // n_seq), f"Layer {layer + 1}, head {head + 1}")

    return _table_of_heads(n_layer, n_head, picture)


def _table_of_heads(n_layer: int, n_head: int, cell: Callable[[int, int], str]) -> str:
    head = "".join(f'<th scope="col">{n + 1}</th>' for n in range(n_head))
    rows = []
    for layer in range(n_layer):
        cells = "".join(f"<td>{cell(layer, n)}</td>" for n in range(n_head))
        rows.append(f'<tr><th scope="row">{layer + 1}</th>{cells}</tr>')
    return (
        '<div class="wide"><table class="heads"><caption>Layers down, heads across</caption>'
        f'<thead><tr><th scope="col">layer</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _lens(attention: Attention, detailed: Callable[[html.Record], str]) -> str:
    head = "".join(f'<th scope="col">{escape(_shown(token))}</th>' for token in attention.tokens)
    rows = []
    for number, layer in enumerate(attention.lens):
        name = "input" if number == 0 else str(number)
        rows.append(
            f'<tr><th scope="row">{name}</th>{"".join(_lens_cell(guesses, detailed) for guesses in layer)}</tr>'
        )
    return (
        '<div class="wide cells" tabindex="0" role="group" aria-label="Logit lens: arrow keys go through its cells">'
        '<table class="lens">'
        f'<thead><tr><th scope="col">layer</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _lens_cell(guesses: list[Alternative], detailed: Callable[[html.Record], str]) -> str:
    best = guesses[0]
    level = html.strength(best.probability)
    entries = [(html.visible(each.text) or f"#{each.id}", round(each.probability, 6)) for each in guesses]
    text = best.text or f"#{best.id}"
    rows = [("probability", percent(best.probability))]
    record: html.Record = {"text": html.visible(text), "rows": rows, "lists": [("next", entries)]}
    style = f"known l{level}" if level else "known"
    return f'<td class="{style}" {detailed(record)}>{escape(_shown(text))}</td>'


def _shown(token: str) -> str:
    """Return a token for a cell, with spaces and line ends as visible signs."""
    return token.replace("\n", "↵").replace(" ", "␣") if token.strip(" \n") == "" else token.replace("\n", "↵")
