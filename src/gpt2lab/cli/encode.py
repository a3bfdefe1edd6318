"""``gpt2lab encode``: encode text once, so that training starts at once and reads the tokens from disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt2lab.cli.bytes_read import BytesRead
from gpt2lab.cli.data_options import (
    reading_of,
    reading_options,
    vocabulary_of,
    vocabulary_option,
)
from gpt2lab.cli.job_options import check_ray, ray_options
from gpt2lab.cli.options import PATH, GroupedCommand, Integer, option, special_option
from gpt2lab.cli.output import say
from gpt2lab.errors import UsageError, escaped

if TYPE_CHECKING:
    from gpt2lab.data.encoding import Encoded
    from gpt2lab.tokenizer import Tokenizer


@click.command(
    cls=GroupedCommand,
    short_help="Turn text into tokens, ready for training.",
    epilog="""\b
    Examples:
      gpt2lab encode stories/ stories.tokens
      gpt2lab encode chats.jsonl.gz chats.tokens --field question,answer
      zcat dump.gz | gpt2lab encode - dump.tokens
      gpt2lab encode dumps/ dumps.tokens --ray --ray_address auto
    """,
)
@click.argument("inputs", type=PATH, nargs=-1, metavar="IN...")
@click.argument("out", type=PATH, metavar="OUT", required=False)  # click would report it missing, but never IN
@reading_options
@vocabulary_option
@special_option("Reading", "text")
@option(
    "Writing",
    "--combine",
    type=Integer(1),
    default=50_000,
    metavar="CHARS",
    help="For OUT.npz: join documents into arrays of at least N characters.",
)
@option(
    "Writing",
    "--shard_tokens",
    type=Integer(1),
    default=100_000_000,
    metavar="N",
    help="Start a new file at the first document boundary after N tokens.",
)
@option("Writing", "--jobs", type=Integer(1), help="The number of cores to use.  [default: all]")
@option("Writing", "--overwrite", is_flag=True, help="Replace OUT if it exists.")
@ray_options
def command(
    inputs: tuple[str, ...],
    out: str | None,
    model_name: str | None,
    special: bool,
    combine: int,
    shard_tokens: int,
    jobs: int | None,
    overwrite: bool,
    ray: bool,
    ray_address: str | None,
    workers: int | None,
    **arguments: Any,
) -> None:
    """Encode IN (files, folders, patterns, addresses, or - for standard input) into OUT.

    IN may be text (.txt: one document, or several with <|endoftext|> between them), .json, .jsonl, .csv or .tsv, each
    also compressed (.gz, .zst). It may also be .parquet, the original's .npz, or an archive. OUT is a folder of files
    that training maps into memory. If OUT ends in .npz, it is one file in the format of the original's encode.py.
    Memory use does not depend on the amount of text.
    """
    from gpt2lab.data.finding import find_sources
    from gpt2lab.data.open import encode_sources, local_paths
    from gpt2lab.jobs.outputs import SUFFIX

    if out is None:
        raise click.UsageError("Missing arguments 'IN' and 'OUT'", click.get_current_context())
    if not inputs:
        raise click.UsageError(f"Missing argument 'OUT', where the tokens of {out} go", click.get_current_context())
    check_ray(ray, ray_address, workers)
    if ray and jobs:
        raise UsageError("--jobs applies only without --ray: give --workers instead")
    tokenizer = vocabulary_of(model_name)
    if special:
        tokenizer = tokenizer.reading_special()
    reading, choice = reading_of(arguments)

    sources = find_sources(local_paths(inputs, say), reading, choice, say, [Path(out), Path(out + SUFFIX)])
    if encoded_already := [source.name for source in sources if source.kind == "shards"]:
        raise UsageError(f"{encoded_already[0]} is already encoded: give it to gpt2lab train as it is")
    with BytesRead(sum(source.size for source in sources)) as progress:
        told: dict[str, Any] = {"say": progress.say, "on_bytes": progress.add}
        encoded: AbstractContextManager[Iterator[Encoded]]
        if ray:
            from gpt2lab.jobs.encoding import encoded_on_ray

            encoded = encoded_on_ray(out, sources, tokenizer, reading, address=ray_address, workers=workers, **told)
        else:
            encoded = nullcontext(encode_sources(sources, tokenizer, reading, jobs=jobs, **told))
        with encoded as stream:
            if out.endswith(".npz"):
                line = _write_npz(Path(out), stream, tokenizer, combine, overwrite)
            else:
                line = _write_shards(Path(out), stream, tokenizer, shard_tokens, overwrite)
    click.echo(escaped(line))


def _write_shards(
    path: Path, stream: Iterator[Encoded], tokenizer: Tokenizer, shard_tokens: int, overwrite: bool
) -> str:
    """Write the folder; return a summary to print."""
    from gpt2lab.data.shards import new_shards, write_shards
    from gpt2lab.data.vocabulary import vocabulary_hash
    from gpt2lab.errors import UsageError

    with new_shards(path, overwrite=overwrite) as folder:
        totals = write_shards(folder, stream, tokenizer.n_vocab, vocabulary_hash(tokenizer), shard_tokens)
        if not totals.documents:
            raise UsageError("the dataset is empty: there is no text in it")
    files = f"{totals.shards} file" + ("s" if totals.shards > 1 else "")
    return f"{path}: {totals.tokens} tokens, documents: {totals.documents}, from {totals.n_bytes} bytes; {files}"


def _write_npz(path: Path, stream: Iterator[Encoded], tokenizer: Tokenizer, combine: int, overwrite: bool) -> str:
    """Write the file; return a summary to print."""
    from gpt2lab.data.npz import write_npz
    from gpt2lab.errors import CheckpointError, UsageError
    from gpt2lab.weights.writing import destination_file

    if tokenizer.end_of_text is None:
        raise UsageError(
            "this vocabulary has no <|endoftext|>, which .npz needs between documents: give OUT without .npz"
        )
    try:
        with destination_file(path, overwrite=overwrite) as file:
            n_tokens = write_npz(file, stream, tokenizer.end_of_text, combine)
            if not n_tokens:
                raise UsageError("the dataset is empty: there is no text in it")
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    return f"{path}: {n_tokens} tokens, <|endoftext|> included"
