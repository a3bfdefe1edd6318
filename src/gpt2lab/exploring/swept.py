"""The result of a temperature sweep: its data, its charts, and its HTML, as a page or for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.errors import shortened
from gpt2lab.exploring.charts import Panel, spoken, svg
from gpt2lab.exploring.parts import nth, number, reading_record, share, token_count
from gpt2lab.markup import html
from gpt2lab.markup.fragment import fragment, svg_picture
from gpt2lab.markup.html import escape

if TYPE_CHECKING:
    from gpt2lab.exploring.copying import Run
    from gpt2lab.exploring.figures import Figures
    from gpt2lab.exploring.parts import Tokens
    from gpt2lab.exploring.reading import Reading
    from gpt2lab.generation.completion import FinishReason
    from gpt2lab.sampling.declaration import SamplingParams

TEMPERATURES = (0.0, 0.5, 1.0, 1.1, 1.2, 1.3, 2.0, 100.0)
"""The default: the temperatures once tried by hand to find out what temperature does."""


@dataclass(frozen=True)
class Request:
    """The description of a sweep.

    Attributes:
        params: the sampling parameters; each of ``temperatures`` replaces their temperature.
        model: command-line options that name the model, for the commands that reproduce samples.
        against: a text, or a folder of .txt files, to search for copied passages.
        words: a word list or text (or a folder of .txt files) whose words count as known; None takes ``against``.
    """

    prompt: str
    params: SamplingParams
    temperatures: Sequence[float] = TEMPERATURES
    nsamples: int = 3
    length: int = 60
    seed: int | None = None
    ignore_eos: bool = False
    model: Sequence[str] = ()
    against: str | None = None
    words: str | None = None


@dataclass(frozen=True)
class Sample:
    """One sample: its text, the unmodified model's readings, and a command that prints it last."""

    text: str
    finish_reason: FinishReason
    readings: list[Reading]
    command: str
    copied: Run | None = None


@dataclass(frozen=True)
class Setting:
    """The samples of one temperature, their figures, and the command that reproduces them all."""

    params: SamplingParams
    samples: list[Sample]
    figures: Figures
    command: str

    @property
    def name(self) -> str:
        """The temperature, written as short as possible."""
        return f"{self.params.temperature:g}"


@dataclass(frozen=True)
class Sweep:
    """The result of a :class:`Request`, whose seed is now set."""

    request: Request
    model_name: str
    precision: str
    settings: list[Setting]

    def __repr__(self) -> str:
        request = self.request
        temperatures = ", ".join(setting.name for setting in self.settings)
        samples = f"{request.nsamples} sample{'s' * (request.nsamples != 1)} each"
        return f"<Sweep of {shortened(request.prompt)}: temperatures {temperatures}, {samples}, seed {request.seed}>"

    def _repr_html_(self) -> str:
        """Return the page's content for a notebook."""
        charts = "".join(
            f"<figure><h4>{escape(panel.title)}</h4>{svg_picture(svg(panel), spoken(panel))}"
            f"<figcaption>{escape(panel.unit)}</figcaption></figure>"
            for panel in panels(self)
        )
        how_to_read = "Point at a token to see which other tokens were possible."
        return fragment(_body(self, charts, html.titled_tokens, how_to_read))


def panels(sweep: Sweep) -> list[Panel]:
    """Return the charts for which the sweep has figures."""
    names = [setting.name for setting in sweep.settings]
    found: list[Figures] = [setting.figures for setting in sweep.settings]
    result = [
        Panel(
            "Surprisal and entropy",
            "nats a token",
            names,
            {
                "surprisal": [f.surprisal for f in found],
                "entropy, model": [f.entropy for f in found],
                "entropy, sampling": [f.drawn_entropy for f in found],
            },
        ),
        Panel(
            "Variety",
            "share of distinct n-grams",
            names,
            {f"distinct-{n + 1}": [f.distinct[n] for f in found] for n in range(3)},
            1,
        ),
        Panel("Repetition", "share of 4-grams seen before", names, {"repeated": [f.repeated for f in found]}, 1),
    ]
    if any(f.copied for f in found):
        copied = [float(f.copied.n_words) if f.copied else None for f in found]
        result.append(Panel("Longest run copied", "words", names, {"copied": copied}))
    if any(f.unknown_words is not None for f in found):
        unknown = {"unknown": [f.unknown_words for f in found]}
        result.append(Panel("Words not in the dictionary", "share", names, unknown, 1))
    return [panel for panel in result if any(v is not None for line in panel.series.values() for v in line)]


def sweep_page(sweep: Sweep) -> str:
    """Return a page with figures, charts, and every sample coloured by how surprising its tokens are."""
    charts = "".join(
        f"<figure><h3>{escape(panel.title)}</h3>{svg(panel)}<figcaption>{escape(panel.unit)}</figcaption></figure>"
        for panel in panels(sweep)
    )
    title = f"gpt2lab sweep: {sweep.request.prompt[:60]}"
    return html.page(title, _body(sweep, charts, html.tokens, HOW_TO_READ))


HOW_TO_READ = "Point at a token, tap it, or move with the arrow keys to see which other tokens were possible."


def _body(sweep: Sweep, charts: str, tokens: Tokens, how_to_read: str) -> str:
    request = sweep.request
    samples = f"{request.nsamples} sample{'s' * (request.nsamples != 1)}"
    name = f"{sweep.model_name}, " if sweep.model_name else ""
    about = (
        f"{name}seed {request.seed}, {samples} of up to {token_count(request.length)} at each "
        f"temperature. Text was generated in {sweep.precision}. Surprisal, entropy and the probabilities behind each "
        "token are the unmodified model's (temperature 1, nothing cut)."
    )
    return f"""<h1>What temperature does</h1>
<div class="prompt">{escape(request.prompt) or "(no prompt)"}</div>
<p class="faint">{escape(about)}</p>
<h2>Figures</h2>
{html.table(*figure_table(sweep))}
<p class="faint">{escape(figure_notes(sweep))}</p>
<div class="columns">{charts}</div>
<h2>Samples</h2>
{html.tints("Probability of a token in the unmodified model:")}
<p class="faint">{escape(how_to_read)}</p>
<div class="columns">{"".join(_column(setting, tokens) for setting in sweep.settings)}</div>"""


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
        row = [setting.name, *map(number, (f.surprisal, f.entropy, f.drawn_entropy)), *map(number, f.distinct)]
        row.append(share(f.repeated))
        row += [f"{f.copied.n_words if f.copied else 0} words"] if copied else []
        row += [share(f.unknown_words)] if unknown else []
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


def _column(setting: Setting, tokens: Tokens) -> str:
    samples = []
    for n, sample in enumerate(setting.samples, 1):
        label = f"Sample {n} at temperature {setting.name}"
        copied = ""
        if sample.copied and sample.copied.n_words > 1:
            copied = f'<p class="faint">Copied: {sample.copied.n_words} words, “{escape(sample.copied.text)}”</p>'
        samples.append(
            f'<div class="sample">{tokens([*map(reading_record, sample.readings)], label)}{copied}'
            f"<details><summary>{escape(_ended(sample.finish_reason))} Reproduce</summary>"
            f"{html.command(sample.command)}{nth(n)}</details></div>"
        )
    f = setting.figures
    line = f"surprisal {number(f.surprisal)}, entropy {number(f.entropy)}, repeated {share(f.repeated)}"
    return (
        f'<section class="column"><h3>Temperature {escape(setting.name)}</h3>'
        f'<div class="faint">{escape(line)}</div>{"".join(samples)}</section>'
    )


def _ended(finish_reason: str) -> str:
    return "End of text." if finish_reason == "stop" else ""
