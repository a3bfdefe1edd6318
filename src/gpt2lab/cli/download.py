"""``gpt2lab download``: fetch a model onto this machine. ``weights.download`` does the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from gpt2lab.cli.options import FOLDER


@click.command("download")
@click.argument("name")
@click.option(
    "--source",
    type=click.Choice(["huggingface", "openai"]),
    default="huggingface",
    show_default=True,
    help="huggingface: safetensors from the hub. openai: the original seven TensorFlow files.",
)
@click.option(
    "--models_dir",
    "--models-dir",
    type=FOLDER,
    default=Path("models"),
    show_default=True,
    help="Folder to put the model's folder in; every command looks for models in ./models.",
)
def command(name: str, source: str, models_dir: Path) -> None:
    """Download the GPT-2 called NAME: 124M, 355M, 774M or 1558M (0.5, 1.5, 3 or 6 GB), or a model on the hub.

    117M, 345M, 762M, 1542M, gpt2, gpt2-medium, gpt2-large and gpt2-xl are other names of the same four. A model on the
    Hugging Face hub is called USER/MODEL, or USER/MODEL@REVISION for a branch, tag or commit. An interrupted download
    resumes; complete files are checked, not downloaded again.

    \b
    gpt2lab download 124M
    gpt2lab generate --model_name 124M "In a shocking finding,"
    gpt2lab download microsoft/DialoGPT-small
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from gpt2lab.weights.download import download

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))

    def start(name: str) -> Callable[[int, int], None]:
        bars.start()
        task = bars.add_task(name, total=None)
        return lambda done, total: bars.update(task, completed=done, total=total)

    try:
        folder = download(name, source=source, models_dir=models_dir, progress=start)
    except KeyboardInterrupt:
        click.echo("\ninterrupted; run the same command again to resume", err=True)
        raise
    finally:
        if bars.live.is_started:  # else stop() would print an empty line
            bars.stop()
    click.echo(f"{name} is in {folder}", err=True)
