"""``gpt2lab inspect``: what a dataset contains, and what a model would be trained on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.bytes_read import BytesRead
from gpt2lab.cli.data_options import (
    reading_of,
    reading_options,
    vocabulary_of,
    vocabulary_option,
)
from gpt2lab.cli.options import PATH, GroupedCommand, Integer, option

if TYPE_CHECKING:
    from gpt2lab.data.counts import Counts
    from gpt2lab.data.windows import Batch
    from gpt2lab.tokenizer import Tokenizer


@click.command(
    cls=GroupedCommand,
    short_help="Report the contents of a dataset; show a batch of it.",
    epilog="""\b
    Examples:
      gpt2lab inspect stories/
      gpt2lab inspect chats.jsonl --field question,answer --block_size 32 --batch 1
    """,
)
@click.argument("data", type=PATH, nargs=-1, required=True, metavar="DATA...")
@reading_options
@vocabulary_option
@option("Batch", "--block_size", type=Integer(1), default=16, metavar="N", help="Tokens per window.")
@option("Batch", "--batch", type=Integer(0), default=2, metavar="N", help="Windows to show.")
@option("Batch", "--seed", type=Integer(0), default=0, help="Seed of the order of windows.")
@option("Batch", "--json", "as_json", is_flag=True, help="One JSON object: counts, and windows as ids.")
def command(
    data: tuple[str, ...],
    model_name: str | None,
    block_size: int,
    batch: int,
    seed: int,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Count the documents and tokens of DATA, which is text or encoded, and show a batch as training would see it.

    Each window is shown with its targets, the tokens to be predicted. Those in (parentheses) do not count in the loss.
    """
    from gpt2lab.data.counts import count
    from gpt2lab.data.open import open_documents
    from gpt2lab.data.windows import Ring, Windows

    reading, choice = reading_of(arguments)
    tokenizer = vocabulary_of(model_name)
    with BytesRead(0) as progress:
        documents = open_documents(
            data, tokenizer, reading=reading, choice=choice, say=progress.say, on_bytes=progress.add
        )
    counts = count(documents, tokenizer)
    ring = Ring(documents, separator=tokenizer.end_of_text)
    shown = Windows(ring, block_size, seed).batch(0, batch) if batch else None
    if as_json:
        print(json.dumps({**counts.as_dict(), "windows": _as_lists(shown) if shown else []}))
        return
    for line in _lines(counts, tokenizer):
        print(line)
    for line in _window_lines(shown, tokenizer) if shown else ():
        print(line)


def _lines(counts: Counts, tokenizer: Tokenizer) -> list[str]:
    """Format the counts for the user."""
    n_vocab = tokenizer.n_vocab
    between = "no separator" if tokenizer.end_of_text is None else "one <|endoftext|>"
    spread = f"{counts.shortest:,} to {counts.longest:,} tokens, median {counts.median:,}"
    lines = [
        f"documents  {counts.documents:,}, of {spread}",
        f"tokens     {counts.tokens:,}, and {between} for each document",
        f"bytes      {counts.n_bytes:,} of UTF-8: {counts.tokens / max(1, counts.n_bytes):.3f} tokens a byte, "
        f"{counts.n_bytes / counts.tokens:.2f} bytes a token",
        f"vocabulary {counts.used:,} of {n_vocab:,} tokens occur; {1 - counts.used / n_vocab:.1%} never do",
    ]
    if counts.trained < counts.tokens:
        lines.append(
            f"learned    {counts.trained:,} tokens ({counts.trained / counts.tokens:.1%}); the others are read only"
        )
    return lines


def _window_lines(batch: Batch, tokenizer: Tokenizer) -> list[str]:
    lines = []
    for number, (tokens, targets, trained) in enumerate(
        zip(batch.tokens.tolist(), batch.targets.tolist(), batch.trained.tolist(), strict=True), 1
    ):
        wanted = (
            _quoted(tokenizer, id) if learned else f"({_quoted(tokenizer, id)})"
            for id, learned in zip(targets, trained, strict=True)
        )
        lines += [
            "",
            f"window {number}",
            "  tokens   " + " ".join(_quoted(tokenizer, id) for id in tokens),
            "  targets  " + " ".join(wanted),
        ]
    return lines


def _quoted(tokenizer: Tokenizer, id: int) -> str:
    """Return a token in quotes, or as escaped bytes if it holds part of a character."""
    piece = tokenizer.token_bytes(id)
    try:
        return repr(piece.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(piece)


def _as_lists(batch: Batch) -> list[dict[str, Any]]:
    rows = zip(batch.tokens.tolist(), batch.targets.tolist(), batch.trained.tolist(), strict=True)
    return [{"tokens": tokens, "targets": targets, "trained": trained} for tokens, targets, trained in rows]
