"""Reading prompts from an argument, a file, an address or standard input. A byte-order mark is removed from UTF-8."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeGuard

from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt


def read_text(source: str) -> str:
    """Read a whole file or address, or standard input if ``source`` is ``-``; newlines stay as they are."""
    name = "standard input" if source == "-" else source or "''"
    try:
        data = sys.stdin.buffer.read() if source == "-" else _file_of(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})") from None


def _file_of(source: str) -> Path:
    """Return ``source`` as a file; fetch it if it is an address."""
    if "://" not in source:
        return Path(source)
    from gpt2lab.data.remote import fetch, is_remote

    return fetch(source) if is_remote(source) else Path(source)


def whole_prompt(source: str) -> str:
    """Read a file as one prompt, without the newline at its end."""
    text = read_text(source)
    return text.removesuffix("\n").removesuffix("\r")


def prompt_argument(prompt: str) -> str:
    """Return the prompt given to a command; ``-`` stands for standard input."""
    return whole_prompt("-") if prompt == "-" else prompt


def many_prompts(source: str) -> list[Prompt]:
    """Read the prompts of a file: one per line, or JSON lines with ``"prompt"`` (text or token ids).

    If any line is an object with that key, all lines must be. Empty lines are skipped.
    """
    lines = [(n, line.removesuffix("\r")) for n, line in enumerate(read_text(source).split("\n"), 1)]
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
