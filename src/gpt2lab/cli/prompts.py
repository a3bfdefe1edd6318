"""Where prompts come from: an argument, a file, standard input. Text is UTF-8; a byte-order mark is dropped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gpt2lab.completion import Prompt
from gpt2lab.errors import UsageError


def read_text(source: str) -> str:
    """All of a file, or of standard input if ``source`` is ``-``, newlines as they are."""
    name = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})") from None


def whole_prompt(source: str) -> str:
    """A file as one prompt, without the newline that ends its last line."""
    text = read_text(source)
    return text.removesuffix("\n").removesuffix("\r")


def many_prompts(source: str) -> list[Prompt]:
    """The prompts of a file: one a line, or JSON lines with ``"prompt"`` (text or token ids).

    It is JSON lines if its first line that is not empty is an object with that key. Empty lines are skipped.
    """
    lines = [(n, line.removesuffix("\r")) for n, line in enumerate(read_text(source).split("\n"), 1)]
    lines = [(n, line) for n, line in lines if line.strip()]
    if not lines:
        raise UsageError(f"{source} holds no prompts")
    if _prompt_of(lines[0][1]) is None:
        return [line for _, line in lines]
    prompts: list[Prompt] = []
    for number, line in lines:
        prompt = _prompt_of(line)
        if not isinstance(prompt, str | list):
            raise UsageError(f'{source}, line {number}: not a JSON object with "prompt" (text or a list of token ids)')
        prompts.append(prompt)
    return prompts


def _prompt_of(line: str) -> Any:
    """The value of ``"prompt"`` if ``line`` is a JSON object that has it, else None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get("prompt") if isinstance(record, dict) else None
