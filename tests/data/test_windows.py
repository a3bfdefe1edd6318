import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.data.tokens import Chain, Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.errors import UsageError

MARK = 999


def one_ring(n_tokens, **options):
    """Make a ring of the numbers 0 … n_tokens - 1 in which 0 is the separator."""
    return Ring(Documents.of([np.arange(1, n_tokens)]), separator=0, **options)


def test_a_separator_stands_before_each_document_and_the_end_meets_the_beginning():
    ring = Ring(Documents.of([[1, 1], [2]]), separator=MARK)
    assert len(ring) == 5
    assert ring.take(np.arange(-1, 6))[0].tolist() == [2, MARK, 1, 1, MARK, 2, MARK]


def test_a_vocabulary_without_a_separator_has_nothing_between_documents():
    ring = Ring(Documents.of([[1, 1], [2]]), separator=None)
    assert ring.take(np.arange(-1, 4))[0].tolist() == [2, 1, 1, 2, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 3), st.data())
def test_a_ring_over_several_arrays_is_that_over_one(lengths, cuts, data):
    whole = Documents.of([np.full(length, n) for n, length in enumerate(lengths)])
    at = sorted(data.draw(st.lists(st.integers(0, len(whole.tokens)), min_size=cuts, max_size=cuts)))
    parts = Documents(Chain(np.split(whole.tokens, at)), whole.starts)
    places = np.arange(2 * len(Ring(whole))).reshape(2, -1)
    assert (Ring(whole).take(places)[0] == Ring(parts).take(places)[0]).all()
    for index in range(len(whole)):
        assert (whole[index] == parts[index]).all()


def test_tokens_that_are_not_trained_on_are_marked_and_separators_are_trained_on():
    documents = Documents.of([[1, 2, 3], [4]])
    ring = Ring(Documents(documents.tokens, documents.starts, np.asarray([0, 0, 1, 1], dtype=np.uint8)), separator=MARK)
    batch = Windows(ring, 5, seed=0).batch(0, 1)
    assert (batch.trained == (batch.targets > 2)).all()
    assert (~batch.trained).any()


@given(st.integers(2, 200), st.integers(1, 20), st.integers(0, 3))
def test_targets_are_the_next_tokens_and_an_epoch_shows_each_once(n_tokens, length, epoch):
    windows = Windows(one_ring(n_tokens), length, seed=1)
    batch = windows.batch(epoch * len(windows), len(windows))
    assert ((batch.tokens + 1) % n_tokens == batch.targets).all()
    assert batch.trained.all()
    seen = batch.targets.flatten().tolist()
    assert len(set(seen)) == len(seen) > n_tokens - windows.length


def test_epochs_differ_and_a_position_is_always_the_same_batch():
    windows = Windows(one_ring(100), 5, seed=1)
    first, again, next_epoch = (windows.batch(at, 20).tokens.tolist() for at in (0, 0, 20))
    assert first == again != next_epoch
    two = windows.batch(18, 2).tokens.tolist() + windows.batch(20, 2).tokens.tolist()
    assert windows.batch(18, 4).tokens.tolist() == two


def test_windows_are_as_long_as_a_short_text_allows():
    assert Windows(one_ring(5), 100, seed=0).length == 4
    batch = Windows(one_ring(2), 100, seed=0).batch(0, 3)
    assert batch.tokens.shape == (3, 1)


def test_nothing_at_all_is_an_error():
    with pytest.raises(UsageError, match="empty"):
        Windows(Ring(Documents.of([])), 5, seed=0)


def test_uniform_windows_cross_no_chunk_and_reach_everything_in_it():
    windows = Windows(one_ring(50, chunks=np.asarray([0, 3, 10, 30, 50])), 6, seed=3, sampling="uniform")
    batch = windows.batch(0, 2000)
    starts = set(batch.tokens[:, 0].tolist())
    assert starts == {3, *range(10, 24), *range(30, 44)}
    assert (batch.targets == batch.tokens + 1).all()
    assert (windows.batch(7, 3).tokens == batch.tokens[7:10]).all()


def test_uniform_windows_are_as_long_as_the_longest_chunk_allows():
    assert Windows(one_ring(50, chunks=np.asarray([0, 30, 50])), 100, seed=0, sampling="uniform").length == 29


def test_validation_goes_through_in_order_without_overlap():
    batches = list(Windows(one_ring(23), 5, seed=1).in_order(3))
    assert [len(batch.tokens) for batch in batches] == [3, 1]
    assert [i for batch in batches for i in batch.tokens.flatten().tolist()] == list(range(20))


def test_of_many_windows_validation_takes_some_spread_evenly():
    batches = list(Windows(one_ring(101), 1, seed=1).in_order(2, count=4))
    assert [i for batch in batches for i in batch.tokens.flatten().tolist()] == [0, 25, 50, 75]


def test_the_ids_in_use_are_counted_once():
    ring = Ring(Documents.of([[7, 70_000, 7], [3]], n_vocab=80_000), separator=5)
    assert Windows(ring, 2, seed=0).used_ids().tolist() == [3, 5, 7, 70_000]
