"""``gpt2lab cache``: the packed weights that are kept between runs. The work is ``engines.packed``'s."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from gpt2lab.errors import UsageError


@click.group("cache", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the packed weights that are kept, so that a model starts at once the second time.

    The folder is GPT2LAB_CACHE's, or the platform's folder for caches; GPT2LAB_CACHE=off keeps nothing. Whatever is
    removed is made again when it is needed.

    \b
    gpt2lab cache
    gpt2lab cache clear
    """
    if ctx.invoked_subcommand is not None:
        return
    from gpt2lab.engines.packed import entries

    folder = _folder()
    found = entries(folder)
    width = max((len(_name(entry.model)) for entry in found), default=0)
    for entry in found:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        state = f"used {used}" if entry.whole else "damaged, will be made again"
        click.echo(f"{_name(entry.model):<{width}}  {entry.precision:<8}  {_megabytes(entry.size):>12}  {state}")
    click.echo(f"{_megabytes(sum(entry.size for entry in found))} in {folder}")


@command.command("clear")
def clear_command() -> None:
    """Remove all packed weights. Models that are in use go on."""
    from gpt2lab.engines.packed import clear

    folder = _folder()
    try:
        removed = clear(folder)
    except OSError as error:
        raise UsageError(f"cannot clear {folder}: {error.strerror or error}") from None
    click.echo(f"removed {_megabytes(removed)} from {folder}")


def _folder() -> Path:
    from gpt2lab.engines.packed import default_folder, obstacle

    folder, reason = default_folder(), obstacle()
    if folder is None or reason:
        raise UsageError(f"there is no cache: {reason}")
    return folder


def _name(model: str) -> str:
    return model or "(not readable)"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
