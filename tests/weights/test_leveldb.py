from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import MappedFile
from gpt2lab.weights.leveldb import read_table, unsnappy
from tf_bundle import snappy, table


def read(tmp_path, data):
    (tmp_path / "t.index").write_bytes(data)
    return read_table(MappedFile(tmp_path / "t.index"))


@pytest.mark.parametrize("compress", [False, True])
def test_reads_every_block_in_order(tmp_path, compress):
    entries = [(f"key{n:04}".encode(), b"value" * (n % 7)) for n in range(100)]
    assert list(read(tmp_path, table(entries, compress=compress)).items()) == entries


def test_refuses_a_key_that_occurs_twice(tmp_path):
    with pytest.raises(CheckpointError, match="occurs twice"):
        read(tmp_path, table([(b"a", b"1"), (b"a", b"2")]))


def test_refuses_a_block_whose_checksum_differs(tmp_path):
    data = bytearray(table([(b"a", b"1")]))
    data[3] ^= 1
    with pytest.raises(CheckpointError, match="checksum"):
        read(tmp_path, bytes(data))


def test_refuses_another_kind_of_file(tmp_path):
    with pytest.raises(CheckpointError, match="not a TensorFlow checkpoint index"):
        read(tmp_path, b"x" * 100)


@given(st.binary(max_size=500))
def test_snappy_round_trip(data):
    assert unsnappy(snappy(data)) == data


def test_snappy_copies_that_overlap_and_long_literals():
    assert unsnappy(b"\x0a\x04ab\x15\x02\x00\x00"[:4] + bytes([(8 - 4) << 2 | 1, 2])) == b"ababababab"
    assert unsnappy(b"\xc8\x01" + bytes([60 << 2, 199]) + b"x" * 200) == b"x" * 200


@given(st.binary(max_size=60))
def test_snappy_of_anything_is_data_or_an_error(data):
    with suppress(ValueError, IndexError):
        assert len(unsnappy(data)) <= 64 * len(data)


def test_snappy_that_claims_terabytes_is_refused():
    with pytest.raises(ValueError, match="claims"):
        unsnappy(b"\xff\xff\xff\xff\xff\x7f" + b"\x00a")
