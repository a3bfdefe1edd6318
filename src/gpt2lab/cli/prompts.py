"""Reading prompts from an argument, a file, an address or standard input, as training reads its text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt
from gpt2lab.generation.plan import space_at_end


def read_text(source: str) -> str:
    """Read a file or an address as one text, or standard input if ``source`` is ``-``, as training reads text files.

    A byte-order mark is removed, ``\\r\\n`` becomes ``\\n``, and compressed text is unpacked.
    """
    from gpt2lab.data.files import Reading, Source, open_bytes, text_blocks
    from gpt2lab.data.open import local_paths

    if source == "-":
        file = Source("standard input", "text", None, 0)
    else:
        (path,) = local_paths([source], lambda line: None)
        file = Source(source or "''", "text", Path(path), 0)
    with open_bytes(file) as stream:
        return "".join(text_blocks(stream, file.name, Reading(), hints=False))


def whole_prompt(source: str) -> str:
    """Read a file as one prompt, without the newline at its end."""
    return read_text(source).removesuffix("\n")


def prompt_argument(prompt: str) -> str:
    """Return the prompt given to a command; ``-`` stands for standard input.

    Raises :class:`UsageError` for ``-- --help``, which asks for help but is a prompt.
    """
    if prompt in ("--help", "-h"):
        raise UsageError(f"{prompt} after -- is a prompt; leave out -- for the help, or send it to standard input as -")
    return whole_prompt("-") if prompt == "-" else prompt


def hint_at_space(prompts: Sequence[Prompt]) -> None:
    """Print a line on stderr if a prompt ends in a space."""
    if hint := space_at_end(prompts):
        print(f"gpt2lab: {hint}", file=sys.stderr)


def many_prompts(source: str) -> list[Prompt]:
    """Read the prompts of a file: one per line, or JSON lines with ``"prompt"`` (text or token ids).

    If any line is an object with that key, all lines must be. Empty lines are skipped.
    """
    lines = list(enumerate(read_text(source).split("\n"), 1))
    lines = [(n, line) for n, line in lines if line.strip()]
    if not lines:
        raise UsageError(f"{source} contains no prompts")
    records = [_record(line) for _, line in lines]
    if not any("prompt" in record for record in records):
        return [line for _, line in lines]
    prompts: list[Prompt] = []
    for (number, _), record in zip(lines, records, strict=True):
        prompt = record.get("prompt")
        if not _is_prompt(prompt):
            raise UsageError(f'{source}, line {number}: not a JSON object with "prompt" (text or a list of token ids)')
        prompts.append(prompt)
    return prompts


def _record(line: str) -> dict[str, Any]:
    """Parse ``line`` as a JSON object; return an empty one if it is none."""
    if not line.lstrip().startswith("{"):
        return {}
    try:
        record: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record


def _is_prompt(value: Any) -> TypeGuard[Prompt]:
    """Return whether ``value`` is text or a list of whole numbers; JSON's true is no number, though Python's is 1."""
    return isinstance(value, str) or (isinstance(value, list) and all(type(id) is int for id in value))
