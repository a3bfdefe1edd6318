"""Published results: the paper's zero-shot table, and reproductions whose authors describe their method.

Figures are quoted as published; none was computed by this project. ``docs/evaluate.md`` says which of our protocols to
compare each with, and why they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2lab.config import RELEASED_SIZES, ModelConfig

SIZES = tuple(RELEASED_SIZES)


@dataclass(frozen=True)
class Published:
    """One figure for some of the released sizes."""

    task: str
    metric: str
    protocol: str
    """The known facts about how it was measured."""
    source: str
    values: dict[str, float]
    """Released size → value; accuracies in percent, as published."""


def _four(*values: float) -> dict[str, float]:
    return dict(zip(SIZES, values, strict=True))


_PAPER = "GPT-2 paper, Table 3"

PUBLISHED = (
    Published("lambada", "perplexity", "last token, as far as is known", _PAPER, _four(35.13, 15.60, 10.87, 8.63)),
    Published("lambada", "accuracy", "with stop-word filter", _PAPER, _four(45.99, 55.48, 60.12, 63.24)),
    Published("lambada", "accuracy", "without stop-word filter", "GPT-2 paper, section 3.3", {"1558M": 52.66}),
    Published("lambada", "accuracy", "last word", "lm-evaluation-harness #2159", {"124M": 32.56}),
    Published(
        "lambada", "perplexity", "last word", "lm-evaluation-harness #2159, #911", {"124M": 40.06, "1558M": 10.63}
    ),
    Published("lambada", "accuracy", "last token", "openai/gpt-2 #131, quoted in gpt-neo #75", {"124M": 46.89}),
    Published(
        "lambada",
        "accuracy",
        "OpenAI's way, not further specified",
        "sunil-2000/coherenceBoost",
        _four(46.1, 55.0, 58.76, 61.42),
    ),
    Published("wikitext2", "perplexity per word", "detokenised", _PAPER, _four(29.41, 22.76, 19.93, 18.34)),
    Published(
        "wikitext2",
        "perplexity per token",
        "guide, non-overlapping",
        "Hugging Face, Perplexity of fixed-length models",
        {"774M": 19.44},
    ),
    Published(
        "wikitext2",
        "perplexity per token",
        "guide, stride 512",
        "Hugging Face, Perplexity of fixed-length models",
        {"774M": 16.44},
    ),
    Published("wikitext103", "perplexity per word", "detokenised", _PAPER, _four(37.50, 26.37, 22.05, 17.48)),
    Published(
        "hellaswag",
        "accuracy, mean",
        "completion",
        "llm.c, dev/vislog.ipynb",
        _four(29.4463, 37.5224, 43.1986, 48.8946),
    ),
    Published(
        "hellaswag", "accuracy, mean", "completion", "llm.c, dev/data/hellaswag.py", {"124M": 29.55, "1558M": 48.93}
    ),
    Published(
        "hellaswag", "accuracy, sum", "completion", "llm.c, dev/data/hellaswag.py", {"124M": 28.59, "1558M": 38.42}
    ),
    Published(
        "hellaswag",
        "accuracy, per character",
        "the harness's texts",
        "lm-evaluation-harness, quoted there",
        {"124M": 31.14, "1558M": 50.89},
    ),
    Published("cbt-cn", "accuracy", "detokenised", _PAPER, _four(87.65, 92.35, 93.45, 93.30)),
    Published("cbt-ne", "accuracy", "detokenised", _PAPER, _four(83.4, 87.1, 88.0, 89.05)),
)


def published(task: str) -> list[Published]:
    """Return every published figure for ``task``."""
    return [each for each in PUBLISHED if each.task == task]


def released_size(config: ModelConfig) -> str | None:
    """Return the released size with this shape, or None; ``n_vocab``, which may be rounded up, is ignored."""
    for name, size in RELEASED_SIZES.items():
        if config == ModelConfig(**{**size.to_hparams(), "n_vocab": config.n_vocab}):
            return name
    return None
