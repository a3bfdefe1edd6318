"""Read what a Hugging Face folder says of its tokenizer, its special tokens, and where generation begins and ends.

``tokenizer.json`` counts before ``vocab.json`` and ``merges.txt``, as in transformers. GPT-2's own, by far the most
common, is recognised by a checksum and never parsed. Whatever byte-level BPE like GPT-2's cannot express makes the
tokenizer another one, which this module names but does not run: see :mod:`gpt2lab.package_tokenizer`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.config import END_OF_TEXT, takes_gpt2_vocabulary
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import AddedToken, SpecialTokens
from gpt2lab.weights.checkpoint import OtherTokenizer, TokenizerFiles, parse_json, read_bytes
from gpt2lab.weights.huggingface_special import (
    GENERATION,
    TOKENIZER_FILES,
    Stated,
    added_token,
    optional_json,
    read_special_tokens,
)
from gpt2lab.weights.tokenizer_pipeline import difference, template
from gpt2lab.weights.vocabulary import (
    check_encoder_ids,
    check_merge_lines,
    gpt2_vocabulary,
    read_vocabulary,
    tokenizer_json,
    unless_gpt2s,
)

_BYTE_LEVEL_CLASSES = ("GPT2Tokenizer", "CodeGenTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
_GPT2_TAILS = (
    "e6470a2a1d4db0496ef119a8b1867dd3bc9b2c3f74a591e15aca2f4c816e4f3d",  # merges as strings, UTF-8
    "bf77cb90922bfd3e5468ce15442348505d4f0eb3699f258aab68ab5c390db1cf",  # merges as pairs, UTF-8
    "3e82ed727a67c77a83ca52f92ea016de846ad7614501a2bee643a4114632d7c0",  # merges as strings, escaped
    "2abc6be888818a93655d0e8d3a16b68cf03900085caf12a3e56136c6128db58a",  # merges as pairs, escaped
)
"""SHA-256 of GPT-2's vocab and merges as the end of a ``tokenizer.json``, without white space."""
_PIECE = 1 << 16  # bytes
_VOCAB = re.compile(rb'"vocab"\s*:\s*(?=\{)')


class FolderTokenizer(NamedTuple):
    """The fields of a :class:`~gpt2lab.weights.Checkpoint` that describe its tokenizer."""

    files: TokenizerFiles | None
    special: SpecialTokens
    other: OtherTokenizer | None
    sources: tuple[Path, ...]


class _Found(NamedTuple):
    """A vocabulary, with the added tokens that its own file names; ``files`` is None for GPT-2's."""

    files: TokenizerFiles | None = None
    added: tuple[AddedToken, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    other: OtherTokenizer | None = None


def read_folder_tokenizer(folder: Path, config: Mapping[str, Any], n_vocab: int) -> FolderTokenizer:
    """Read the tokenizer of ``folder``, whose ``config.json`` holds ``config``.

    Raises :class:`CheckpointError` for files that are malformed or contradict themselves.
    """
    settings = {**optional_json(folder / "special_tokens_map.json"), **optional_json(folder / "tokenizer_config.json")}
    sources = tuple(folder / name for name in (*TOKENIZER_FILES, GENERATION) if (folder / name).is_file())
    found = _vocabulary(folder, {**config, **settings}) or _absent(folder, config, n_vocab, sources)
    known = {} if found.other else found.files.encoder if found.files else {END_OF_TEXT_MARKER: END_OF_TEXT}
    special = read_special_tokens(
        folder, config, settings, n_vocab, Stated(found.added, known, found.before, found.after)
    )
    files = None if found.other else _with_added(folder, found.files, special.added)
    return FolderTokenizer(files, special, found.other, sources)


def _vocabulary(folder: Path, settings: Mapping[str, Any]) -> _Found | None:
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(folder / "tokenizer.json", settings)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_vocab_json(folder, settings)
    return None


def _from_tokenizer_json(path: Path, settings: Mapping[str, Any]) -> _Found:
    text = read_bytes(path)
    content, is_gpt2s = _parsed(path, text)
    if _is_gpt2_class(settings) and isinstance(settings.get("add_prefix_space"), bool):
        content["pre_tokenizer"] = _with_prefix_space(content.get("pre_tokenizer"), settings["add_prefix_space"])
    added, odd = _added_in_json(path, content.get("added_tokens"))
    before, after, unknown = template(content.get("post_processor"))
    if unknown:
        return _Found(
            added=added, other=OtherTokenizer(f"{path}: {unknown}", advice="that post-processor is not supported")
        )
    files = None if is_gpt2s else _vocabulary_in_json(path, content.get("model"), added)
    if why := difference(content) or odd:
        whole = parse_json(path, text) | {"pre_tokenizer": content.get("pre_tokenizer")}
        runs = None if why.startswith("model.dropout") else json.dumps(whole)
        return _Found(added=added, before=before, after=after, other=OtherTokenizer(f"{path}: {why}", runs))
    return _Found(files, added, before, after)


def _parsed(path: Path, text: bytes) -> tuple[dict[str, Any], bool]:
    """Parse ``tokenizer.json``, only up to its vocabulary if that is GPT-2's; return whether it is."""
    start = _VOCAB.search(text)
    if start is not None and _sha256_without_space(text, start.end()) in _GPT2_TAILS:
        with suppress(ValueError):
            content = json.loads(text[: start.end()] + b'{},"merges":[]}}')
            if isinstance(content, dict):
                return content, True
    return parse_json(path, text), False


def _sha256_without_space(text: bytes, start: int) -> str:
    """Return the SHA-256 of ``text`` from ``start`` on without white space, in pieces that need no fresh memory."""
    digest = hashlib.sha256()
    for at in range(start, len(text), _PIECE):
        digest.update(text[at : at + _PIECE].translate(None, b" \n\t\r"))
    return digest.hexdigest()


def _vocabulary_in_json(path: Path, model: Any, added: tuple[AddedToken, ...]) -> TokenizerFiles | None:
    """Check the vocabulary; return it if it is one of BPE and not GPT-2's."""
    encoder = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(model, dict) and model.get("type") == "Unigram" and isinstance(encoder, list) and encoder:
        return None
    merges = model.get("merges", [] if model.get("type", "BPE") != "BPE" else None) if isinstance(model, dict) else None
    if not isinstance(encoder, dict) or not encoder or not isinstance(merges, list):
        raise CheckpointError(f"{path}: its model's vocab or merges are malformed")
    lines = [" ".join(map(str, merge)) if isinstance(merge, list) else str(merge) for merge in merges]
    whole = encoder | {token.content: token.id for token in added}
    return unless_gpt2s(TokenizerFiles(check_encoder_ids(path, whole, 2**31), check_merge_lines(path, lines)))


def _added_in_json(path: Path, listed: Any) -> tuple[tuple[AddedToken, ...], str | None]:
    """Return the added tokens, and how one of them is matched in another way than whole."""
    odd, added = None, []
    if not isinstance(listed or [], list):
        raise CheckpointError(f"{path}: added_tokens is {listed!r}, not a list")
    for token in listed or []:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise CheckpointError(f"{path}: an added token is malformed")
        odd = odd or next(
            (f"{name} of the added token {token['content']!r} is True" for name in _EXTENT if token.get(name)), None
        )
        added.append(added_token(path, token["content"], token.get("id"), token))
    return tuple(added), odd


_EXTENT = ("single_word", "lstrip", "rstrip")


def _from_vocab_json(folder: Path, settings: Mapping[str, Any]) -> _Found:
    path = folder / "tokenizer_config.json"
    if not _is_byte_level_class(settings):
        why = f"{path}: tokenizer_class is {settings['tokenizer_class']!r}"
        return _Found(other=OtherTokenizer(why))
    files = read_vocabulary(folder / "vocab.json", folder / "merges.txt")
    if not settings.get("add_prefix_space"):
        return _Found(files)
    content = tokenizer_json(files or gpt2_vocabulary(), SpecialTokens())
    content["pre_tokenizer"] = _with_prefix_space(content["pre_tokenizer"], True)
    return _Found(files, other=OtherTokenizer(f"{path}: add_prefix_space is True", json.dumps(content)))


def _is_byte_level_class(settings: Mapping[str, Any]) -> bool:
    name = settings.get("tokenizer_class")
    return name is None or str(name).removesuffix("Fast") in _BYTE_LEVEL_CLASSES


def _is_gpt2_class(settings: Mapping[str, Any]) -> bool:
    return str(settings.get("tokenizer_class", "")).removesuffix("Fast") == "GPT2Tokenizer"


def _with_prefix_space(rule: Any, wanted: bool) -> Any:
    is_plain = isinstance(rule, dict) and rule.get("type") == "ByteLevel"
    return {**rule, "add_prefix_space": wanted} if is_plain else rule


def _absent(folder: Path, config: Mapping[str, Any], n_vocab: int, sources: tuple[Path, ...]) -> _Found:
    """Return GPT-2's vocabulary for a folder without one, unless a file speaks of another."""
    files = [path.name for path in sources if path.name != GENERATION]
    if files:
        return _Found(
            other=OtherTokenizer(
                f"{folder} holds {', '.join(files)}, but neither tokenizer.json nor vocab.json with merges.txt"
            )
        )
    for key in ("tokenizer_class", "bos_token_id", "eos_token_id"):
        value = config.get(key)
        ids = value if isinstance(value, list) else [value]
        contrary = not _is_byte_level_class(config) if key == "tokenizer_class" else _is_below(ids, n_vocab)
        if takes_gpt2_vocabulary(n_vocab) and contrary:
            why = (
                f"{folder / 'config.json'}: {key} is {value!r}, so the vocabulary is not GPT-2's, and no file holds it"
            )
            return _Found(other=OtherTokenizer(why))
    return _Found()


def _is_below(ids: list[Any], n_vocab: int) -> bool:
    """Return whether an id is that of an ordinary token of GPT-2."""
    return any(isinstance(id, int) and 0 <= id < min(END_OF_TEXT, n_vocab) for id in ids)


def _with_added(folder: Path, files: TokenizerFiles | None, added: tuple[AddedToken, ...]) -> TokenizerFiles | None:
    extra = {token.content: token.id for token in added if token.content != END_OF_TEXT_MARKER or files}
    if not extra or (files and extra.items() <= files.encoder.items()):
        return files
    base = files or gpt2_vocabulary()
    whole = TokenizerFiles(check_encoder_ids(folder, base.encoder | extra, 2**31), base.merges)
    return unless_gpt2s(whole)
