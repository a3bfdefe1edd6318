"""Read LevelDB's sorted table, as TensorFlow writes it for ``*.index`` files: all of it, with its checksums.

Format: data blocks, an index block that points at them, a 48-byte footer that points at the index. A block holds keys
that share prefixes, is raw or snappy-compressed, and is followed by one byte of compression type and a masked CRC-32C
(https://github.com/google/leveldb/blob/main/doc/table_format.md). This module knows nothing of the values' meaning.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import MappedFile
from gpt2lab.weights.crc32c import masked_crc32c

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_BLOCK = 4 << 20  # bytes; TensorFlow's blocks are 4 KiB to 256 KiB
_MAX_FILE = 4 << 20  # bytes; that of the largest GPT-2 with its optimizer has 200 KB
_MAX_TABLE = 16 << 20  # bytes of all keys and values
_MAX_ENTRIES = 20_000  # the largest GPT-2 with its optimizer has 1,800
_MAX_KEY = 1024  # bytes


def read_table(file: MappedFile) -> dict[bytes, bytes]:
    """Return every key and value of the table, in key order. Raises :class:`CheckpointError` if it is malformed."""
    if len(file) > _MAX_FILE:
        raise CheckpointError(f"{file.path}: larger than the {_MAX_FILE >> 20} MiB that an index may have")
    footer = bytes(file.part(len(file) - _FOOTER, _FOOTER))
    if struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise CheckpointError(f"{file.path}: not a TensorFlow checkpoint index (its magic number is missing)")
    try:
        _, at = read_varint(footer, 0)  # the metaindex block, which TensorFlow leaves empty
        _, at = read_varint(footer, at)
        entries: list[tuple[bytes, bytes]] = []
        end = total = 0
        for _, handle in _entries(_block(file, footer, at)):
            end = _check_ascends(handle, end)
            block = _entries(_block(file, handle, 0))
            entries += block
            total += sum(len(key) + len(value) for key, value in block)
            if total > _MAX_TABLE or len(entries) > _MAX_ENTRIES:
                raise ValueError("more keys than a GPT-2 can have")
        if any(left >= right for (left, _), (right, _) in pairwise(entries)):
            raise ValueError("keys are not in order, or one occurs twice")
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{file.path}: corrupt checkpoint index ({error})") from None
    return dict(entries)


def _check_ascends(handle: bytes, end: int) -> int:
    """Return where the block of ``handle`` ends. Raises ValueError if it begins before ``end``, that of the last one.

    Otherwise a small file could point at one block thousands of times.
    """
    offset, at = read_varint(handle, 0)
    size, _ = read_varint(handle, at)
    if offset < end:
        raise ValueError("two blocks overlap")
    return offset + size + 5


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the base-128 integer (below 2^64) at ``at``, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("integer of more than 64 bits")
    if value >> 64:
        raise ValueError("integer of more than 64 bits")
    return value, at


def _block(file: MappedFile, handle: bytes, at: int) -> bytes:
    """Return the content of the block that ``handle`` (offset and size as varints) points at."""
    offset, at = read_varint(handle, at)
    size, _ = read_varint(handle, at)
    if size > _MAX_BLOCK:
        raise ValueError(f"a block of {size} bytes")
    stored = file.part(offset, size + 5)
    if masked_crc32c(stored[: size + 1]) != struct.unpack_from("<I", stored, size + 1)[0]:
        raise ValueError("checksum of a block differs")
    compression = stored[size]
    if compression == 0:
        return bytes(stored[:size])
    if compression == 1:
        return unsnappy(bytes(stored[:size]))
    raise ValueError(f"unknown compression {compression}")


def _entries(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of one block; each key stores only what differs from the previous one."""
    (n_restarts,) = struct.unpack_from("<I", block, len(block) - 4) if len(block) >= 4 else (0,)
    end = len(block) - 4 - 4 * n_restarts
    if end < 0:
        raise ValueError("a block shorter than its restart points")
    entries: list[tuple[bytes, bytes]] = []
    key, at, total = b"", 0, 0
    while at < end:
        shared, at = read_varint(block, at)
        n_key, at = read_varint(block, at)
        n_value, at = read_varint(block, at)
        if shared > len(key) or at + n_key + n_value > end:
            raise ValueError("an entry reaches beyond its block")
        if shared + n_key > _MAX_KEY:
            raise ValueError(f"a key of {shared + n_key} bytes")
        key = key[:shared] + block[at : at + n_key]
        at += n_key
        total += len(key) + n_value
        if total > _MAX_TABLE or len(entries) >= _MAX_ENTRIES:
            raise ValueError("more keys than a GPT-2 can have")
        entries.append((key, block[at : at + n_value]))
        at += n_value
    return entries


def unsnappy(data: bytes) -> bytes:
    """Decompress one snappy block (https://github.com/google/snappy/blob/main/format_description.txt).

    Raises ValueError or IndexError if it is malformed.
    """
    size, at = read_varint(data, 0)
    if size > min(_MAX_BLOCK, 64 * len(data)):  # a copy of 64 bytes takes at least two
        raise ValueError(f"a compressed block that claims {size} bytes")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        at = _literal(data, at, tag >> 2, out) if tag & 3 == 0 else _copy(data, at, tag, out)
        if len(out) > size:
            raise ValueError("a compressed block longer than it claims")
    if len(out) != size:
        raise ValueError("a compressed block shorter than it claims")
    return bytes(out)


def _literal(data: bytes, at: int, length: int, out: bytearray) -> int:
    if length >= 60:
        n_bytes = length - 59
        length = int.from_bytes(data[at : at + n_bytes], "little")
        at += n_bytes
    length += 1
    if at + length > len(data):
        raise ValueError("a literal reaches beyond its block")
    out += data[at : at + length]
    return at + length


def _copy(data: bytes, at: int, tag: int, out: bytearray) -> int:
    if tag & 3 == 1:
        length, offset, n_bytes = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at], 1
    else:
        n_bytes = 2 if tag & 3 == 2 else 4
        length, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + n_bytes], "little")
        if at + n_bytes > len(data):
            raise ValueError("a copy cut short")
    if not 0 < offset <= len(out):
        raise ValueError("a copy from before the block")
    start = len(out) - offset
    source = out[start : start + length]
    out += (source * (length // len(source) + 1))[:length]  # a copy longer than its offset repeats what it copied
    return at + n_bytes
