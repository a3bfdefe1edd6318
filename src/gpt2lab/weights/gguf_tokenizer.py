"""Read the tokenizer in a GGUF file, and what the file says of special tokens.

GPT-2's own vocabulary is recognised by its checksum and never parsed. ``gguf_writing`` writes what is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.config import END_OF_TEXT, ModelConfig, takes_gpt2_vocabulary
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import AddedToken, SpecialTokens
from gpt2lab.weights.checkpoint import OtherTokenizer, TokenizerFiles
from gpt2lab.weights.gguf_file import GgufArray, GgufFile

_TOKENS_SHA256 = "1b0b4d1f2288958613732175557fa89f8db2b619574bc7500c5b8cb8269c16ee"
_MERGES_SHA256 = "dca569b10de5f0a468dfe0d780bc5db55facb46b3bfbd8c29c9a18d3df1cac41"
GPT2_STRINGS = {50257: (758791, _TOKENS_SHA256), 50000: (806304, _MERGES_SHA256)}
"""The arrays of GPT-2's own tokens and merges: number of strings → bytes, and SHA-256."""

STOP_KEYS = tuple(f"tokenizer.ggml.{role}_token_id" for role in ("eos", "eot", "eom"))
"""Keys of the ids at which llama.cpp stops: the ends of a text, of a turn, and of a message."""

_NONE = (None, "none", "no_vocab")
_SPLIT_AS_GPT2 = frozenset({None, "gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "modern-bert"})
"""Names under which llama.cpp splits text with GPT-2's pattern; files from before April 2024 name none."""

TEMPLATE_KEY = "tokenizer.chat_template"
"""The key of the chat template; those that have names have their name after it, with a dot between."""

TOKENIZER_JSON_KEY = "tokenizer.huggingface.json"
"""The key of a whole ``tokenizer.json``, which llama.cpp ignores."""


class TokenType(IntEnum):
    """The types of tokens, as in ``llama.h``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_PLAIN = frozenset({TokenType.NORMAL, TokenType.BYTE})
_ENDS = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")
_NOT_GPT2S = tuple(
    f"tokenizer.ggml.{name}"
    for name in ("add_space_prefix", "remove_extra_whitespaces", "normalizer.lowercase", "normalizer.strip_accents")
)
"""Keys that change a text before it is split."""


def read_gguf_tokenizer(
    file: GgufFile, config: ModelConfig
) -> tuple[TokenizerFiles | None, SpecialTokens, OtherTokenizer | None]:
    """Return the file's tokenizer, parsed only if it is not GPT-2's own."""
    other = _other_tokenizer(file, config)
    if other is not None or file.metadata.get("tokenizer.ggml.model") in _NONE:
        return None, _special_tokens(file, config, ()), other
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    n_tokens = tokens.length if isinstance(tokens, GgufArray) else config.n_vocab
    types = _token_types(file, n_tokens)
    marked = [id for id, type in enumerate(types) if type not in _PLAIN]
    if _has_gpt2s(file):
        names = {END_OF_TEXT: END_OF_TEXT_MARKER}
        if marked not in ([], [END_OF_TEXT]):
            names = dict(enumerate(file.strings("tokenizer.ggml.tokens")))
        return None, _special_tokens(file, config, _added_tokens(names, types, marked)), None
    if n_tokens != config.n_vocab:
        raise CheckpointError(f"{file.file.path}: its tokenizer has {n_tokens} tokens, its model {config.n_vocab}")
    return _own_tokenizer(file, config, types, marked)


def _other_tokenizer(file: GgufFile, config: ModelConfig) -> OtherTokenizer | None:
    """Return the file's tokenizer if it is not byte-level BPE like GPT-2's."""
    path, metadata = file.file.path, file.metadata
    model, rule = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    whole = metadata.get(TOKENIZER_JSON_KEY)
    description = whole if isinstance(whole, str) else None
    if model in _NONE and description is not None:
        return OtherTokenizer(f"{path}: its tokenizer is {TOKENIZER_JSON_KEY}", description)
    if model in _NONE:
        key = next(
            (key for key in _ENDS if takes_gpt2_vocabulary(config.n_vocab) and _is_below(metadata.get(key))), None
        )
        if key is None:
            return None
        why = f"{key} is {metadata[key]}, so the vocabulary is not GPT-2's, and the file holds none"
    elif model != "gpt2" or rule not in _SPLIT_AS_GPT2:
        why = f"its tokenizer is {model!r} (tokenizer.ggml.model), which splits {rule!r} (tokenizer.ggml.pre)"
    elif changes := [key for key in _NOT_GPT2S if metadata.get(key, False) is not False]:
        why = f"{changes[0]} is {metadata[changes[0]]!r}"
    else:
        return None
    return OtherTokenizer(f"{path}: {why}", description, "give the model's Hugging Face folder")


def _is_below(id: object) -> bool:
    """Return whether an id is that of an ordinary token of GPT-2."""
    return type(id) is int and 0 <= id < END_OF_TEXT


def _own_tokenizer(
    file: GgufFile, config: ModelConfig, types: Sequence[int], marked: Sequence[int]
) -> tuple[TokenizerFiles | None, SpecialTokens, None]:
    from gpt2lab.weights.vocabulary import check_merge_lines, unless_gpt2s  # readers of GPT-2's own start without it

    path = file.file.path
    named = {
        id: token
        for id, token in enumerate(file.strings("tokenizer.ggml.tokens"))
        if types[id] != TokenType.UNUSED or token != f"[PAD{id}]"  # the name of an id without a token
    }
    encoder = {token: id for id, token in named.items()}
    if len(encoder) != len(named):
        raise CheckpointError(f"{path}: a token occurs twice in its tokenizer")
    files = TokenizerFiles(encoder, check_merge_lines(path, file.strings("tokenizer.ggml.merges")))
    return unless_gpt2s(files), _special_tokens(file, config, _added_tokens(named, types, marked)), None


def _has_gpt2s(file: GgufFile) -> bool:
    tokens, merges = (file.metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
    if not isinstance(tokens, GgufArray) or not isinstance(merges, GgufArray):
        return False
    return (tokens.sha256, merges.sha256) == (_TOKENS_SHA256, _MERGES_SHA256)


def _token_types(file: GgufFile, n_tokens: int) -> Sequence[int]:
    array = file.metadata.get("tokenizer.ggml.token_type")
    if array is None:
        return [TokenType.NORMAL] * n_tokens
    if not isinstance(array, GgufArray) or array.type != 5 or array.length != n_tokens:
        raise CheckpointError(f"{file.file.path}: tokenizer.ggml.token_type must be {n_tokens} int32 numbers")
    types = struct.unpack(f"<{n_tokens}i", file.file.copy(array.start, 4 * n_tokens))
    if unknown := set(types).difference(TokenType):
        id = next(id for id, type in enumerate(types) if type in unknown)
        raise CheckpointError(f"{file.file.path}: the type of token {id} is {types[id]}, which is unknown")
    return types


def _added_tokens(names: Mapping[int, str], types: Sequence[int], marked: Sequence[int]) -> tuple[AddedToken, ...]:
    """Return the tokens that text matches as a whole: in llama.cpp, those of types other than NORMAL, BYTE, UNUSED."""
    added = []
    for id in marked:
        if types[id] != TokenType.UNUSED:
            is_word = types[id] == TokenType.USER_DEFINED
            added.append(AddedToken(names[id], id, special=not is_word, normalized=is_word))
    return tuple(added)


def _special_tokens(file: GgufFile, config: ModelConfig, added: tuple[AddedToken, ...]) -> SpecialTokens:
    def id_of(role: str) -> int | None:
        key = f"tokenizer.ggml.{role}_token_id"
        id = file.metadata.get(key)
        if id is not None and (type(id) is not int or id < 0):
            raise CheckpointError(f"{file.file.path}: {key} is {id!r}, not a token id")
        return id if id is not None and id < config.n_vocab else None  # GPT2Config's default is 50256 for any model

    def around(role: str) -> tuple[int, ...]:
        key, id = f"tokenizer.ggml.add_{role}_token", id_of(role)
        value = file.metadata.get(key, False)
        if not isinstance(value, bool) or (value and id is None):
            raise CheckpointError(f"{file.file.path}: {key} is {value!r}, and {role}_token_id is {id}")
        return (id,) if value and id is not None else ()

    stops = tuple(dict.fromkeys(id for role in ("eos", "eot", "eom") if (id := id_of(role)) is not None))
    templates = {key: text for key, text in file.metadata.items() if f"{key}.".startswith(f"{TEMPLATE_KEY}.")}
    for key, text in templates.items():
        if not isinstance(text, str):
            raise CheckpointError(f"{file.file.path}: {key} is {text!r}, not a text")
    template = templates.pop(TEMPLATE_KEY, None)
    return SpecialTokens(
        added=added,
        eos=stops or None,
        bos=id_of("bos"),
        pad=id_of("padding"),
        unk=id_of("unknown"),
        before=around("bos"),
        after=around("eos"),
        chat_template=template,
        more_templates=tuple((key.removeprefix(f"{TEMPLATE_KEY}."), text) for key, text in templates.items()),
    )
