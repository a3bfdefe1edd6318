"""``gpt2lab convert``: convert a checkpoint from one format to another. ``weights.convert`` does the work."""

from __future__ import annotations

from pathlib import Path

import click

from gpt2lab.cli.options import ACTIVATION, FOLDER
from gpt2lab.weights.convert import PRECISIONS


@click.command("convert")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option(
    "--format", type=click.Choice(["huggingface", "gguf"]), help="Default: gguf if DST ends in .gguf, else huggingface."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="How matrices are stored: q8_0 and q4_0 only in gguf; int8 and int4 only in a folder, which only gpt2lab can "
    "load. Default: as in SRC if the target format supports it, else float32.",
)
@click.option("--activation", **ACTIVATION)
@click.option("--overwrite", is_flag=True, help="Replace DST if it exists.")
def command(
    source: str,
    destination: Path,
    format: str | None,
    precision: str | None,
    activation: str | None,
    overwrite: bool,
) -> None:
    """Convert the model SRC to DST: a .gguf file, or a folder, which transformers loads unless it is in int8 or int4.

    SRC is a name (tales, 124M), a folder or a file: OpenAI's and nshepperd's TensorFlow checkpoints, Hugging Face,
    nanoGPT's ckpt.pt, llm.c's .bin, GGUF. The tokenizer is included. Nothing is downloaded, except a released size or a
    model on the Hugging Face hub that you do not have yet.

    \b
    gpt2lab convert checkpoint/run1 my-model
    gpt2lab convert 124M gpt2.gguf --precision q8_0
    gpt2lab convert 124M gpt2-int8 --precision int8
    """
    from gpt2lab.weights import convert, open_checkpoint

    checkpoint = open_checkpoint(source, activation=activation)
    convert(checkpoint, destination, format=format, precision=precision, overwrite=overwrite)
    click.echo(f"wrote {destination}", err=True)
