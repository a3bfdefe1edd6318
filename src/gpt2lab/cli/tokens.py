"""``gpt2lab tokens``: a text as the model sees it: bytes, pieces, ids."""

from __future__ import annotations

import click

from gpt2lab.cli.data_options import vocabulary_of
from gpt2lab.cli.options import TEXT, GroupedCommand, option, special_option
from gpt2lab.cli.output import print_json
from gpt2lab.cli.prompts import read_text


@click.command(
    cls=GroupedCommand,
    short_help="Split a text into tokens and show them.",
    epilog="""\b
    Examples:
      gpt2lab tokens "Once upon a time"
      gpt2lab tokens - --json < story.txt
    """,
)
@click.argument("text", type=TEXT)
@option("Options", "--model_name", "--model", metavar="NAME", help="Use this model's vocabulary.  [default: GPT-2's]")
@special_option("Options", "TEXT")
@option(
    "Options", "--json", "as_json", is_flag=True, help="One JSON object: text, ids, tokens (id, text, bytes in hex)."
)
def command(text: str, model_name: str | None, special: bool, as_json: bool) -> None:
    """Show the tokens of TEXT (- reads standard input): id, bytes, and the piece of text they spell."""
    tokenizer = vocabulary_of(model_name or None)
    if text == "-":
        text = read_text("-")
    ids = tokenizer.encode(text, special=special)
    pieces = [(id, tokenizer.token_bytes(id)) for id in ids]
    if as_json:
        tokens = [{"id": id, "text": piece.decode("utf-8", "replace"), "bytes": piece.hex()} for id, piece in pieces]
        print_json({"text": text, "ids": ids, "tokens": tokens})
        return
    for id, piece in pieces:
        print(f"{id:>6}  {_quoted(piece):<20}  {piece.hex(' ')}")
    print(f"{len(ids)} tokens, {len(text.encode('utf-8', 'surrogateescape'))} bytes")


def _quoted(piece: bytes) -> str:
    """Return a token in quotes, or as escaped bytes if it holds part of a character."""
    try:
        return repr(piece.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(piece)
