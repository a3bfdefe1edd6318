"""HTML reports of exploring: one file each, which opens from disk and loads nothing from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.exploring import html
from gpt2lab.exploring.charts import panels, svg
from gpt2lab.exploring.html import escape, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt2lab.exploring.compare import Comparison, Moved, Place, Written
    from gpt2lab.exploring.reading import Alternative, Reading
    from gpt2lab.exploring.score import Document
    from gpt2lab.exploring.sweep import Setting, Sweep

KL_LEVELS = (0.01, 0.05, 0.2, 0.5, 1.0)
"""The borders between the colours of a comparison, in nats."""


def sweep_page(sweep: Sweep) -> str:
    """Return a page with figures, charts, and every sample coloured by how surprising its tokens are."""
    request = sweep.request
    samples = f"{request.nsamples} sample{'s' * (request.nsamples != 1)}"
    about = (
        f"{sweep.model_name}, seed {request.seed}, {samples} of up to {_tokens(request.length)} at each temperature. "
        f"Text was generated in {sweep.precision}. Surprisal, entropy and the probabilities behind each "
        "token are the unmodified model's (temperature 1, nothing cut)."
    )
    charts = "".join(
        f"<figure><h3>{escape(panel.title)}</h3>{svg(panel)}<figcaption>{escape(panel.unit)}</figcaption></figure>"
        for panel in panels(sweep)
    )
    body = f"""<h1>What temperature does</h1>
<div class="prompt">{escape(request.prompt) or "(no prompt)"}</div>
<p class="faint">{escape(about)}</p>
<h2>Figures</h2>
{html.table(*figure_table(sweep))}
<p class="faint">{escape(figure_notes(sweep))}</p>
<div class="columns">{charts}</div>
<h2>Samples</h2>
{html.tints("Probability of a token in the unmodified model:")}
<p class="faint">Point at a token, tap it, or move with the arrow keys to see which other tokens were possible.</p>
<div class="columns">{"".join(_column(setting) for setting in sweep.settings)}</div>"""
    return html.page(f"gpt2lab sweep: {request.prompt[:60]}", body)


def figure_table(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Return a head, and a row of text for each setting; columns without figures are left out."""
    head = [
        "temperature",
        "surprisal",
        "entropy",
        "sampling entropy",
        "distinct-1",
        "-2",
        "-3",
        "repeated 4-grams",
    ]
    copied = any(setting.figures.copied for setting in sweep.settings)
    unknown = any(setting.figures.unknown_words is not None for setting in sweep.settings)
    rows = []
    for setting in sweep.settings:
        f = setting.figures
        row = [setting.name, *map(_number, (f.surprisal, f.entropy, f.drawn_entropy)), *map(_number, f.distinct)]
        row.append(_share(f.repeated))
        row += [f"{f.copied.n_words if f.copied else 0} words"] if copied else []
        row += [_share(f.unknown_words)] if unknown else []
        rows.append(row)
    return head + ["longest copied"] * copied + ["unknown words"] * unknown, rows


def figure_notes(sweep: Sweep) -> str:
    """Explain the columns in a few sentences."""
    notes = (
        "Surprisal and entropies: means over the samples' tokens, in nats. Surprisal is minus the log-probability of "
        "the drawn token, and entropy is the surprisal that the model expects, both under the unmodified model. "
        "Sampling entropy is the entropy after all stages of sampling. Distinct-n: the share of distinct ones among a "
        "sample's n-grams of tokens. Repeated: the share of 4-grams that occurred earlier in the sample."
    )
    if sweep.request.against is not None:
        notes += f" Copied: the longest run of words that also occurs in {sweep.request.against}."
    dictionary = sweep.request.words or sweep.request.against
    return notes + (f" Unknown: the share of words that do not occur in {dictionary}." if dictionary else "")


def _column(setting: Setting) -> str:
    samples = []
    for number, sample in enumerate(setting.samples, 1):
        label = f"Sample {number} at temperature {setting.name}"
        copied = ""
        if sample.copied and sample.copied.n_words > 1:
            copied = f'<p class="faint">Copied: {sample.copied.n_words} words, “{escape(sample.copied.text)}”</p>'
        samples.append(
            f'<div class="sample">{html.tokens([*map(reading_record, sample.readings)], label)}{copied}'
            f"<details><summary>{escape(_ended(sample.finish_reason))} Reproduce</summary>"
            f"{html.command(sample.command)}{_nth(number)}</details></div>"
        )
    f = setting.figures
    line = f"surprisal {_number(f.surprisal)}, entropy {_number(f.entropy)}, repeated {_share(f.repeated)}"
    return (
        f'<section class="column"><h3>Temperature {escape(setting.name)}</h3>'
        f'<div class="faint">{escape(line)}</div>{"".join(samples)}</section>'
    )


def _ended(finish_reason: str) -> str:
    return "End of text." if finish_reason == "stop" else ""


def _nth(number: int) -> str:
    return f'<p class="faint">It is the last sample, number {number}.</p>' if number > 1 else ""


def reading_record(reading: Reading) -> html.Record:
    """Return a token coloured by its probability, with all its figures."""
    rows = [
        ("probability", percent(reading.probability)),
        ("surprisal", f"{reading.surprisal:.2f} nats, rank {reading.rank:,}"),
        ("entropy here", f"{reading.entropy:.2f} nats"),
        ("context", _tokens(reading.context)),
        ("id", str(reading.id)),
    ]
    if reading.drawn_probability is not None:
        rows.insert(1, ("with the settings", percent(reading.drawn_probability)))
    lists = [("instead", _entries(reading.alternatives))]
    return {
        "text": html.visible(reading.text),
        "probability": float(f"{reading.probability:.6g}"),
        "rows": rows,
        "lists": lists,
    }


def _entries(alternatives: Sequence[Alternative]) -> list[tuple[str, float]]:
    return [(html.visible(each.text) or f"#{each.id}", round(each.probability, 6)) for each in alternatives]


def score_page(document: Document, source: str) -> str:
    """Return a page with a text coloured by surprisal and marked where the context is cut."""
    records = [*map(reading_record, document.readings)]
    for number in document.edges:
        records[number]["classes"] = ["edge"]
    body = f"""<h1>How probable a text is</h1>
<p>{escape(source)}, read by {escape(document.model_name)}: {escape(document.summary)}</p>
<p class="faint">{escape(document.windows)}</p>
{html.tints("Probability of a token:")}
<h2>Text</h2>
{html.tokens(records, "The text, token by token")}"""
    return html.page(f"gpt2lab score: {source}", body)


def compare_page(comparison: Comparison) -> str:
    """Return a page with both models' texts side by side, coloured by how far apart the models are."""
    c = comparison
    legend = [*(f"< {border:g}" for border in KL_LEVELS), "more"]
    pairs = [[each for each in c.written if each.number == n] for n in sorted({each.number for each in c.written})]
    samples = "".join(f'<div class="pair">{"".join(map(_written, pair))}</div>' for pair in pairs)
    body = f"""<h1>Two models, one prompt</h1>
<div class="prompt">{escape(c.prompt) or "(no prompt)"}</div>
<p>A is {escape(c.model_a)}, B is {escape(c.model_b)}; seed {c.seed}. Over all texts KL(A‖B) is {_number(c.kl, 4)} nats
a token.</p>
<h2>Texts</h2>
{html.legend(legend, "KL(A‖B) at a token, nats:")}
{samples}
<h2>Largest changes</h2>
<div class="columns"><div>{_moved("B expects more often", c.up)}</div>
<div>{_moved("B expects less often", c.down)}</div></div>
<p class="faint">Mean probability of a token over all places of the texts above.</p>"""
    return html.page(f"gpt2lab compare: {c.model_a} and {c.model_b}", body)


def _written(written: Written) -> str:
    label = f"Sample {written.number} by {written.author}"
    return (
        f'<section class="column"><h3>{escape(written.author)} writes, sample {written.number}</h3>'
        f'<p class="faint">mean KL(A‖B) {_number(written.kl, 4)} nats a token</p>'
        f"{html.tokens([*map(_place_record, written.places)], label)}"
        f"<details><summary>Reproduce</summary>{html.command(written.command)}{_nth(written.number)}</details>"
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
    lists = [("A expects", _entries(place.likeliest_a)), ("B expects", _entries(place.likeliest_b))]
    return {"text": html.visible(place.text), "classes": [f"s{steps}"] if steps else [], "rows": rows, "lists": lists}


def _moved(caption: str, moved: Sequence[Moved]) -> str:
    rows = [[repr(each.text), percent(each.a), percent(each.b)] for each in moved]
    return html.table(["token", "A", "B"], rows, caption)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _tokens(n: int) -> str:
    return f"{n:,} token{'s' * (n != 1)}"


def _share(value: float | None) -> str:
    return "–" if value is None else html.percent(value)
