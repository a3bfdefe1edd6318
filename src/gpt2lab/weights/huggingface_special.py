"""Read the special tokens that a Hugging Face folder states, in all the files that may state them.

These are the added tokens and their flags, the tokens' roles, the ids that begin and end a text, and the chat template.
Where files differ, the one that transformers prefers counts. This module knows nothing of vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import AddedToken, SpecialTokens
from gpt2lab.weights.checkpoint import parse_json, read_bytes, read_text
from gpt2lab.weights.tokenizer_copy import GENERATION

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Stated(NamedTuple):
    """What the vocabulary's own files state: added tokens, ordinary tokens, and ids around every text."""

    added: tuple[AddedToken, ...] = ()
    known: Mapping[str, int] = {}
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def read_special_tokens(
    folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any], n_vocab: int, stated: Stated
) -> SpecialTokens:
    """Read the special tokens of ``folder``; ``settings`` are those of its tokenizer.

    Raises :class:`CheckpointError` for values that are malformed.
    """
    roles = _roles(settings)
    added = _added(folder, settings, stated, roles)
    ids = _ids_of_roles(roles, stated.known, added)
    before, after = _around(folder, settings, stated, ids)
    generation = optional_json(folder / GENERATION)
    files = {folder / GENERATION: generation, folder / "config.json": config}
    return SpecialTokens(
        added,
        _eos(files, n_vocab, ids.get("eos_token")),
        _id(files, "bos_token_id", n_vocab, ids.get("bos_token")),
        _id(files, "pad_token_id", n_vocab, ids.get("pad_token")),
        ids.get("unk_token"),
        before,
        after,
        _chat_template(folder, settings),
    )


def optional_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON; empty if there is no such file."""
    return parse_json(path, read_bytes(path)) if path.is_file() else {}


def added_token(path: Path, content: str, id: Any, flags: Mapping[str, Any]) -> AddedToken:
    """Return a token with the flags that a file states. Raises :class:`CheckpointError` for an id that is none."""
    if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 2**31:
        raise CheckpointError(f"{path}: the id of token {content!r} must be a whole number, not {id!r}")
    special = bool(flags.get("special"))
    return AddedToken(content, id, special, bool(flags.get("normalized", not special)))


def _roles(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return role → token; further special tokens have the roles ``extra 0``, ``extra 1``, …"""
    named: dict[str, str | None] = {role: _content(settings.get(role)) for role in _ROLES}
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(key) or ()
        for token in more.values() if isinstance(more, dict) else more:
            named[f"extra {len(named)}"] = _content(token)
    return {role: token for role, token in named.items() if token}


def _content(token: Any) -> str | None:
    """Return the text of a token that a file gives as a string or an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _added(
    folder: Path, settings: Mapping[str, Any], stated: Stated, roles: Mapping[str, str]
) -> tuple[AddedToken, ...]:
    """Return all added tokens by id: those that the tokenizer's own file names, those of other files, and roles."""
    added = {token.content: token for token in stated.added}
    if not added:
        path = folder / "added_tokens.json"
        added = {content: added_token(path, content, id, {}) for content, id in optional_json(path).items()}
    own = {token.content for token in stated.added}
    for token in _decoder(folder / "tokenizer_config.json", settings.get("added_tokens_decoder") or {}):
        if token.content not in own:
            added[token.content] = token
    special = set(roles.values())
    for content in (END_OF_TEXT_MARKER, *special):
        if content not in added and content in stated.known:
            added[content] = AddedToken(content, stated.known[content])
        elif content in added and not added[content].special and (content in special or content not in own):
            added[content] = AddedToken(content, added[content].id)
    return tuple(sorted(added.values(), key=lambda token: token.id))


def _decoder(path: Path, listed: Any) -> list[AddedToken]:
    """Return the tokens of ``added_tokens_decoder``."""
    if not isinstance(listed, dict) or not all(map(_content, listed.values())):
        raise CheckpointError(f"{path}: added_tokens_decoder is malformed")
    return [
        added_token(path, _content(token) or "", int(id) if str(id).isdecimal() else id, token)
        for id, token in listed.items()
    ]


def _ids_of_roles(roles: Mapping[str, str], known: Mapping[str, int], added: tuple[AddedToken, ...]) -> dict[str, int]:
    ids = {**known, **{token.content: token.id for token in added}}
    return {role: ids[token] for role, token in roles.items() if token in ids}


def _around(
    folder: Path, settings: Mapping[str, Any], stated: Stated, ids: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that stand before and after every text; ``add_bos_token`` counts before the post-processor."""
    if not {"add_bos_token", "add_eos_token"} & settings.keys():
        return stated.before, stated.after
    sides: list[tuple[int, ...]] = []
    for key, role in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        if settings.get(key) and role not in ids:
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'}: {key} is {settings[key]!r}, but no {role} has an id"
            )
        sides.append((ids[role],) if settings.get(key) else ())
    return sides[0], sides[1]


def _eos(files: Mapping[Path, Mapping[str, Any]], n_vocab: int, role: int | None) -> tuple[int, ...] | None:
    """Return the ids that end a text; None: no file names one that the model can draw."""
    for path, values in files.items():
        if "eos_token_id" in values:
            value = values["eos_token_id"]
            ids = [] if value is None else value if isinstance(value, list) else [value]
            checked = [_checked_id(path, "eos_token_id", id) for id in ids]
            if drawn := tuple(dict.fromkeys(id for id in checked if 0 <= id < n_vocab)):
                return drawn
            break
    return None if role is None or role >= n_vocab else (role,)


def _id(files: Mapping[Path, Mapping[str, Any]], key: str, n_vocab: int, role: int | None) -> int | None:
    for path, values in files.items():
        if values.get(key) is not None:
            id = _checked_id(path, key, values[key])
            if 0 <= id < n_vocab:
                return id
    return None if role is None or role >= n_vocab else role


def _checked_id(path: Path, key: str, id: Any) -> int:
    if not isinstance(id, int) or isinstance(id, bool) or not -1 <= id < 2**31:  # -1 is written for none
        raise CheckpointError(f"{path}: {key} is {id!r}, not a token id")
    return id


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    given = settings.get("chat_template")
    if isinstance(given, list):  # several templates, by name
        by_name = {each.get("name"): each.get("template") for each in given if isinstance(each, dict)}
        given = by_name.get("default")
    return given if isinstance(given, str) else None
