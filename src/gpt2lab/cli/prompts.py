"""Where prompts come from: an argument, a file, an address, standard input. Text is UTF-8 without a byte-order mark."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeGuard

from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt


def read_text(source: str) -> str:
    """All of a file, of what is at an address, or of standard input if ``source`` is ``-``; newlines as they are."""
    name = "standard input" if source == "-" else source or "''"
    try:
        data = sys.stdin.buffer.read() if source == "-" else _file_of(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})") from None


def _file_of(source: str) -> Path:
    """The file that is ``source``, or that what is at this address was fetched into."""
    if "://" not in source:
        return Path(source)
    from gpt2lab.data.remote import fetch, is_remote

    return fetch(source) if is_remote(source) else Path(source)


def whole_prompt(source: str) -> str:
    """A file as one prompt, without the newline that ends its last line."""
    text = read_text(source)
    return text.removesuffix("\n").removesuffix("\r")


def prompt_argument(prompt: str) -> str:
    """The prompt that a command was given: ``-`` stands for standard input."""
    return whole_prompt("-") if prompt == "-" else prompt


def many_prompts(source: str) -> list[Prompt]:
    """The prompts of a file: one a line, or JSON lines with ``"prompt"`` (text or token ids).

    It is JSON lines if any of its lines is an object with that key: then all must be. Empty lines are skipped.
    """
    lines = [(n, line.removesuffix("\r")) for n, line in enumerate(read_text(source).split("\n"), 1)]
    lines = [(n, line) for n, line in lines if line.strip()]
    if not lines:
        raise UsageError(f"{source} holds no prompts")
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
    """The JSON object that ``line`` is; an empty one if it is none."""
    if not line.lstrip().startswith("{"):
        return {}
    try:
        record: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record


def _is_prompt(value: Any) -> TypeGuard[Prompt]:
    """Whether ``value`` is text or a list of whole numbers; JSON's true is none, though Python takes it for 1."""
    return isinstance(value, str) or (isinstance(value, list) and all(type(id) is int for id in value))
