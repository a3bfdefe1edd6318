"""The HTML report of activation patching: a map of layers and positions for each place in a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.exploring import html
from gpt2lab.exploring.html import escape

if TYPE_CHECKING:
    from gpt2lab.exploring.patch import PatchMap, Place

TITLES: dict[Place, str] = {
    "resid_pre": "Residual stream before the layer",
    "attn_out": "Output of attention",
    "mlp_out": "Output of the MLP",
}
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""The borders between the tints, as shares of the way to the clean prompt's answer."""


def patch_page(found: PatchMap, model_name: str) -> str:
    """Return the whole report as one page."""
    differing = sum(a != b for a, b in zip(found.clean, found.corrupted, strict=True))
    body = f"""<h1>Where a prompt decides its answer</h1>
<div class="prompt">{escape("".join(found.clean))}</div>
<div class="prompt">{escape("".join(found.corrupted))}</div>
<p>{escape(model_name)}. The logit of <code>{escape(repr(found.answer_text))}</code> minus that of
<code>{escape(repr(found.other_text))}</code> is {found.clean_difference:.2f} after the first prompt, the clean one, and
{found.corrupted_difference:.2f} after the second, the corrupted one, which differs in {differing}
token{"s" * (differing != 1)}.</p>
<p class="faint">Each cell is one run of the corrupted prompt, with one activation copied from the clean prompt: that of
its row's layer at its column's token. The number is the share of the difference that comes back: 0 changes nothing, 1
gives the clean prompt's answer. Numbers below 0 lead away from it. Before the first token that differs, nothing can
change.</p>
{"".join(_map(found, place) for place in TITLES)}"""
    return html.page(f"gpt2lab patch: {''.join(found.clean)[:60]}", body)


def _map(found: PatchMap, place: Place) -> str:
    heads = zip(found.clean, found.corrupted, strict=True)
    head = "".join(f'<th scope="col">{escape(_column(clean, other))}</th>' for clean, other in heads)
    rows = [
        f'<tr><th scope="row">{layer}</th>{"".join(_cell(float(value)) for value in row)}</tr>'
        for layer, row in enumerate(found.effects[place])
    ]
    return (
        f'<h2>{escape(TITLES[place])}</h2><div class="wide" tabindex="0"><table class="lens">'
        f'<thead><tr><th scope="col">layer</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _column(clean: str, corrupted: str) -> str:
    shown = [token.replace("\n", "↵").replace(" ", "·") for token in (clean, corrupted)]
    return shown[0] if clean == corrupted else f"{shown[0]} ({shown[1]})"


def _cell(value: float) -> str:
    level = sum(value >= border for border in LEVELS)
    tint = f' class="l{level}"' if level else ""
    return f"<td{tint}>{value:.2f}</td>"
