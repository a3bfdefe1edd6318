"""Activation patching: a map of layers and positions for each place in a layer, and its HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gpt2lab.errors import shortened
from gpt2lab.markup import html
from gpt2lab.markup.fragment import fragment
from gpt2lab.markup.html import escape

Place = Literal["resid_pre", "attn_out", "mlp_out"]
PLACES: tuple[Place, ...] = get_args(Place)

Array = npt.NDArray[np.float32]

TITLES: dict[Place, str] = {
    "resid_pre": "Residual stream before the layer",
    "attn_out": "Output of attention",
    "mlp_out": "Output of the MLP",
}
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""The borders between the tints, as shares of the way to the clean prompt's answer."""


@dataclass(frozen=True)
class PatchMap:
    """The result. A difference is the answer's logit minus the other token's, after the last token.

    Attributes:
        clean, corrupted: the texts of the two prompts' tokens.
        answer, other: the two tokens, as ids.
        answer_text, other_text: the same as text.
        clean_difference, corrupted_difference: the difference after each prompt.
        effects: place → float32 ``[n_layer, n_seq]``: the share of the way from the corrupted prompt's difference (0)
            to the clean prompt's (1) after a patch there.
    """

    clean: list[str]
    corrupted: list[str]
    answer: int
    other: int
    answer_text: str
    other_text: str
    clean_difference: float
    corrupted_difference: float
    effects: dict[Place, Array]

    def __repr__(self) -> str:
        differences = f"difference {self.clean_difference:.2f} and {self.corrupted_difference:.2f}"
        prompts = f"{shortened(''.join(self.clean))} and {shortened(''.join(self.corrupted))}"
        return f"<PatchMap of {prompts}: {self.answer_text!r} against {self.other_text!r}, {differences}>"

    def _repr_html_(self) -> str:
        """Return the page's content for a notebook."""
        return fragment(_body(self))


def patch_page(found: PatchMap, model_name: str) -> str:
    """Return the whole report as one page."""
    body = f"<h1>Where a prompt decides its answer</h1>\n<p>{escape(model_name)}.</p>\n{_body(found)}"
    return html.page(f"gpt2lab patch: {''.join(found.clean)[:60]}", body)


def _body(found: PatchMap) -> str:
    differing = sum(a != b for a, b in zip(found.clean, found.corrupted, strict=True))
    return f"""<div class="prompt">{escape("".join(found.clean))}</div>
<div class="prompt">{escape("".join(found.corrupted))}</div>
<p>The logit of <code>{escape(repr(found.answer_text))}</code> minus that of
<code>{escape(repr(found.other_text))}</code> is {found.clean_difference:.2f} after the first prompt, the clean one, and
{found.corrupted_difference:.2f} after the second, the corrupted one, which differs in {differing}
token{"s" * (differing != 1)}.</p>
<p class="faint">Each cell is one run of the corrupted prompt, with one activation copied from the clean prompt: that of
its row's layer at its column's token. The number is the share of the difference that comes back: 0 changes nothing, 1
gives the clean prompt's answer. Numbers below 0 lead away from it. Before the first token that differs, nothing can
change.</p>
{"".join(_map(found, place) for place in TITLES)}"""


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
    shown = [token.replace("\n", "↵").replace(" ", "␣") for token in (clean, corrupted)]
    return shown[0] if clean == corrupted else f"{shown[0]} ({shown[1]})"


def _cell(value: float) -> str:
    level = sum(value >= border for border in LEVELS)
    tint = f' class="l{level}"' if level else ""
    return f"<td{tint}>{value:.2f}</td>"
