"""The text that ``score`` commands take: an argument that is a file, an address, standard input or the text itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.cli.options import TEXT
from gpt2lab.cli.output import say
from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt
from gpt2lab.system.paths import expanded

if TYPE_CHECKING:
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice
    from gpt2lab.tokenizer import Tokenizer

_ADDRESS = re.compile(r"[a-z][a-z0-9+]*://\S+")
_PATH = re.compile(
    r"(~|\.{0,2})/\S*"  # from a folder
    r"|\S*[^\s.]\.[A-Za-z][A-Za-z0-9]{0,7}"  # a word with a suffix
    r"|.*\.(txt|md|csv|tsv|json|jsonl|ndjson|parquet|npz|gz|zst|zip|tar|tgz)"  # words with the suffix of a text
)


class Document(NamedTuple):
    """A text or its token ids, and for each token whether training would learn it; None: it would learn all."""

    text: Prompt
    learned: list[bool] | None = None


def documents_of(
    argument: str, tokenizer: Tokenizer | None, reading: Reading, choice: Choice
) -> tuple[str, list[Document]]:
    """Return where the text of an argument comes from, in words, and its documents.

    A file, a folder, an address or standard input (``-``) is read and encoded as for training, with the options
    ``reading`` and ``choice``; any other argument is the text itself. Raises :class:`UsageError` for an argument that
    looks like a path but does not exist.
    """
    if argument != "-" and not _is_file_or_address(argument):
        return "the argument", [Document(TEXT.convert(argument, None, None))]
    if tokenizer is None:
        raise UsageError("the model has no tokenizer, so it cannot read text: put its vocabulary files beside it")
    from gpt2lab.data.open import open_documents

    found = open_documents([argument], tokenizer, reading=reading, choice=choice, say=say)
    ends = (found.starts + found.lengths).tolist()
    documents = [
        Document(found.tokens[begin:end].tolist(), None if found.trained is None else found.trained[begin:end].tolist())
        for begin, end in zip(found.starts.tolist(), ends, strict=True)
    ]
    return "standard input" if argument == "-" else argument, documents


def checked_argument(argument: str) -> str:
    """Return ``argument`` for :func:`documents_of`, with ``~/`` at its start replaced by the home folder.

    Raises :class:`UsageError` early for an argument that looks like a path but does not exist.
    """
    if argument.startswith("~/"):
        argument = expanded(argument)
    if argument != "-":
        _is_file_or_address(argument)
    return argument


def _is_file_or_address(argument: str) -> bool:
    """Return whether to read ``argument``; raises :class:`UsageError` if only its form is that of a path."""
    try:
        there = bool(argument) and Path(argument).exists()
    except (OSError, ValueError):  # too long for a file name, or with a null character
        return False
    if there or _ADDRESS.fullmatch(argument):
        return True
    if _looks_like_a_path(argument):
        raise UsageError(f"there is no file {argument}; to read this as text, give - and send it to standard input")
    return False


def _looks_like_a_path(argument: str) -> bool:
    """Return whether ``argument`` has the form of a path, or names a folder that exists before its last slash."""
    folder, slash, _ = argument.rpartition("/")
    return bool(_PATH.fullmatch(argument)) or (slash != "" and Path(folder).is_dir())
