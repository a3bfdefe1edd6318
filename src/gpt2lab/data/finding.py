"""Find the files that a dataset's paths mean, and recognise their formats by their names.

A file that is named is always read. Folders and archives are searched only for text formats, and the number of files
left out is reported. The only files that this module opens are archives, to list their members.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path, PurePath

from gpt2lab.data.archives import is_archive, is_hidden, members
from gpt2lab.data.files import Kind, Reading, Source
from gpt2lab.data.pieces import Say
from gpt2lab.errors import UsageError
from gpt2lab.system.marks import MARK, matches, own_patterns

STDIN = "-"
SHARD_PATTERN = "tokens-*.safetensors"

_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".npz": "npz",
    ".safetensors": "shards",
}
_PROSE = (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".asciidoc", ".org", ".tex")
"""Endings of files with prose. Source code and HTML need ``--include``: they often lie beside the texts of a dataset
without being part of it."""
_NOT_SEARCHED = (".json", ".safetensors")  # in a folder, most of these are settings and weights
_SEARCHED = frozenset({*_PROSE, *_KINDS} - {*_NOT_SEARCHED})
_COMPRESSED = (".gz", ".zst")
_LISTED = 8  # endings in a report


@dataclass(frozen=True)
class Choice:
    """Patterns that choose among the files of folders and archives.

    Attributes:
        include: read exactly the files that match one of these, whatever their ending; empty: those of text formats.
        exclude: leave out files that match one of these.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: PurePath) -> bool:
        """Return whether to read a file, given its path below the folder."""
        wanted = _matches(path, self.include) if self.include else _ending(path) in _SEARCHED
        return wanted and not _matches(path, self.exclude)


def _matches(path: PurePath, patterns: Iterable[str]) -> bool:
    """Return whether the name, or for a pattern with a slash the path, matches."""
    return any(fnmatchcase(path.as_posix() if "/" in pattern else path.name, pattern) for pattern in patterns)


def find_sources(
    paths: Sequence[str],
    reading: Reading | None = None,
    choice: Choice | None = None,
    say: Say = lambda line: None,
    outputs: Sequence[Path] = (),
) -> list[Source]:
    """Find the sources that ``paths`` mean: files, folders, archives, patterns, ``-``; sorted by path, each once.

    In a folder or an archive, only files that ``choice`` takes count, and none that are hidden; ``say`` gets a line
    with the number of others by ending. A file named directly or by a pattern may have any ending: without a known
    one it is read as text (as JSON lines or CSV if ``reading`` names a field or column). Folders and patterns leave out
    ``outputs``, which are about to be written, and what training wrote into run folders, as their marks show.
    Raises :class:`UsageError` for a path that matches nothing.
    """
    reading, choice = reading or Reading(), choice or Choice()
    found: dict[tuple[Path, str], Source] = {}
    for path in paths:
        if path != STDIN:
            for source in _sources(path, reading, choice, say, [output.resolve() for output in outputs]):
                found[source.path or Path(), source.member or ""] = source
    sources = [found[key] for key in sorted(found)]
    return [Source("standard input", _by_options(reading), None, 0), *sources] if STDIN in paths else sources


def _sources(path: str, reading: Reading, choice: Choice, say: Say, outputs: Sequence[Path]) -> list[Source]:
    if not path:  # pathlib takes an empty path for the current folder
        raise UsageError("a path of the dataset is empty: give one (is a shell variable not set?)")
    named = Path(path)
    if named.exists():  # then its name is not a pattern, even with special characters
        files = [named]
    else:
        files = [Path(match) for match in glob.glob(path, recursive=True)]  # noqa: PTH207
        files = [file for file in files if file.is_file() or is_shards(file)]
        files = [file for file in files if not _is_own(file) and not (outputs and _is_within(file, outputs))]
    found = [source for file in files for source in _within(file, reading, choice, say, outputs)]
    if not found:
        raise UsageError(f"no text at {path}: give a file, a folder with .txt, .jsonl or .csv files, or a pattern")
    return found


def _is_own(file: Path) -> bool:
    """Return whether the mark of a folder above ``file`` shows that gpt2lab wrote it."""
    return any(matches(child.name, own_patterns(parent)) for child, parent in pairwise([file, *file.parents]))


def _is_within(file: Path, places: Sequence[Path]) -> bool:
    return any(place in places for place in (file.resolve(), *file.resolve().parents))


def _within(path: Path, reading: Reading, choice: Choice, say: Say, outputs: Sequence[Path]) -> list[Source]:
    """Return the sources of a folder, an archive or a file."""
    if path.is_dir() and not is_shards(path):
        names = _chosen(path, _below(path, outputs), choice, say)
        return [_source(path / name, reading) for name in names if (path / name).is_file()]
    if is_archive(path) and path.is_file():
        sizes = {PurePath(name): (name, size) for name, size in members(path)}
        return [_member(path, *sizes[name], reading) for name in _chosen(path, sizes, choice, say)]
    return [_source(path, reading)]


def _below(folder: Path, outputs: Sequence[Path]) -> Iterator[PurePath]:
    """Yield the files below a folder by their paths in it, leaving out hidden, partial and linked folders.

    Also leaves out what gpt2lab has written there, or is about to write.
    """
    root = folder.resolve()
    for place, folders, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        own = own_patterns(Path(place)) if MARK in names else ()

        def counts(name: str, own: tuple[str, ...] = own, here: Path = root / below) -> bool:
            if is_hidden(PurePath(name)) or name.endswith(".partial") or matches(name, own):
                return False
            return not outputs or here / name not in outputs

        folders[:] = sorted(filter(counts, folders))
        yield from (below / name for name in filter(counts, names))


def _chosen(place: Path, files: Iterable[PurePath], choice: Choice, say: Say) -> list[PurePath]:
    """Return the files to read, and report the others."""
    taken: list[PurePath] = []
    left: list[PurePath] = []
    every = dict.fromkeys(files)
    for path in every:
        if choice.takes(path) and (choice.include or not _is_of_a_vocabulary(path, every)):
            taken.append(path)
        elif not _matches(path, choice.exclude):
            left.append(path)
    if left:
        say(_report(place, len(taken), left, choice))
    return taken


def _is_of_a_vocabulary(path: PurePath, files: Container[PurePath]) -> bool:
    """Return whether a file is the merge list of a model, which has the ending of a text."""
    return path.name == "merges.txt" and path.with_name("vocab.json") in files


def _report(place: Path, read: int, left: Sequence[PurePath], choice: Choice) -> str:
    endings = Counter(path.suffix.lower() or "without an ending" for path in left).most_common()
    counted = ", ".join(f"{count:,} {ending}" for ending, count in endings[:_LISTED])
    if len(endings) > _LISTED:
        counted += f", {sum(count for _, count in endings[_LISTED:]):,} others"
    example = next((ending for ending, _ in endings if ending.startswith(".")), None)
    hint = f"; --include '*{example}' would read only those" if example and not choice.include else ""
    return f"{place}: files read: {read:,}, skipped: {len(left):,} ({counted}){hint}"


def is_shards(path: Path) -> bool:
    """Return whether ``path`` is a folder that ``gpt2lab encode`` wrote."""
    return path.is_dir() and any(path.glob(SHARD_PATTERN))


def _source(path: Path, reading: Reading) -> Source:
    if path.is_dir():
        return Source(str(path), "shards", path, sum(file.stat().st_size for file in path.glob(SHARD_PATTERN)))
    return Source(str(path), _kind(path) or _by_options(reading), path, path.stat().st_size)


def _member(archive: Path, name: str, size: int, reading: Reading) -> Source:
    kind = _kind(PurePath(name)) or _by_options(reading)
    if kind in ("npz", "shards", "parquet"):
        raise UsageError(f"{archive}:{name}: take this file out of its archive first")
    return Source(f"{archive}:{name}", kind, archive, size, name)


def _ending(path: PurePath) -> str:
    """Return the ending that shows the format, in lower case: ``.jsonl`` for ``a.jsonl.gz``."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _COMPRESSED else suffix


def _kind(path: PurePath) -> Kind | None:
    ending = _ending(path)
    return "text" if ending in _PROSE else _KINDS.get(ending)


def _by_options(reading: Reading) -> Kind:
    return "jsonl" if reading.field else "csv" if reading.column else "text"
