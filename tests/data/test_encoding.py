import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.data import encoding
from gpt2lab.data.encoding import collect, encode_pieces
from gpt2lab.data.pieces import Piece
from gpt2lab.errors import TokenizerError, UsageError

words = st.sampled_from(["", "a", "hello there", "é日", "x" * 30])
documents = st.lists(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=3), max_size=12)


def pieces_of(documents):
    return [
        Piece(text, number == len(parts) - 1, trained)
        for parts in documents
        for number, (text, trained) in enumerate(parts)
    ]


@given(documents, st.sampled_from([1, 2]), st.sampled_from([1, 100, 10**6]))
def test_documents_are_the_ids_of_their_pieces_in_order(gpt2, documents, jobs, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "BLOCK", block)
        found = collect(encode_pieces(pieces_of(documents), gpt2, jobs), gpt2.n_vocab)
    expected = [[id for text, _ in parts for id in gpt2.encode(text)] for parts in documents]
    kept = [number for number, ids in enumerate(expected) if ids]
    assert [found[index].tolist() for index in range(len(found))] == [expected[number] for number in kept]
    assert found.characters.tolist() == [sum(len(text) for text, _ in documents[number]) for number in kept]
    assert found.tokens.dtype == np.uint16
    learned = [trained for parts in documents for text, trained in parts for _ in gpt2.encode(text)]
    mask = np.ones(len(found.tokens), bool) if found.trained is None else found.trained
    assert mask.tolist() == learned


def test_bytes_of_the_text_are_counted(gpt2):
    (encoded,) = encode_pieces([Piece("é", True), Piece("a日", True)], gpt2)
    assert encoded.n_bytes.tolist() == [2, 4]


def test_more_jobs_work_on_it_at_the_same_time(gpt2, monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK", 1000)
    pieces = [Piece(f"document {number} " * 50, True) for number in range(200)]
    one, four = (collect(encode_pieces(pieces, gpt2, jobs), gpt2.n_vocab) for jobs in (1, 4))
    assert (one.tokens == four.tokens).all()
    assert (one.starts == four.starts).all()


def test_no_more_is_read_than_a_few_blocks_ahead(gpt2, monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK", 1)
    read = []

    def pieces():
        for number in range(100):
            read.append(number)
            yield Piece("x", True)

    stream = encode_pieces(pieces(), gpt2, jobs=2)
    for _ in range(10):
        next(stream)
    assert len(read) < 20
    stream.close()


def test_an_error_in_a_thread_reaches_the_caller(gpt2, monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK", 1)
    with pytest.raises(TokenizerError, match="U\\+D800"):
        list(encode_pieces([Piece("a", True), Piece("b", True), Piece("\ud800", True)], gpt2, jobs=2))


@pytest.mark.slow
def test_a_vocabulary_of_its_own_is_encoded_in_processes(bytewise, monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK", 1)
    found = collect(encode_pieces([Piece(text, True) for text in ("ab", "c", "ab")], bytewise, jobs=2), 257)
    assert [found[index].tolist() for index in range(3)] == [bytewise.encode(text) for text in ("ab", "c", "ab")]


def test_a_machine_without_shared_memory_is_told_what_needs_none(monkeypatch, gpt2):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(encoding, "ProcessPoolExecutor", refuse)
    monkeypatch.setattr(encoding.Tokenizer, "gpt2", lambda: None)  # the tokenizer then counts as a checkpoint's own
    with pytest.raises(UsageError, match="cannot start several processes: Permission denied; --jobs 1 needs no shared"):
        encoding._start(gpt2, 2)
