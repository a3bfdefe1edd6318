"""Vocabulary files beside weights: ``encoder.json`` or ``vocab.json``, ``vocab.bpe`` or ``merges.txt``.

GPT-2's own vocabulary, by far the commonest, is recognised by its checksum and never parsed: the packaged one is
loaded faster. Does not encode or decode text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import TokenizerFiles, parse_json, read_bytes

GPT2_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def read_vocabulary(encoder: Path, merges: Path) -> TokenizerFiles | None:
    """The vocabulary in these two files, or None if it is GPT-2's or one of the files is not there."""
    if not encoder.is_file() or not merges.is_file():
        return None
    encoder_bytes, merges_bytes = read_bytes(encoder), read_bytes(merges)
    if _sha256(encoder_bytes) == GPT2_ENCODER_SHA256 and _sha256(merges_bytes) == GPT2_MERGES_SHA256:
        return None
    return TokenizerFiles(check_encoder(encoder, encoder_bytes), check_merges(merges, merges_bytes))


def check_encoder(path: Path, text: bytes) -> dict[str, int]:
    """Token → id out of JSON; the ids are different whole numbers from 0 up."""
    encoder = parse_json(path, text)
    ids = list(encoder.values())
    if not all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < 2**31 for id in ids):
        raise CheckpointError(f"{path}: every token needs a whole number from 0 as its id")
    if len(set(ids)) != len(ids):
        raise CheckpointError(f"{path}: two tokens share an id")
    return encoder


def check_merges(path: Path, text: bytes) -> list[str]:
    """Merge lines ``left right`` in order of rank, without the ``#version`` line and empty ones."""
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error})") from None
    lines = [line.removesuffix("\r") for line in lines]
    merges = [line for line in lines[1 if lines[0].startswith("#version") else 0 :] if line]
    for line in merges:
        if line.count(" ") != 1 or line.startswith(" ") or line.endswith(" "):
            raise CheckpointError(f"{path}: a merge must be two tokens with one space between, not {line[:80]!r}")
    return merges


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
