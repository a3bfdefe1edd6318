"""A text as a model has read it: its data and its HTML, as a page or for a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.exploring.parts import reading_record
from gpt2lab.markup import html
from gpt2lab.markup.fragment import fragment
from gpt2lab.markup.html import escape

if TYPE_CHECKING:
    from gpt2lab.exploring.parts import Tokens
    from gpt2lab.exploring.reading import Reading


@dataclass(frozen=True)
class Document:
    """A text as a model has read it.

    Attributes:
        edges: indices of the readings whose context is shorter than the one before.
        loss: the mean surprisal in nats, None for a text without tokens.
    """

    model_name: str
    n_ctx: int
    stride: int
    readings: list[Reading]
    edges: list[int]
    loss: float | None

    @property
    def summary(self) -> str:
        """The document's size, loss and perplexity in words."""
        if self.loss is None:
            return "no tokens to score"
        perplexity = math.exp(min(self.loss, 700.0))
        n = len(self.readings)
        return f"{n:,} token{'s' * (n != 1)}, loss {self.loss:.4f} nats a token, perplexity {perplexity:.3f}"

    @property
    def windows(self) -> str:
        """The amount of context that tokens had, in words."""
        if not self.readings:
            return ""
        first = self.readings[0].context
        text = f"The first token had {first} token before it"
        if not self.edges:
            return f"{text}, and each later one had all earlier tokens: the text fits the context of {self.n_ctx:,}."
        least = min(self.readings[number].context for number in self.edges)
        return (
            f"{text}, and later ones had more, up to the context of {self.n_ctx:,}. "
            f"Windows advance by {self.stride:,} tokens. At the {len(self.edges):,} marked places context falls back "
            f"to {least:,}."
        )

    def __repr__(self) -> str:
        return f"<Document read by {self.model_name or 'a model'}: {self.summary}>"

    def _repr_html_(self) -> str:
        """Return the page's content for a notebook."""
        return fragment(f"<p>{escape(self.summary)}</p>\n{_body(self, html.titled_tokens)}")


def score_page(document: Document, source: str) -> str:
    """Return a page with a text coloured by surprisal and marked where the context is cut."""
    about = f"{source}, read by {document.model_name}: {document.summary}"
    body = f"<h1>How probable a text is</h1>\n<p>{escape(about)}</p>\n{_body(document, html.tokens)}"
    return html.page(f"gpt2lab score: {source}", body)


def _body(document: Document, tokens: Tokens) -> str:
    records = [*map(reading_record, document.readings)]
    for number in document.edges:
        records[number]["classes"] = ["edge"]
    return f"""<p class="faint">{escape(document.windows)}</p>
{html.tints("Probability of a token:")}
<h2>Text</h2>
{tokens(records, "The text, token by token")}"""
