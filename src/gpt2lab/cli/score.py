"""``gpt2lab score``: the probability of a text under a model."""

from __future__ import annotations

import math
from itertools import compress
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.data_options import reading_of, reading_options
from gpt2lab.cli.documents import Document, checked_argument, documents_of
from gpt2lab.cli.options import GroupedCommand, model_loader, model_options, option, special_option
from gpt2lab.cli.output import print_json

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.scoring import ScoreResult
    from gpt2lab.tokenizer import Tokenizer


@click.command(
    cls=GroupedCommand,
    short_help="Report how probable a model finds a text.",
    epilog="""\b
    Examples:
      gpt2lab score "The cat sat on the mat."
      gpt2lab score story.txt --model_name 124M --json
    """,
)
@click.argument("text")
@option(
    "Options",
    "--stride",
    type=int,
    help="Texts longer than the context are read in windows that advance by N tokens.  [default: n_ctx // 2]",
)
@special_option("Options", "TEXT")
@option("Options", "--json", "as_json", is_flag=True, help="One JSON object, log-probabilities included.")
@reading_options
@model_options("float32")
def command(text: str, stride: int | None, special: bool, as_json: bool, **arguments: Any) -> None:
    """Print the natural log-probability of every token of TEXT, its perplexity and bits per byte.

    TEXT is the name of a file, - for standard input, or else the text itself. If it looks like a path, the file must
    exist. A file may be in any format that gpt2lab train reads. Each document is scored on its own; its first token is
    conditioned on <|endoftext|>.
    """
    text = checked_argument(text)
    reading, choice = reading_of(arguments)
    load = model_loader(arguments)
    model = load()
    tokenizer = model.tokenizer.reading_special() if model.tokenizer and special else model.tokenizer
    source, documents = documents_of(text, tokenizer, reading, choice)
    result = _joined([_scored(model, document, stride, special) for document in documents])
    if as_json:
        print_json(_record(result))
    else:
        _show(source, result, model.tokenizer)


def _scored(model: LanguageModel, document: Document, stride: int | None, special: bool) -> ScoreResult:
    """Score a document, and keep the tokens that training would learn."""
    from gpt2lab.scoring import ScoreResult

    result = model.score(document.text, stride=stride, special=special)
    if document.learned is None or model.tokenizer is None:
        return result
    learned = document.learned[len(document.learned) - len(result.tokens) :]  # the first token may have no score
    tokens = list(compress(result.tokens, learned))
    n_bytes = sum(len(model.tokenizer.token_bytes(id)) for id in tokens)
    return ScoreResult(tokens, list(compress(result.logprobs, learned)), n_bytes)


def _joined(results: list[ScoreResult]) -> ScoreResult:
    """Return the scores of all documents as those of one."""
    from gpt2lab.scoring import ScoreResult

    if len(results) == 1:
        return results[0]
    tokens = [id for result in results for id in result.tokens]
    logprobs = [logprob for result in results for logprob in result.logprobs]
    return ScoreResult(tokens, logprobs, sum(result.n_bytes or 0 for result in results))


def _record(result: ScoreResult) -> dict[str, object]:
    """Return the result for JSON, where null stands for NaN and infinity."""
    numbers = {"loss": result.loss, "perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte}
    return {
        "n_tokens": len(result.tokens),
        "n_bytes": result.n_bytes,
        **{name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()},
        "tokens": result.tokens,
        "logprobs": result.logprobs,
    }


def _show(source: str, result: ScoreResult, tokenizer: Tokenizer | None) -> None:
    if not result.tokens:
        print(f"{source}: no tokens to score")
        return
    for id, logprob in zip(result.tokens, result.logprobs, strict=True):
        print(f"{logprob:9.4f}  {repr(tokenizer.decode([id])) if tokenizer else id}")
    bits = "-" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
    print(f"{source}: {len(result.tokens):,} tokens, {result.n_bytes or 0:,} bytes")
    print(f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.3f}, {bits} bits per byte")
