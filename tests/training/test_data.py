import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.errors import UsageError
from gpt2lab.training.data import Windows, find_files, hold_out, join, read_documents


def encode(text):
    return list(text.encode())


def documents(*lengths):
    return [np.full(length, i + 1, dtype=np.int32) for i, length in enumerate(lengths)]


def test_folders_files_and_patterns_name_each_file_once(tmp_path):
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "a.txt", tmp_path / "b[1].txt", tmp_path / "deep" / "c.txt"]
    for file in [*files, tmp_path / "no.md"]:
        file.write_text("x")
    assert find_files([str(tmp_path), str(files[0]), str(tmp_path / "*.txt")]) == files
    assert find_files([str(tmp_path / "no.md")]) == [tmp_path / "no.md"]
    assert find_files([str(tmp_path / "b[1].txt")]) == [tmp_path / "b[1].txt"]


def test_a_path_with_nothing_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        find_files([str(tmp_path / "nowhere")])


def test_documents_keep_order_and_empty_ones_go(tmp_path):
    for name, text in (("a", "A"), ("b", ""), ("c", "é")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    read = read_documents([tmp_path / name for name in "abc"], encode)
    assert [list(document) for document in read] == [[65], [195, 169]]


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(b"ab\xff")
    with pytest.raises(UsageError, match=r"binary is not UTF-8 text \(byte 2\)"):
        read_documents([tmp_path / "binary"], encode)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*gone"):
        read_documents([tmp_path / "gone"], encode)


def test_an_empty_dataset_is_an_error(tmp_path):
    (tmp_path / "empty").write_text("")
    with pytest.raises(UsageError, match="empty"):
        read_documents([tmp_path / "empty"], encode)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.floats(0, 0.5), st.integers(0, 5))
def test_held_out_documents_are_never_trained_on(lengths, fraction, seed):
    docs = documents(*lengths)
    train, held_out = hold_out(docs, fraction, seed)
    assert sum(map(len, held_out)) <= fraction * sum(lengths)
    assert sorted(len(d) for d in train + held_out if len(d)) == sorted(lengths) or len(held_out) == 1
    whole = [d[0] for d in held_out if len(d) == lengths[d[0] - 1]]
    assert not {int(d[0]) for d in train} & {int(i) for i in whole}


def test_of_one_document_the_end_is_held_out():
    train, held_out = hold_out([np.arange(100, dtype=np.int32)], 0.1, seed=0)
    assert list(train[0]) == list(range(90))
    assert list(held_out[0]) == list(range(90, 100))


def test_the_held_out_part_depends_on_the_seed_alone():
    docs = documents(*range(1, 40))
    parts = [[list(d) for d in hold_out(docs, 0.2, seed)[1]] for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


def test_nothing_held_out_on_request():
    assert hold_out(documents(3, 4), 0.0, 0)[1] == []


def test_a_separator_stands_before_each_document():
    assert list(join(documents(2, 1), separator=9)) == [9, 1, 1, 9, 2]


@given(st.integers(2, 200), st.integers(1, 20), st.integers(0, 3))
def test_targets_are_the_next_tokens_and_an_epoch_shows_each_once(n_tokens, length, epoch):
    if n_tokens <= length:
        return
    windows = Windows(np.arange(n_tokens, dtype=np.int32), length, seed=1)
    inputs, targets = windows.batch(epoch * len(windows), len(windows))
    assert ((inputs + 1) % n_tokens == targets).all()
    seen = inputs.flatten().tolist()
    assert len(set(seen)) == len(seen) > n_tokens - length


def test_epochs_differ_and_a_position_is_always_the_same_batch():
    windows = Windows(np.arange(100, dtype=np.int32), 5, seed=1)
    first, again, next_epoch = (windows.batch(at, 20)[0].tolist() for at in (0, 0, 20))
    assert first == again != next_epoch
    assert windows.batch(18, 4)[0].tolist() == windows.batch(18, 2)[0].tolist() + windows.batch(20, 2)[0].tolist()


def test_validation_goes_through_in_order_without_overlap():
    windows = Windows(np.arange(23, dtype=np.int32), 5, seed=1)
    batches = list(windows.in_order(3))
    assert [len(inputs) for inputs, _ in batches] == [3, 1]
    assert [i for inputs, _ in batches for i in inputs.flatten().tolist()] == list(range(20))


def test_too_few_tokens_for_a_window_are_an_error():
    with pytest.raises(UsageError, match="5 tokens"):
        Windows(np.arange(5, dtype=np.int32), 5, seed=0)
