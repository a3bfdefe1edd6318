"""The tokenizer's part of a new Hugging Face folder: copies of another folder's files, or new ones.

Copies lose nothing, whatever the files hold. A tokenizer from another format is written as byte-level BPE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.config import END_OF_TEXT
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import SpecialTokens
from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, read_bytes
from gpt2lab.weights.huggingface_special import GENERATION, MORE_TEMPLATES, TOKENIZER_FILES
from gpt2lab.weights.vocabulary import added_tokens, gpt2_vocabulary, tokenizer_json, vocabulary_to_write


class TokenizerCopy(NamedTuple):
    """Everything that a new folder says of its tokenizer."""

    files: Mapping[str, bytes]
    """Name → content."""
    ids: Mapping[str, int | list[int] | None]
    """Entries of ``config.json``."""

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def tokenizer_copy(checkpoint: Checkpoint) -> TokenizerCopy:
    """Return the tokenizer of ``checkpoint`` for a new folder; no tokenizer at all if it has none.

    Raises :class:`~gpt2lab.errors.CheckpointError` for a tokenizer that only its own format can hold.
    """
    files = {path.name: read_bytes(path) for path in checkpoint.tokenizer_sources if path.is_file()}
    special, vocabulary = checkpoint.special, checkpoint.tokenizer_files
    if any((path.parent / MORE_TEMPLATES).is_dir() for path in checkpoint.tokenizer_sources):
        files = _with_templates_inside(files, special)
    other = checkpoint.other_tokenizer
    if not set(TOKENIZER_FILES) & files.keys() and other is not None and other.json is not None:
        files |= _files_of_other(other.json, special, checkpoint.config.n_ctx)
    elif not set(TOKENIZER_FILES) & files.keys():
        vocabulary = vocabulary_to_write(checkpoint)
        if vocabulary is not None:
            files |= new_files_of(vocabulary, special, checkpoint.config.n_ctx)
    takes_gpt2s = vocabulary is None and checkpoint.other_tokenizer is None and checkpoint.config.n_vocab > END_OF_TEXT
    end_of_text = END_OF_TEXT if takes_gpt2s else vocabulary.encoder.get(END_OF_TEXT_MARKER) if vocabulary else None
    ids = _ids(special, end_of_text)
    return TokenizerCopy({GENERATION: _json(ids), **files}, ids)


def _with_templates_inside(files: dict[str, bytes], special: SpecialTokens) -> dict[str, bytes]:
    """Return files whose chat templates are listed in ``tokenizer_config.json``, not in files and a folder."""
    name = "tokenizer_config.json"
    settings = json.loads(files.get(name, b"{}")) | {"chat_template": _templates(special)}
    return {each: content for each, content in files.items() if each != "chat_template.jinja"} | {name: _json(settings)}


def _templates(special: SpecialTokens) -> str | list[dict[str, str]] | None:
    """Return the entry ``chat_template`` of ``tokenizer_config.json``."""
    if not special.more_templates:
        return special.chat_template
    default = [] if special.chat_template is None else [("default", special.chat_template)]
    return [{"name": name, "template": text} for name, text in (*default, *special.more_templates)]


def gpt2_copy(n_ctx: int) -> TokenizerCopy:
    """Return GPT-2's own tokenizer for a new folder."""
    ids = _ids(SpecialTokens(), END_OF_TEXT)
    return TokenizerCopy({GENERATION: _json(ids), **new_files_of(gpt2_vocabulary(), SpecialTokens(), n_ctx)}, ids)


def new_files_of(vocabulary: TokenizerFiles, special: SpecialTokens, n_ctx: int) -> dict[str, bytes]:
    """Return the files that describe a byte-level BPE tokenizer."""
    merges = "\n".join(["#version: 0.2", *vocabulary.merges, ""])
    return {
        "vocab.json": _json(vocabulary.encoder, indent=None),
        "merges.txt": merges.encode("utf-8", "surrogateescape"),
        "tokenizer.json": _json(tokenizer_json(vocabulary, special), indent=None),
        "tokenizer_config.json": _json(_settings(vocabulary, special, n_ctx)),
    }


def _files_of_other(description: str, special: SpecialTokens, n_ctx: int) -> dict[str, bytes]:
    """Return the files that describe a tokenizer by the text of its ``tokenizer.json``."""
    try:
        content = json.loads(description)
        listed = content["model"]["vocab"]
        encoder = dict(listed) if isinstance(listed, dict) else {token: id for id, (token, _) in enumerate(listed)}
        encoder |= {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointError("its tokenizer cannot be copied: the text of its tokenizer.json is malformed") from None
    settings = _settings(TokenizerFiles(encoder, []), special, n_ctx) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    del settings["add_prefix_space"]
    return {"tokenizer.json": description.encode("utf-8"), "tokenizer_config.json": _json(settings)}


def _settings(vocabulary: TokenizerFiles, special: SpecialTokens, n_ctx: int) -> dict[str, Any]:
    names = {id: token for token, id in vocabulary.encoder.items()}
    end_of_text = vocabulary.encoder.get(END_OF_TEXT_MARKER)
    ids = _ids(special, end_of_text)
    eos = ids["eos_token_id"]
    first = eos[0] if isinstance(eos, list) else eos
    bos, unk = _or(special.bos, end_of_text), _or(special.unk, end_of_text)
    roles = {"bos_token": bos, "eos_token": first, "unk_token": unk}
    if special.pad is not None:
        roles["pad_token"] = special.pad
    named = {role: None if id is None else names.get(id) for role, id in roles.items()}
    more = [token.content for token in added_tokens(vocabulary, special) if token.special]
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": n_ctx,
        "add_prefix_space": False,
        **named,
        "additional_special_tokens": [token for token in more if token not in named.values()],
        "chat_template": _templates(special),
    }
    return {key: value for key, value in settings.items() if key in named or (value is not None and value != [])}


def _ids(special: SpecialTokens, end_of_text: int | None) -> dict[str, int | list[int] | None]:
    eos = list(special.eos) if special.eos is not None else [] if end_of_text is None else [end_of_text]
    ids: dict[str, int | list[int] | None] = {
        "bos_token_id": _or(special.bos, end_of_text),
        "eos_token_id": eos if len(eos) > 1 else eos[0] if eos else None,
    }
    return ids if special.pad is None else {**ids, "pad_token_id": special.pad}


def _or(id: int | None, default: int | None) -> int | None:
    return default if id is None else id


def _json(value: Any, indent: int | None = 2) -> bytes:
    return json.dumps(value, indent=indent).encode("utf-8")
