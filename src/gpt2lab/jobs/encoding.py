"""``gpt2lab encode`` with the encoding done by a Ray cluster: the same tokens in the same order.

The machine that runs the command reads a few files at a time and cuts them as it would without a cluster; workers on
any machine encode the pieces. The results are kept as parts of a few files each until all are there, so that an
interrupted run does not encode them again; then they are written as a dataset. This module knows nothing of shards.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy

from gpt2lab.data.encoding import Encoded, batches_of, encode_batch
from gpt2lab.data.files import OnBytes, Reading, Source
from gpt2lab.data.npz import read_npz
from gpt2lab.data.pieces import Piece, Say
from gpt2lab.data.sources import read_pieces
from gpt2lab.data.vocabulary import vocabulary_hash
from gpt2lab.errors import UsageError
from gpt2lab.jobs.cluster import Row, Stage, connected, rows
from gpt2lab.jobs.outputs import LocalOutput
from gpt2lab.jobs.parts import Parts, Settings
from gpt2lab.system.cores import logical_cores
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.version import __version__

PART_BYTES = 64 << 20
"""A part is full when its files have this many bytes together."""

_ENCODED, _SAID, _END = "encoded", "said", "end"  # kinds of rows
_ARRAYS = ("ids", "lengths", "characters", "ends", "trained", "n_bytes")


@contextmanager
def encoded_on_ray(
    out: str,
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    reading: Reading,
    *,
    address: str | None = None,
    workers: int | None = None,
    say: Say = lambda line: None,
    on_bytes: OnBytes = lambda count: None,
) -> Iterator[Iterator[Encoded]]:
    """Yield what :func:`~gpt2lab.data.open.encode_sources` does, made by a cluster when iteration starts.

    Parts are kept beside ``out`` until the block ends without an error. Raises :class:`UsageError` for standard input,
    which other processes cannot read, and the errors of the readers and :func:`~gpt2lab.jobs.cluster.connected`.
    """
    if any(source.path is None for source in sources):
        raise UsageError("--ray reads in other processes, which cannot read this one's standard input: give a file")
    files = parts_of(sources)
    output = LocalOutput(Path(out))
    with output.held():
        parts = Parts(output, len(files))
        missing = parts.begin(_settings(files, tokenizer, reading), overwrite=True)
        if there := len(files) - len(missing):
            say(f"gpt2lab: {there:,} of {len(files):,} parts are already complete")

        def stream() -> Iterator[Encoded]:
            if missing:
                with connected(address) as ray:
                    made = rows(ray, *_work(files, missing, tokenizer, reading, workers), in_order=True)
                    _keep(made, output, parts, say, lambda part: on_bytes(sum(source.size for source in files[part])))
            empty = True
            for part in range(len(files)):
                with output.opened(parts.name_of(part)) as file:
                    for encoded in read_encoded(file):
                        empty = empty and not len(encoded.ids)
                        yield encoded
            if empty:  # a mistake: nothing worth keeping
                output.forget()

        with parts.kept():
            yield stream()
        output.forget()


def parts_of(sources: Sequence[Source], size: int | None = None) -> list[list[Source]]:
    """Group ``sources``, in order, into lists of about ``size`` bytes, with token arrays separate from text."""
    size = PART_BYTES if size is None else size
    found: list[list[Source]] = []
    full = 0
    for source in sources:
        if not found or full >= size or (found[-1][-1].kind == "npz") != (source.kind == "npz"):
            found.append([])
            full = 0
        found[-1].append(source)
        full += source.size
    return found


def _settings(files: Sequence[Sequence[Source]], tokenizer: Tokenizer, reading: Reading) -> Settings:
    """Return everything that the parts depend on."""
    told = [[(s.name, s.size, s.path.stat().st_mtime_ns if s.path else 0) for s in part] for part in files]
    return {
        "version": __version__,
        "input": hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
        "vocabulary": vocabulary_hash(tokenizer),
        "special": tokenizer.reads_special,
        "reading": asdict(reading),
    }


def _work(
    files: Sequence[Sequence[Source]],
    missing: Sequence[int],
    tokenizer: Tokenizer,
    reading: Reading,
    workers: int | None,
) -> tuple[list[Row], list[Stage]]:
    """Return rows that name files, and the stages that turn them into tokens."""
    given = [
        Row(
            part,
            "",
            json.dumps(
                [[s.name, s.kind, str(Path(s.path or "").absolute()), s.size, s.member] for s in files[part]]
            ).encode(),
        )
        for part in missing
    ]
    own = tokenizer is not Tokenizer.gpt2()
    vocabulary = tokenizer if own else None
    readers = max(1, min(4, logical_cores() // 2))
    return given, [
        Stage(Reader, {"reading": reading, "vocabulary": vocabulary}, workers=readers, here=True),
        Stage(Encoder, {"vocabulary": vocabulary}, workers=workers),
    ]


def _keep(made: Iterable[Row], output: LocalOutput, parts: Parts, say: Say, done: Callable[[int], None]) -> None:
    """Write incoming rows into parts, one part after another."""
    following = iter(made)
    for first in following:
        row = first
        with output.writing(parts.name_of(row.number)) as file:
            while row.kind != _END:
                if row.kind == _SAID:
                    say(row.data.decode())
                elif row.kind == _ENCODED:
                    file.write(row.data)
                row = next(following)
        done(row.number)


Vocabulary = Tokenizer | None
"""A tokenizer; None: GPT-2's, which each process has."""


def _tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    return vocabulary or Tokenizer.gpt2()


class Reader:
    """A worker that reads the files of a part into rows: pieces of text, or tokens from files already encoded."""

    def __init__(self, reading: Reading, vocabulary: Vocabulary) -> None:
        self._reading = reading
        self._vocabulary = vocabulary

    def __call__(self, number: int, data: bytes) -> Iterator[tuple[int, str, bytes]]:
        """Yield the rows of part ``number``, whose files ``data`` names; the last one marks the end."""
        said: list[str] = []
        for kind, made in self._rows(
            [Source(n, k, Path(path), size, member) for n, k, path, size, member in json.loads(data)], said.append
        ):
            yield number, kind, made
        yield from ((number, _SAID, line.encode()) for line in said)
        yield number, _END, b""

    def _rows(self, sources: Sequence[Source], say: Say) -> Iterator[tuple[str, bytes]]:
        if sources[0].kind == "npz":
            for source in sources:
                if source.path is not None:
                    yield from (
                        (_ENCODED, write_encoded(e)) for e in read_npz(source.path, _tokenizer(self._vocabulary))
                    )
            return
        pieces = (piece for source in sources for piece in read_pieces(source, self._reading, say))
        for batch in batches_of(pieces):
            yield "", json.dumps(batch).encode()


class Encoder:
    """A worker that encodes pieces of text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = _tokenizer(vocabulary)

    def __call__(self, number: int, data: bytes) -> Iterator[tuple[int, str, bytes]]:
        """Yield the tokens of the pieces in ``data``."""
        batch = [Piece(*piece) for piece in json.loads(data)]
        yield number, _ENCODED, write_encoded(encode_batch(self._tokenizer, batch))


def write_encoded(encoded: Encoded) -> bytes:
    """Serialize for :func:`read_encoded`; a file may hold several results in a row."""
    out = io.BytesIO()
    for name in _ARRAYS:
        npy.write_array(out, getattr(encoded, name), allow_pickle=False)
    return out.getvalue()


def read_encoded(file: IO[bytes]) -> Iterator[Encoded]:
    """Yield everything that :func:`write_encoded` wrote into a file."""
    while file.read(1):
        file.seek(-1, 1)
        arrays: dict[str, Any] = {name: npy.read_array(file, allow_pickle=False) for name in _ARRAYS}
        yield Encoded(**arrays)
