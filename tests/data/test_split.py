import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.data.split import chunk_starts, hold_out
from gpt2lab.data.tokens import Documents
from gpt2lab.errors import UsageError

MARK = 999


def documents(*lengths):
    return Documents.of([np.full(length, i + 1) for i, length in enumerate(lengths)])


def contents(ring):
    """Return the documents of a ring as lists."""
    if ring is None:
        return []
    ids = ring.take(np.arange(len(ring)))[0]
    return [part[1:].tolist() for part in np.split(ids, np.flatnonzero(ids == MARK)[1:])]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.floats(0, 0.5), st.integers(0, 5))
def test_held_out_documents_are_never_trained_on(lengths, fraction, seed):
    train, held_out = (contents(ring) for ring in hold_out(documents(*lengths), fraction, seed, separator=MARK))
    assert sum(map(len, held_out)) <= fraction * sum(lengths)
    assert sorted(id for d in train + held_out for id in d) == documents(*lengths).tokens.tolist()
    whole = [d[0] for d in held_out if len(d) == lengths[d[0] - 1]]
    assert len(held_out) - len(whole) <= 1
    assert not {d[0] for d in train} & set(whole)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.floats(0, 0.5), st.integers(0, 5))
def test_at_least_half_of_what_is_asked_for_is_held_out(lengths, fraction, seed):
    _, held_out = hold_out(documents(*lengths), fraction, seed, separator=MARK)
    assert 2 * sum(map(len, contents(held_out))) >= int(fraction * sum(lengths))


def test_a_note_beside_a_book_does_not_take_the_books_place():
    train, held_out = (contents(ring) for ring in hold_out(documents(400, 3), 0.05, 0, separator=MARK))
    assert held_out == [[2] * 3, [1] * 17]
    assert train == [[1] * 383]


def test_of_one_document_the_end_is_held_out():
    train, held_out = hold_out(Documents.of([np.arange(100)]), 0.1, seed=0, separator=MARK)
    assert contents(train) == [list(range(90))]
    assert contents(held_out) == [list(range(90, 100))]


def test_the_held_out_part_depends_on_the_seed_alone():
    parts = [contents(hold_out(documents(*range(1, 40)), 0.2, seed, separator=MARK)[1]) for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


def test_nothing_held_out_on_request():
    assert hold_out(documents(3, 4), 0.0, 0)[1] is None


def test_of_one_token_nothing_can_be_held_out():
    train, held_out = hold_out(documents(1), 0.5, 0, separator=MARK)
    assert contents(train) == [[1]]
    assert held_out is None


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_part_out_of_range_is_an_error(fraction):
    with pytest.raises(UsageError, match="held_out"):
        hold_out(documents(3), fraction, 0)


def test_an_empty_dataset_is_an_error():
    with pytest.raises(UsageError, match="empty"):
        hold_out(Documents.of([]), 0.1, 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 60))
def test_chunks_are_documents_until_enough_characters_are_together(characters, combine):
    expected, together = [0], 0
    for index, count in enumerate(characters):
        together += count
        if together >= combine and index + 1 < len(characters):
            expected.append(index + 1)
            together = 0
    assert chunk_starts(np.asarray(characters), combine).tolist() == expected


def test_a_ring_knows_its_chunks():
    known = documents(4, 4, 4, 4)
    known = Documents(known.tokens, known.starts, characters=np.full(4, 30))
    ring, _ = hold_out(known, 0.0, 0, combine=50)
    assert ring.chunks.tolist() == [0, 10, 20]
