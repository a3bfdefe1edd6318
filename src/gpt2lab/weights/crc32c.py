"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints, in NumPy.

A CRC is linear over GF(2), so many words can be processed at once: the message is treated as rows of ``2**k`` 32-bit
words, each row is folded into the next ("advance the state by one row of zeros, add the row"), and the one remaining
row is folded in halves. Leading zeros change nothing while the state is zero, so the first row can be padded in front.
This module knows nothing of files or tensors.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Words: TypeAlias = "NDArray[np.uint32]"

_POLYNOMIAL = 0x82F63B78  # reflected 0x1EDC6F41
_ROW_LOG2 = 15  # rows of 2^15 words: state, row and tables stay in the second-level cache


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of ``data`` (``crc32c(b"123456789") == 0xE3069283``)."""
    message = np.frombuffer(data, dtype=np.uint8)
    n_words = len(message) // 4
    state = 0xFFFFFFFF
    if n_words:
        words = message[: 4 * n_words].view("<u4")
        state = _crc_of_words(words)
    for byte in message[4 * n_words :].tolist():
        state = _byte_table()[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """Return the CRC as LevelDB and TensorFlow store it: rotated and offset, so that a CRC over CRCs stays sound."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_words(words: Words) -> int:
    """Return the state after ``words`` (at least one), starting from all ones; no final inversion."""
    row_log2 = min(_ROW_LOG2, (len(words) - 1).bit_length())
    width = 1 << row_log2
    head = len(words) % width or width  # words in the first, front-padded row
    row = np.zeros(width, dtype=np.uint32)
    row[width - head :] = words[:head]
    row[width - head] ^= 0xFFFFFFFF  # the all-ones start, moved into the first word
    if len(words) > head:
        _fold_rows(row, words[head:].reshape(-1, width), row_log2)
    for log2 in range(row_log2 - 1, -1, -1):
        half = 1 << log2
        row = _advance(row[:half], log2) ^ row[half:]
    return int(_advance(row, 0)[0])


def _fold_rows(state: Words, rows: Words, row_log2: int) -> None:
    """Fold ``rows [n, width]`` into ``state [width]`` in place, 16 bits of every word at a time."""
    low, high = _tables(row_log2, 16)
    index = np.empty(len(state), dtype=np.intp)
    part = np.empty_like(state)
    for row in rows:
        np.right_shift(state, 16, out=index, casting="unsafe")
        np.take(high, index, out=part, mode="clip")
        np.bitwise_and(state, 0xFFFF, out=index, casting="unsafe")
        np.take(low, index, out=state, mode="clip")
        state ^= part
        state ^= row


def _advance(words: Words, log2: int) -> Words:
    """Advance each word, taken as a state, by ``2**log2`` words of zeros."""
    tables = _tables(log2, 8)
    advanced: Words = tables[0][words & 0xFF]
    for byte in (1, 2, 3):
        advanced ^= tables[byte][words >> (8 * byte) & 0xFF]
    return advanced


@cache
def _byte_table() -> list[int]:
    """Return the classic table: the effect of each byte value on a state of zeros."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


@cache
def _advance_bits(log2: int) -> tuple[int, ...]:
    """Return the image of each of the 32 state bits after ``2**log2`` words of zeros: a GF(2) matrix's columns."""
    if log2 == 0:
        columns = []
        for bit in range(32):
            state = 1 << bit
            for _ in range(4):
                state = _byte_table()[state & 0xFF] ^ (state >> 8)
            columns.append(state)
        return tuple(columns)
    once = _advance_bits(log2 - 1)
    return tuple(_apply(once, column) for column in once)


def _apply(columns: tuple[int, ...], state: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if state >> bit & 1:
            result ^= column
    return result


@cache
def _tables(log2: int, bits: int) -> tuple[Words, ...]:
    """Return ``32 / bits`` tables of ``2**bits`` entries: the advanced state for every value of each part of it."""
    columns = _advance_bits(log2)
    tables = []
    for start in range(0, 32, bits):
        table = np.zeros(1, dtype=np.uint32)
        for column in columns[start : start + bits]:
            table = np.concatenate([table, table ^ np.uint32(column)])
        tables.append(table)
    return tuple(tables)
