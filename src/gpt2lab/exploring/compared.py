"""The result of a comparison of two models: its data and its HTML, as a page or for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.errors import shortened
from gpt2lab.exploring.figures import mean
from gpt2lab.exploring.parts import entries, nth, number
from gpt2lab.markup import html
from gpt2lab.markup.fragment import fragment
from gpt2lab.markup.html import escape, percent

if TYPE_CHECKING:
    from gpt2lab.exploring.parts import Tokens
    from gpt2lab.exploring.reading import Alternative

KL_LEVELS = (0.01, 0.05, 0.2, 0.5, 1.0)
"""The borders between the colours of a comparison, in nats."""


@dataclass(frozen=True)
class Place:
    """One token of a text that both models have read, with each model's expectation there."""

    id: int
    text: str
    kl: float
    a: float
    b: float
    """``a`` and ``b`` are the probabilities of the token under the unmodified models A and B."""
    likeliest_a: list[Alternative]
    likeliest_b: list[Alternative]


@dataclass(frozen=True)
class Written:
    """One completion by ``author`` (``A`` or ``B``), its places, and the command that reproduces it."""

    author: str
    number: int
    text: str
    places: list[Place]
    command: str

    @property
    def kl(self) -> float | None:
        """The mean KL(A‖B) over its places, in nats a token."""
        return mean([place.kl for place in self.places])


@dataclass(frozen=True)
class Moved:
    """A token that B expects more, or less, than A: mean probabilities over all places of all texts."""

    id: int
    text: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of ``model_a`` with ``model_b``; ``up`` and ``down`` list the largest changes first."""

    model_a: str
    model_b: str
    prompt: str
    seed: int
    written: list[Written]
    kl: float | None
    up: list[Moved]
    down: list[Moved]

    def __repr__(self) -> str:
        texts = f"{len(self.written)} texts, KL(A‖B) {number(self.kl, 4)} nats a token"
        return f"<Comparison of {self.model_a} and {self.model_b} on {shortened(self.prompt)}: {texts}>"

    def _repr_html_(self) -> str:
        """Return the page's content for a notebook."""
        return fragment(_body(self, html.titled_tokens))


def compare_page(comparison: Comparison) -> str:
    """Return a page with both models' texts side by side, coloured by how far apart the models are."""
    title = f"gpt2lab compare: {comparison.model_a} and {comparison.model_b}"
    return html.page(title, _body(comparison, html.tokens))


def _body(c: Comparison, tokens: Tokens) -> str:
    legend = [*(f"< {border:g}" for border in KL_LEVELS), "more"]
    pairs = [[each for each in c.written if each.number == n] for n in sorted({each.number for each in c.written})]
    samples = "".join(f'<div class="pair">{"".join(_written(each, tokens) for each in pair)}</div>' for pair in pairs)
    return f"""<h1>Two models, one prompt</h1>
<div class="prompt">{escape(c.prompt) or "(no prompt)"}</div>
<p>A is {escape(c.model_a)}, B is {escape(c.model_b)}; seed {c.seed}. Over all texts KL(A‖B) is {number(c.kl, 4)} nats
a token.</p>
<h2>Texts</h2>
{html.legend(legend, "KL(A‖B) at a token, nats:")}
{samples}
<h2>Largest changes</h2>
<div class="columns"><div>{_moved("B expects more often", c.up)}</div>
<div>{_moved("B expects less often", c.down)}</div></div>
<p class="faint">Mean probability of a token over all places of the texts above.</p>"""


def _written(written: Written, tokens: Tokens) -> str:
    label = f"Sample {written.number} by {written.author}"
    return (
        f'<section class="column"><h3>{escape(written.author)} writes, sample {written.number}</h3>'
        f'<p class="faint">mean KL(A‖B) {number(written.kl, 4)} nats a token</p>'
        f"{tokens([*map(_place_record, written.places)], label)}"
        f"<details><summary>Reproduce</summary>{html.command(written.command)}{nth(written.number)}</details>"
        "</section>"
    )


def _place_record(place: Place) -> html.Record:
    steps = sum(place.kl >= border for border in KL_LEVELS)
    rows = [
        ("KL(A‖B)", f"{place.kl:.4f} nats"),
        ("probability in A", percent(place.a)),
        ("in B", percent(place.b)),
        ("id", str(place.id)),
    ]
    lists = [("A expects", entries(place.likeliest_a)), ("B expects", entries(place.likeliest_b))]
    return {"text": html.visible(place.text), "classes": [f"s{steps}"] if steps else [], "rows": rows, "lists": lists}


def _moved(caption: str, moved: Sequence[Moved]) -> str:
    rows = [[repr(each.text), percent(each.a), percent(each.b)] for each in moved]
    return html.table(["token", "A", "B"], rows, caption)
