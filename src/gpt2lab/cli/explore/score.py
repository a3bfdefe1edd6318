"""``gpt2lab explore score``: a text coloured by how surprising it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from gpt2lab.cli.data_options import reading_of, reading_options
from gpt2lab.cli.documents import checked_argument, documents_of
from gpt2lab.cli.explore.shared import HTML, JSON, loader_and_names, model_name, write_result
from gpt2lab.cli.options import GroupedCommand, model_options, option
from gpt2lab.cli.output import check_not_input, print_json
from gpt2lab.errors import UsageError


@click.command(cls=GroupedCommand, short_help="Colour a text by how surprising each token is.")
@click.argument("text")
@option("Options", "--stride", type=int, help="Windows advance by N tokens.  [default: n_ctx // 2]")
@JSON
@HTML
@reading_options
@model_options("float32")
def command(text: str, stride: int | None, as_json: bool, html: str | None, **arguments: Any) -> None:
    """Show TEXT with every token coloured by its probability.

    TEXT is a file, - for standard input or the text itself, as in gpt2lab score.

    Texts longer than the context are read in overlapping windows. The output marks the token at which the next window
    takes over; --json and --html report how much context each token had.
    """
    from gpt2lab.exploring.score import read_document

    text = checked_argument(text)
    check_not_input(html, text)
    reading, choice = reading_of(arguments)
    load, named = loader_and_names(arguments)
    model = load()
    source, documents = documents_of(text, model.tokenizer, reading, choice)
    if len(documents) > 1:
        raise UsageError(
            f"{source} has {len(documents):,} documents, and explore score shows one; gpt2lab score takes all"
        )
    document = read_document(model, documents[0].text, model_name(named), stride)
    if as_json:
        print_json(asdict(document))
    else:
        from gpt2lab.exploring.terminal import show_score

        show_score(document, source)
    if html:
        from gpt2lab.exploring.document import score_page

        write_result(html, score_page(document, source))
