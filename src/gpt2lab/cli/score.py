"""``gpt2lab score``: how probable a model finds a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.options import GroupedCommand, model_loader, model_options, option
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import text_or_file

if TYPE_CHECKING:
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
@option("Options", "--json", "as_json", is_flag=True, help="One JSON object, log-probabilities included.")
@model_options("float32")
def command(text: str, stride: int | None, as_json: bool, **arguments: Any) -> None:
    """Print the natural log-probability of every token of TEXT, its perplexity and bits per byte.

    TEXT is a file if there is one of that name, - for standard input, and otherwise the text itself; what looks
    like a path must exist. The first token
    is conditioned on <|endoftext|>.
    """
    source, content = text_or_file(text)
    model = model_loader(arguments)()
    result = model.score(content, stride=stride)
    if as_json:
        print_json(_record(result))
    else:
        _show(source, result, model.tokenizer)


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
        print(f"{source}: no tokens, nothing to score")
        return
    for id, logprob in zip(result.tokens, result.logprobs, strict=True):
        print(f"{logprob:9.4f}  {repr(tokenizer.decode([id])) if tokenizer else id}")
    bits = "-" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
    print(f"{source}: {len(result.tokens):,} tokens, {result.n_bytes or 0:,} bytes")
    print(f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.3f}, {bits} bits per byte")
