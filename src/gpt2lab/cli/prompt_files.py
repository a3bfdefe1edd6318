"""Reading many prompts from a file, a folder, an address or standard input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

from gpt2lab.cli.output import say
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.data.files import Reading, Source
    from gpt2lab.data.finding import Choice
    from gpt2lab.generation.completion import Prompt


def many_prompts(source: str, reading: Reading, choice: Choice) -> list[Prompt]:
    """Read the prompts of a file, a folder, a pattern, an address or standard input (``-``).

    A text file has one prompt in each line. JSON lines and arrays have text or token ids in the field that ``reading``
    names, else ``prompt``; tables have text in such a column. A text file of which any line is an object with that
    field is JSON lines. Raises :class:`UsageError` for an unusable record, which ``errors="skip"`` leaves out, and if
    there are no prompts.
    """
    from gpt2lab.data.finding import find_sources
    from gpt2lab.data.open import local_paths

    files = find_sources(local_paths([source], say), reading, choice, say)
    prompts = [prompt for file in files for prompt in _prompts_of(file, replace(reading, tolerance=0.0))]
    if not prompts:
        raise UsageError(f"{source} contains no prompts")
    return prompts


def _prompts_of(file: Source, reading: Reading) -> Sequence[Prompt]:
    """Return the prompts of one file."""
    from gpt2lab.data.files import open_bytes, text_blocks
    from gpt2lab.data.records import json_values
    from gpt2lab.data.sources import read_pieces

    name = reading.field or reading.column or "prompt"
    if file.kind in ("npz", "shards"):
        raise UsageError(f"{file.name} contains tokens, not prompts: give a file of text, JSON, CSV, TSV or Parquet")
    if file.kind in ("csv", "tsv", "parquet"):
        named = replace(reading, field=name, column=reading.column or name)
        return [piece.text for piece in read_pieces(file, named, say)]
    with open_bytes(file) as stream:
        blocks = text_blocks(stream, file.name, reading)
        if file.kind == "json":
            return _prompts_in(json_values(blocks, file.name), name, file.name, reading)
        lines = [(number, line) for number, line in enumerate("".join(blocks).split("\n"), 1) if line.strip()]
    records = [(number, _record(line)) for number, line in lines]
    if file.kind == "jsonl" or any(name in record for _, record in records):
        return _prompts_in(records, name, file.name, reading)
    return [line for _, line in lines]


def _prompts_in(records: Iterable[tuple[int, Any]], name: str, file: str, reading: Reading) -> list[Prompt]:
    """Return the prompts in the field ``name`` of ``records``, each given with its line."""
    from gpt2lab.data.files import HALF
    from gpt2lab.data.pieces import Skipped
    from gpt2lab.data.records import mended

    skipped = Skipped(file, "records", say, reading)
    prompts: list[Prompt] = []
    for line, record in records:
        skipped.total += 1
        prompt = record.get(name) if isinstance(record, dict) else None
        if isinstance(prompt, str) and HALF.search(prompt):
            prompt = None if reading.errors == "skip" else mended(prompt, f"{file}, line {line}", reading)
        if _is_prompt(prompt):
            prompts.append(prompt)
        elif reading.errors == "skip":
            skipped.add(f"without a prompt in {name}", line)
        else:
            hint = "" if reading.field else "; --field names another"
            raise UsageError(
                f'{file}, line {line}: not a JSON object with "{name}" (text or a list of token ids){hint}'
            )
    skipped.report()
    return prompts


def _record(line: str) -> dict[str, Any]:
    """Parse ``line`` as a JSON object; return an empty one if it is not an object."""
    if not line.lstrip().startswith("{"):
        return {}
    try:
        record: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record


def _is_prompt(value: Any) -> TypeGuard[Prompt]:
    """Return whether ``value`` is text or a list of whole numbers; JSON's true is not a number, though Python's is."""
    return isinstance(value, str) or (isinstance(value, list) and all(type(id) is int for id in value))
