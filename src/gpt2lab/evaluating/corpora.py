"""Perplexity of whole texts: the user's files, and WikiText.

The user's files are read by :mod:`gpt2lab.data`, as training reads them. WikiText has its own preparations of lines,
and its words are counted. :mod:`gpt2lab.evaluating.texts` scores both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from gpt2lab.data.encoding import Encoded
from gpt2lab.data.files import Reading
from gpt2lab.data.files import Source as TextSource
from gpt2lab.data.open import encode_sources, encoded_again
from gpt2lab.data.pieces import Say
from gpt2lab.data.shards import read_shards
from gpt2lab.data.vocabulary import vocabulary_hash
from gpt2lab.errors import UsageError
from gpt2lab.evaluating import detokenizing
from gpt2lab.evaluating.results import Evaluation, Figure
from gpt2lab.evaluating.run import Run
from gpt2lab.evaluating.sources import LINE, Source, records, string
from gpt2lab.evaluating.texts import Pieces, Windows, decoded, protocol_windows, text_losses, token_losses

DETOKENIZED, RAW, GUIDE = "detokenised", "raw", "guide"
TEXTS = (DETOKENIZED, RAW, GUIDE)
"""The ways to turn a data set into text; ``guide``, as in Hugging Face's guide, is only for WikiText."""


@dataclass
class _Reading:
    """One pass over sources, with counts of what has been read so far."""

    run: Run
    n_bytes: int = 0
    n_words: int = 0
    """Words as WikiText's authors count: strings between spaces, and one for the end of each line."""
    n_lines: int = field(default=0, repr=False)

    def lines(self, source: Source) -> Iterator[bytes]:
        """Yield the lines of a text file up to the limit, long ones in parts."""
        for line in source.lines(LINE):
            if self.full:
                return
            self.count(line)
            yield line

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.run.limit is not None and self.n_lines >= self.run.limit

    def count(self, line: bytes) -> None:
        """Count a line or a part of one."""
        self.n_bytes += len(line)
        ended = line.endswith(b"\n")
        self.n_lines += ended
        self.n_words += len(line.split()) + ended
        self.run.tick(len(line))


def perplexity(
    run: Run,
    sources: Sequence[TextSource],
    stride: int | None = None,
    reading: Reading | None = None,
    say: Say = lambda line: None,
) -> Evaluation:
    """Compute perplexity and bits per byte of texts, read and encoded as training reads and encodes them.

    Each document has a context of its own. Prompts that training does not learn are read and not scored.
    """
    how = reading or Reading()
    encoded = [source.name for source in sources if source.kind in ("npz", "shards")]
    if run.limit is not None and encoded:
        raise UsageError(f"--limit counts lines or records of text, but {encoded[0]} is already encoded")
    counts = {"bytes": 0, "tokens": 0}
    figures: list[Figure] = []
    for protocol, windows in protocol_windows(stride, run.engine.config.n_ctx).items():
        counts["bytes"] = 0

        def counted(stream: Iterable[Encoded]) -> Iterator[Encoded]:
            for each in stream:
                counts["bytes"] += int(each.n_bytes[each.trained].sum())
                yield each

        stream = counted(_tokens(run, sources, how, say))
        losses = token_losses(run.engine, run.tokenizer, stream, windows)
        counts["tokens"] = sum(losses.tokens)
        figures += losses.figures(protocol, counts["bytes"])
        say = _silent  # in the next passes, the readers would report the same again
    if not counts["bytes"]:
        raise UsageError(f"{sources[0].name} is empty: there is nothing to evaluate")
    return Evaluation("perplexity", figures, counts)


def _silent(line: str) -> None:
    """Report nothing."""


def _tokens(run: Run, sources: Sequence[TextSource], reading: Reading, say: Say) -> Iterator[Encoded]:
    """Yield the tokens of all sources."""
    tokenizer = run.tokenizer
    for is_shards, group in groupby(sources, key=lambda source: source.kind == "shards"):
        if not is_shards:
            yield from encode_sources(
                list(group), tokenizer, reading, jobs=1, say=say, on_bytes=run.tick, limit=run.limit
            )
            continue
        for source in group:
            if source.path is not None:
                for documents in read_shards(source.path, tokenizer.n_vocab, vocabulary_hash(tokenizer)):
                    yield from encoded_again(documents, tokenizer)


def wikitext(run: Run, source: Source, stride: int | None, texts: Iterable[str]) -> Evaluation:
    """Compute the perplexity of WikiText's test set per token and per word, for each way to prepare it."""
    passes = []
    n_ctx = run.engine.config.n_ctx
    for text in dict.fromkeys(texts):
        for how, windows in protocol_windows(stride, n_ctx).items():
            if text == GUIDE:  # its windows hold n_ctx tokens, including the last predicted one
                windows = Windows(max(1, n_ctx - 1), windows.stride)
            passes.append(_Pass(f"{text}, {how}", _wikitext_documents(source, text), windows, text))
    return _evaluation("wikitext", run, passes, source.name)


@dataclass(frozen=True)
class _Pass:
    """One way to read everything once."""

    protocol: str
    documents: Callable[[_Reading], Iterable[Pieces]]
    windows: Windows
    text: str | None = None

    def figures(self, run: Run, counts: dict[str, int]) -> list[Figure]:
        """Score everything, and write its size into ``counts``."""
        reading = _Reading(run)
        guide = self.text == GUIDE
        losses = text_losses(run.engine, run.tokenizer, self.documents(reading), self.windows, opened=not guide)
        counts["bytes"] = reading.n_bytes
        if self.text:
            counts["words"] = reading.n_words
        counts[f"tokens {self.text}" if self.text else "tokens"] = sum(losses.tokens)
        found = losses.figures(self.protocol, reading.n_bytes, reading.n_words if self.text else None)
        return [figure for figure in found if not guide or figure.metric == "perplexity per token"]


def _evaluation(task: str, run: Run, passes: list[_Pass], name: str) -> Evaluation:
    counts: dict[str, int] = {}
    figures = [figure for each in passes for figure in each.figures(run, counts)]
    if not counts["bytes"]:
        raise UsageError(f"{name} is empty: there is nothing to evaluate")
    return Evaluation(task, figures, counts)


def _wikitext_documents(source: Source, text: str) -> Callable[[_Reading], Iterator[Pieces]]:
    def documents(reading: _Reading) -> Iterator[Pieces]:
        lines = _wikitext_lines(source, reading)
        if text == DETOKENIZED:
            yield map(detokenizing.wikitext, lines)
        else:
            yield _guide(lines) if text == GUIDE else lines

    return documents


def _wikitext_lines(source: Source, reading: _Reading) -> Iterator[str]:
    if source.kind != ".parquet":
        yield from decoded(reading.lines(source), source.name)
        return
    for where, record in records(source):
        if reading.full:
            return
        text = string(record, "text", where) or " \n"  # an empty line, as in the files
        reading.count(text.encode(errors="surrogatepass"))
        yield text


def _guide(lines: Iterable[str]) -> Iterator[str]:
    """Join the rows of the hub's copy as in Hugging Face's guide to perplexity: an empty one has no line break."""
    for number, line in enumerate(lines):
        yield ("\n\n" if number else "") + (line if line.strip() else "")
