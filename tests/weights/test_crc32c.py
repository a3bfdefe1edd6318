import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.weights.crc32c import crc32c, masked_crc32c


def bit_by_bit(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_known_answers_of_rfc_3720():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_masking_rotates_and_offsets():
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.binary(max_size=3000))
def test_any_length_equals_the_definition(data):
    assert crc32c(data) == bit_by_bit(data)


@pytest.mark.parametrize("size", [4 << 15, (4 << 15) + 4, (4 << 16) - 3, (4 << 16) + 1])
def test_around_the_row_length(size):
    data = os.urandom(size)
    assert crc32c(memoryview(data)) == bit_by_bit(data)
