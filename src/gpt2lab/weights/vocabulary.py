"""Vocabulary files beside weights: ``encoder.json`` or ``vocab.json``, ``vocab.bpe`` or ``merges.txt``.

GPT-2's own vocabulary, by far the commonest, is recognised by its checksum and never parsed: the packaged one is
loaded faster. Does not encode or decode text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gpt2lab.config import RELEASED_SIZES
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, parse_json, read_bytes

END_OF_TEXT_TOKEN = "<|endoftext|>"
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


def gpt2_vocabulary() -> TokenizerFiles:
    """GPT-2's own vocabulary, its encoder derived from the packaged merges.

    Ids are those of ``encoder.json``: the 256 bytes (printable ones first, each as one visible character), the
    merges' results in order of rank, ``<|endoftext|>``.
    """
    merges_file = Path(__file__).parent.parent / "assets" / "vocab.bpe"
    merges = check_merges(merges_file, read_bytes(merges_file))
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]
    tokens = [*characters, *(line.replace(" ", "") for line in merges), END_OF_TEXT_TOKEN]
    return TokenizerFiles({token: id for id, token in enumerate(tokens)}, merges)


def vocabulary_to_write(checkpoint: Checkpoint) -> TokenizerFiles | None:
    """The vocabulary that goes with a checkpoint's copy; None if it has none and cannot have GPT-2's."""
    if checkpoint.tokenizer_files is None and checkpoint.config.n_vocab == RELEASED_SIZES["124M"].n_vocab:
        return gpt2_vocabulary()
    return checkpoint.tokenizer_files


def check_encoder(path: Path, text: bytes) -> dict[str, int]:
    """Token → id out of JSON."""
    return check_encoder_ids(path, parse_json(path, text), 2**31)


def check_encoder_ids(path: Path, encoder: dict[str, int], n_vocab: int) -> dict[str, int]:
    """``encoder`` itself, if its ids are different whole numbers below ``n_vocab``."""
    for token, id in encoder.items():
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < n_vocab:
            raise CheckpointError(f"{path}: the id of token {token!r} must be from 0 to {n_vocab - 1}, not {id!r}")
    if len(set(encoder.values())) != len(encoder):
        raise CheckpointError(f"{path}: two tokens share an id")
    return encoder


def check_merges(path: Path, text: bytes) -> list[str]:
    """Merge lines out of ``vocab.bpe``, in order of rank, without the ``#version`` line and empty ones."""
    try:
        lines = [line.removesuffix("\r") for line in text.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error})") from None
    return check_merge_lines(path, [line for line in lines[1 if lines[0].startswith("#version") else 0 :] if line])


def check_merge_lines(path: Path, merges: list[str]) -> list[str]:
    """``merges`` itself, if each is ``left right``."""
    for line in merges:
        if line.count(" ") != 1 or line.startswith(" ") or line.endswith(" "):
            raise CheckpointError(f"{path}: a merge must be two tokens with one space between, not {line[:80]!r}")
    return merges


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
