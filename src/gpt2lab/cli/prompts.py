"""Reading prompts from an argument, a file, an address or standard input. A byte-order mark is removed from UTF-8."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from gpt2lab.cli.options import TEXT
from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt
from gpt2lab.generation.plan import space_at_end


def read_text(source: str) -> str:
    """Read a whole file or address, or standard input if ``source`` is ``-``; newlines stay as they are."""
    name = "standard input" if source == "-" else source or "''"
    try:
        data = sys.stdin.buffer.read() if source == "-" else _file_of(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start}, line {line})") from None


def text_or_file(argument: str) -> tuple[str, str]:
    """Return where the text of an argument comes from, in words, and the text.

    ``-`` is standard input, and a path or an address is read. Raises :class:`UsageError` for an argument that looks
    like a path but does not exist, else its name would be taken for the text.
    """
    if argument == "-":
        return "standard input", read_text("-")
    try:
        there = bool(argument) and Path(argument).exists()
    except (OSError, ValueError):  # too long for a file name, or with a null character
        return "the argument", TEXT.convert(argument, None, None)
    if there or _ADDRESS.fullmatch(argument):
        return argument, read_text(argument)
    if _looks_like_a_path(argument):
        raise UsageError(f"there is no file {argument}; to read this as text, give - and send it to standard input")
    return "the argument", TEXT.convert(argument, None, None)


_ADDRESS = re.compile(r"[a-z][a-z0-9+]*://\S+")
_PATH = re.compile(
    r"(~|\.{0,2})/\S*"  # from a folder
    r"|\S*[^\s.]\.[A-Za-z][A-Za-z0-9]{0,7}"  # a word with a suffix
    r"|.*\.(txt|md|csv|tsv|json|jsonl|ndjson|npz|gz|zst)"  # words with the suffix of a text
)


def _looks_like_a_path(argument: str) -> bool:
    """Return whether ``argument`` has the form of a path, or names a folder that exists before its last slash."""
    folder, slash, _ = argument.rpartition("/")
    return bool(_PATH.fullmatch(argument)) or (slash != "" and Path(folder).is_dir())


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
