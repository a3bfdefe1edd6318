"""Output of samples: in the original's format for readers, or as JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import UsageError, escaped
from gpt2lab.generation.completion import Completion, Piece, Prompt
from gpt2lab.version import CONTRACT

if TYPE_CHECKING:
    from gpt2lab.tokenizer import Tokenizer

RULE = "=" * 40


def megabytes(size: float) -> str:
    """Return a number of bytes in MB, with one decimal."""
    return f"{size / 1e6:,.1f} MB"


def say(line: str) -> None:
    """Print a line on stderr; control characters in it, such as those of a file's name, are spelled out."""
    print(escaped(line), file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """Print one JSON object on a line, for programs."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def check_not_input(out: str | None, *inputs: str | None) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` if the output is also an input file."""
    if out is not None and any(given is not None and _same_file(out, given) for given in inputs):
        raise UsageError(f"{out} is also an input: give the output another name")


def _same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):  # an address, or a missing file
        return False


def header(number: int) -> str:
    """Return the line above sample ``number``, as the original wrote it."""
    return f"{RULE} SAMPLE {number} {RULE}\n"


def plain_prompt(prompt: Prompt, tokenizer: Tokenizer | None) -> str:
    """Return a prompt as text, or its ids if there is no tokenizer."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.decode(prompt) if tokenizer else " ".join(map(str, prompt))


def plain(completion: Completion, tokenizer: Tokenizer | None) -> str:
    """Return a sample under its header, with prompt and completion as one text."""
    if tokenizer is None:
        text = plain_prompt([*map(int, completion.prompt), *completion.tokens], None)
    else:
        text = plain_prompt(completion.prompt, tokenizer) + completion.text
    return f"{header(completion.index + 1)}{text}\n"


def json_line(completion: Completion) -> str:
    """Return a sample as one line of JSON."""
    record = {
        "prompt": completion.prompt,
        "completion": completion.text,
        "tokens": completion.tokens,
        "seed": completion.seed,
        "index": completion.index,
        "finish_reason": completion.finish_reason,
        "contract": CONTRACT,
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def print_as_made(pieces: Iterable[Piece], prompt_text: Callable[[Prompt], str], first_index: int = 0) -> None:
    """Print samples that arrive one after another, piece by piece, with ``prompt_text`` before each.

    The last line is always ended, also after an interruption.
    """
    current = None
    try:
        for piece in pieces:
            if piece.index != current:
                current = piece.index
                sys.stdout.write(header(current - first_index + 1) + prompt_text(piece.prompt))
            sys.stdout.write(piece.text)
            if piece.completion:
                sys.stdout.write("\n")
                current = None
            sys.stdout.flush()
    except KeyboardInterrupt:
        if current is not None:
            sys.stdout.write("\n")
            sys.stdout.flush()
        raise
