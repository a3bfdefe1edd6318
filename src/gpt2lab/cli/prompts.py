"""Reading one prompt from an argument, a file, an address or standard input, as training reads its text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.errors import UsageError
from gpt2lab.generation.plan import space_at_end

if TYPE_CHECKING:
    from gpt2lab.data.files import Reading
    from gpt2lab.generation.completion import Prompt


def read_text(source: str, reading: Reading | None = None) -> str:
    """Read a file or an address as one text, or standard input if ``source`` is ``-``, as training reads text files.

    A byte-order mark is removed, ``\\r\\n`` becomes ``\\n``, and compressed text is unpacked. ``reading`` is None for a
    command without such options.
    """
    from gpt2lab.data.files import Reading, Source, open_bytes, text_blocks
    from gpt2lab.data.open import local_paths

    if source == "-":
        file = Source("standard input", "text", None, 0)
    else:
        (path,) = local_paths([source], lambda line: None)
        file = Source(source or "''", "text", Path(path), 0)
    with open_bytes(file) as stream:
        return "".join(text_blocks(stream, file.name, reading or Reading(), hints=reading is not None))


def whole_prompt(source: str, reading: Reading | None = None) -> str:
    """Read a file as one prompt, without the newline at its end."""
    return read_text(source, reading).removesuffix("\n")


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
