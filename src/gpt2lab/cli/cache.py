"""``gpt2lab cache``: the files kept between runs, which are packed weights and fetched data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import click

from gpt2lab.cli.output import megabytes
from gpt2lab.errors import UsageError, escaped
from gpt2lab.system.caches import cache_folder
from gpt2lab.system.marks import Deleted
from gpt2lab.system.paths import printable


@click.group("cache", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List what is kept: packed weights, which let a model start at once the second time, and downloaded data.

    The folder is $GPT2LAB_CACHE, or the platform's cache folder; GPT2LAB_CACHE=off keeps no weights. Whatever you
    remove is made or downloaded again when needed.

    \b
    gpt2lab cache
    gpt2lab cache clear
    gpt2lab cache clear --data
    """
    if ctx.invoked_subcommand is not None:
        return
    from gpt2lab.engines.packed_entries import entries

    folder = _folder()
    found = entries(folder)
    width = max((len(_name(entry.model)) for entry in found), default=0)
    for entry in found:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        state = f"used {used}" if entry.whole else "damaged, will be rebuilt"
        click.echo(
            f"{_name(entry.model):<{width}}  {escaped(entry.precision):<8}  {megabytes(entry.size):>12}  {state}"
        )
    click.echo(f"{megabytes(sum(entry.size for entry in found))} in {folder}")
    for data in _data_folders():
        click.echo(f"{megabytes(_size(data))} in {data}")


@command.command("clear")
@click.option("--data", is_flag=True, help="Remove downloaded data instead.")
def clear_command(data: bool) -> None:
    """Remove all packed weights, and list the removed files.

    Models in use keep running. Files that gpt2lab did not make stay.
    """
    from gpt2lab.data import fetched
    from gpt2lab.engines import packed_entries

    for folder in _data_folders() if data else [_folder()]:
        _clear(folder, fetched.clear if data else packed_entries.clear)


def _clear(folder: Path, clear: Callable[[Path], list[Deleted]]) -> None:
    """Clear a folder of the cache; print the files that were removed, and the number of others."""
    try:
        removed = clear(folder)
        left = sum(path.is_file() for path in folder.rglob("*")) if folder.exists() else 0
    except OSError as error:
        raise UsageError(f"cannot clear {folder}: {error.strerror or error}") from None
    click.echo(f"removed {megabytes(sum(file.size for file in removed))} from {folder}")
    for file in removed:
        click.echo(f"  {printable(file.path)}")
    if left:
        what = "1 file" if left == 1 else f"{left:,} files"
        click.echo(f"kept {what} in {folder}: in use, or not made by gpt2lab")


def _folder() -> Path:
    from gpt2lab.engines.packed_cache import default_folder
    from gpt2lab.engines.packed_entries import obstacle

    folder, reason = default_folder(), obstacle()
    if folder is None or reason:
        raise UsageError(f"there is no cache: {reason}")
    return folder


def _data_folders() -> list[Path]:
    """Return the folders of data that ``train`` and ``encode`` fetched, and of ``eval``'s datasets."""
    folders = (cache_folder("data", even_if_off=True), cache_folder("datasets"))
    return [folder for folder in folders if folder is not None and folder.is_dir()]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _name(model: str) -> str:
    return escaped(model) or "(not readable)"
