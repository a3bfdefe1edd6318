"""Vocabulary files beside weights: ``encoder.json`` or ``vocab.json``, ``vocab.bpe`` or ``merges.txt``.

GPT-2's own vocabulary, by far the most common, is recognised by its checksum and never parsed: the packaged one loads
faster. Does not encode or decode text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.config import GPT2_N_VOCAB, takes_gpt2_vocabulary
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import AddedToken, SpecialTokens, Tokenizer
from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, parse_json, read_bytes

GPT2_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
_GPT2_TOKENS_SHA256 = "e35a33a0b2250c932ffdafc4c3a3552aef0cc7af7a11e9ebfddf1d2a6517371f"
"""The SHA-256 of the tokens in the order of their ids, with a newline between them."""


def read_vocabulary(encoder: Path, merges: Path) -> TokenizerFiles | None:
    """Read the vocabulary in these two files; None if it is GPT-2's."""
    encoder_bytes, merges_bytes = read_bytes(encoder), read_bytes(merges)
    if _sha256(encoder_bytes) == GPT2_ENCODER_SHA256 and _sha256(merges_bytes) == GPT2_MERGES_SHA256:
        return None
    return unless_gpt2s(TokenizerFiles(check_encoder(encoder, encoder_bytes), check_merges(merges, merges_bytes)))


def unless_gpt2s(vocabulary: TokenizerFiles) -> TokenizerFiles | None:
    """Return ``vocabulary``, or None if it is GPT-2's; compares checksums, because building GPT-2's takes 50 ms."""
    encoder, merges = vocabulary.encoder, vocabulary.merges
    if len(encoder) != GPT2_N_VOCAB or sorted(encoder.values()) != list(range(GPT2_N_VOCAB)):
        return vocabulary
    tokens = "\n".join(sorted(encoder, key=encoder.__getitem__)).encode("utf-8", "surrogatepass")
    lines = "\n".join(["#version: 0.2", *merges, ""]).encode("utf-8", "surrogatepass")
    return None if (_sha256(tokens), _sha256(lines)) == (_GPT2_TOKENS_SHA256, GPT2_MERGES_SHA256) else vocabulary


def tokenizer_json(vocabulary: TokenizerFiles, special: SpecialTokens) -> dict[str, Any]:
    """Return the ``tokenizer.json`` of a vocabulary, as the ``tokenizers`` package reads it."""
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [_described(token) for token in added_tokens(vocabulary, special)],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "add_prefix_space": False},
        "post_processor": _template(vocabulary, special),
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "vocab": vocabulary.encoder, "merges": vocabulary.merges},
    }


def added_tokens(vocabulary: TokenizerFiles, special: SpecialTokens) -> list[AddedToken]:
    """Return the added tokens by id, with ``<|endoftext|>`` if the vocabulary has it."""
    added = {token.content: token for token in special.added}
    if END_OF_TEXT_MARKER in vocabulary.encoder:
        end_of_text = AddedToken(END_OF_TEXT_MARKER, vocabulary.encoder[END_OF_TEXT_MARKER])
        added.setdefault(END_OF_TEXT_MARKER, end_of_text)
    return sorted(added.values(), key=lambda token: token.id)


def _described(token: AddedToken) -> dict[str, Any]:
    where = {"single_word": False, "lstrip": False, "rstrip": False}
    kind = {"normalized": token.normalized, "special": token.special}
    return {"id": token.id, "content": token.content, **where, **kind}


def _template(vocabulary: TokenizerFiles, special: SpecialTokens) -> dict[str, Any] | None:
    """Return the post-processor that puts ``before`` and ``after`` around a text."""
    around = [*special.before, *special.after]
    if not around:
        return None
    names = {id: token for token, id in vocabulary.encoder.items() if id in around}
    ids = {names[id]: {"id": names[id], "ids": [id], "tokens": [names[id]]} for id in around}

    def items(which: str, type_id: int) -> list[dict[str, Any]]:
        def fixed(id: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": names[id], "type_id": type_id}}

        text = {"Sequence": {"id": which, "type_id": type_id}}
        return [*map(fixed, special.before), text, *map(fixed, special.after)]

    single, pair = items("A", 0), [*items("A", 0), *items("B", 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}


def gpt2_vocabulary() -> TokenizerFiles:
    """Return GPT-2's own vocabulary, from the packaged merges."""
    tokenizer = Tokenizer.gpt2()
    return TokenizerFiles(tokenizer.encoder(), tokenizer.merges())


def vocabulary_to_write(checkpoint: Checkpoint) -> TokenizerFiles | None:
    """Return the vocabulary to write with a checkpoint; None if it has none and cannot use GPT-2's.

    Raises :class:`CheckpointError` for a tokenizer that is not byte-level BPE like GPT-2's.
    """
    if checkpoint.other_tokenizer is not None:
        raise CheckpointError(f"its tokenizer cannot be converted: {checkpoint.other_tokenizer.why}")
    if checkpoint.tokenizer_files is None and takes_gpt2_vocabulary(checkpoint.config.n_vocab):
        return gpt2_vocabulary()
    return checkpoint.tokenizer_files


def check_encoder(path: Path, text: bytes) -> dict[str, int]:
    """Parse token → id from JSON."""
    return check_encoder_ids(path, parse_json(path, text), 2**31)


def check_encoder_ids(path: Path, encoder: dict[str, int], n_vocab: int) -> dict[str, int]:
    """Return ``encoder`` if its ids are distinct whole numbers below ``n_vocab``."""
    for token, id in encoder.items():
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < n_vocab:
            raise CheckpointError(f"{path}: the id of token {token!r} must be from 0 to {n_vocab - 1}, not {id!r}")
    names = {id: token for token, id in encoder.items()}
    if len(names) != len(encoder):
        first, id = next((token, id) for token, id in encoder.items() if names[id] != token)
        raise CheckpointError(f"{path}: the tokens {first!r} and {names[id]!r} share the id {id}")
    return encoder


def check_merges(path: Path, text: bytes) -> list[str]:
    """Return the merge lines of ``vocab.bpe``, in order of rank, without the ``#version`` line and empty lines."""
    try:
        lines = [line.removesuffix("\r") for line in text.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error})") from None
    return check_merge_lines(path, [line for line in lines[1 if lines[0].startswith("#version") else 0 :] if line])


def check_merge_lines(path: Path, merges: list[str]) -> list[str]:
    """Return ``merges`` if each has the form ``left right``."""
    for line in merges:
        if line.count(" ") != 1 or line.startswith(" ") or line.endswith(" "):
            raise CheckpointError(f"{path}: a merge must be two tokens with one space between, not {line[:80]!r}")
    return merges


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
