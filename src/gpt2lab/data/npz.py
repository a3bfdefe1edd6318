"""Read and write the ``.npz`` files of the original fork's ``encode.py``: an array of ids per chunk of documents.

Works a block at a time. The id of ``<|endoftext|>`` separates documents. In files that the fork wrote, the marker is
spelled out in seven tokens instead; they are read as that id.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.data.encoding import Encoded
from gpt2lab.data.files import OnBytes
from gpt2lab.data.tokens import id_type
from gpt2lab.data.vocabulary import token_sizes
from gpt2lab.errors import Gpt2LabError, UsageError, first_line
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights.checkpoint import check_not_pointer

_BLOCK = 1 << 18  # ids


def read_npz(path: Path, tokenizer: Tokenizer, on_bytes: OnBytes = lambda _: None) -> Iterator[Encoded]:
    """Yield the documents of a file whose ids are ``tokenizer``'s; the end of an array ends a document.

    Raises :class:`UsageError` if it is not such a file, or has ids outside the vocabulary.
    """
    byte_sizes, character_sizes = token_sizes(tokenizer)
    spelled = np.asarray(tokenizer.encode(END_OF_TEXT_MARKER, special=False, add_special_tokens=False))
    separator = -1 if tokenizer.end_of_text is None else tokenizer.end_of_text
    check_not_pointer(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            for name in sorted(names, key=lambda name: (len(name), name)):  # arr_10 after arr_9
                with archive.open(name) as file:
                    blocks = _blocks(file, f"{path}: {name}", tokenizer.n_vocab)
                    for ids, ends in _documents(blocks, separator, spelled):
                        yield _encoded(ids, ends, byte_sizes, character_sizes, id_type(tokenizer.n_vocab))
                on_bytes(archive.getinfo(name).compress_size)
    except (Gpt2LabError, MemoryError):
        raise
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # zipfile, its decompressors and NumPy's parser document no classes for damaged files
        raise UsageError(f"{path} is not an .npz file of token ids ({first_line(error) or 'damaged'})") from None


def _blocks(file: IO[bytes], name: str, n_vocab: int) -> Iterator[NDArray[np.int64]]:
    """Yield the ids of one array."""
    version = npy.read_magic(file)
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.kind not in "iu" or len(shape) != 1 or shape[0] < 0:
        raise UsageError(f"{name} is an array of {dtype} {list(shape)}, not a row of token ids")
    left = shape[0]
    while left:
        data = file.read(min(left, _BLOCK) * dtype.itemsize)
        ids = np.frombuffer(data, dtype).astype(np.int64)
        if not len(ids):
            raise EOFError("the data is cut short")
        if ids.min() < 0 or ids.max() >= n_vocab:
            wrong = ids[(ids < 0) | (ids >= n_vocab)][0]
            raise UsageError(f"{name}: token {wrong} is outside the vocabulary (0 to {n_vocab - 1})")
        left -= len(ids)
        yield ids
    if file.read(1):  # at the end, the checksum is checked
        raise UsageError(f"{name} continues after its {shape[0]} token ids")


def _documents(
    blocks: Iterator[NDArray[np.int64]], separator: int, spelled: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield ids without separators, and the ends of documents among them, including the array's end."""
    held = np.empty(0, np.int64)
    n = len(spelled)
    for block in blocks:
        held = np.concatenate([held, block])
        marks = _find(held, spelled)
        cut = max(len(held) - n + 1, int(marks[-1]) + n if len(marks) else 0, 0)  # a marker may begin after it
        yield _without_separators(held[:cut], marks, separator, n)
        held = held[cut:]
    ids, ends = _without_separators(held, _find(held, spelled), separator, n)
    yield ids, np.append(ends, len(ids))


def _find(ids: NDArray[np.int64], spelled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions where the row ``spelled`` begins in ``ids``."""
    n = len(spelled)
    found = np.flatnonzero(ids[: max(0, len(ids) - n + 1)] == spelled[0])
    for offset in range(1, n):
        found = found[ids[found + offset] == spelled[offset]]
    return found


def _without_separators(
    ids: NDArray[np.int64], marks: NDArray[np.int64], separator: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    keep = ids != separator
    ends = np.union1d(np.flatnonzero(~keep), marks)
    keep[(marks[:, None] + np.arange(n)).ravel()] = False
    kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    return ids[keep], kept_before[ends]


def _encoded(
    ids: NDArray[np.int64],
    ends: NDArray[np.int64],
    byte_sizes: NDArray[np.int64],
    character_sizes: NDArray[np.int64],
    dtype: Any,
) -> Encoded:
    """Return the pieces between the ends, and the unfinished one after the last."""
    edges = np.concatenate([np.zeros(1, np.int64), ends, np.asarray([len(ids)])])
    characters = np.concatenate([np.zeros(1, np.int64), np.cumsum(character_sizes[ids])])[edges]
    closed = np.arange(len(edges) - 1) < len(ends)
    trained = np.ones(len(closed), dtype=bool)
    n_bytes = np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(byte_sizes[ids])])[edges])
    return Encoded(ids.astype(dtype), np.diff(edges), np.diff(characters), closed, trained, n_bytes)


def write_npz(out: IO[bytes], stream: Iterable[Encoded], separator: int, combine: int) -> int:
    """Write chunks of documents with at least ``combine`` characters each; return the number of tokens.

    Holds one chunk in memory. As in the original, a chunk ends with a document, so a long document makes a long chunk.
    Raises :class:`UsageError` if any text is not trained on, which this format cannot express.
    """
    total = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for number, chunk in enumerate(_chunks(stream, separator, combine)):
            with archive.open(f"arr_{number}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, chunk, allow_pickle=False)
            total += len(chunk)
    return total


def _chunks(stream: Iterable[Encoded], separator: int, combine: int) -> Iterator[NDArray[Any]]:
    """Yield rows of ids with ``separator`` between their documents."""
    parts: list[NDArray[Any]] = []
    characters = in_document = 0
    for encoded in stream:
        if not encoded.trained_tokens().all():
            raise UsageError(".npz cannot mark prompts as untrained: give OUT without .npz")
        mark = np.asarray([separator], dtype=encoded.ids.dtype)
        pieces = np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1])
        for ids, count, ends in zip(pieces, encoded.characters, encoded.ends, strict=True):
            if len(ids) and not in_document and parts:
                parts.append(mark)
            if len(ids):
                parts.append(ids)
            characters += int(count)
            in_document = 0 if ends else in_document + len(ids)
            if ends and parts and characters >= combine:
                yield np.concatenate(parts)
                parts, characters = [], 0
    if parts:
        yield np.concatenate(parts)
