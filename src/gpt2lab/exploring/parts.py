"""Parts that the HTML of several results has: records of tokens, formats of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.markup import html
from gpt2lab.markup.html import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpt2lab.exploring.reading import Alternative, Reading

    Tokens = Callable[[Sequence[html.Record], str], str]
    """:func:`~gpt2lab.markup.html.tokens`, for pages, or :func:`~gpt2lab.markup.html.titled_tokens`, for notebooks."""


def reading_record(reading: Reading) -> html.Record:
    """Return a token coloured by its probability, with all its figures."""
    rows = [
        ("probability", percent(reading.probability)),
        ("surprisal", f"{reading.surprisal:.2f} nats, rank {reading.rank:,}"),
        ("entropy here", f"{reading.entropy:.2f} nats"),
        ("context", token_count(reading.context)),
        ("id", str(reading.id)),
    ]
    if reading.drawn_probability is not None:
        rows.insert(1, ("with the settings", percent(reading.drawn_probability)))
    lists = [("instead", entries(reading.alternatives))]
    return {
        "text": html.visible(reading.text),
        "probability": float(f"{reading.probability:.6g}"),
        "rows": rows,
        "lists": lists,
    }


def entries(alternatives: Sequence[Alternative]) -> list[tuple[str, float]]:
    """Return tokens and their probabilities for a card."""
    return [(html.visible(each.text) or f"#{each.id}", round(each.probability, 6)) for each in alternatives]


def nth(number: int) -> str:
    """Return a remark on a command that prints more than one sample."""
    return f'<p class="faint">It is the last sample, number {number}.</p>' if number > 1 else ""


def number(value: float | None, digits: int = 2) -> str:
    """Format a figure."""
    return "–" if value is None else f"{value:.{digits}f}"


def token_count(n: int) -> str:
    """Return a number of tokens in words."""
    return f"{n:,} token{'s' * (n != 1)}"


def share(value: float | None) -> str:
    """Format a share in percent."""
    return "–" if value is None else html.percent(value)
