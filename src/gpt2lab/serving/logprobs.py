"""Log-probabilities in the shape of OpenAI's legacy completions, and how they spell tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import Gpt2LabError

if TYPE_CHECKING:
    from gpt2lab.serving.samples import Entry
    from gpt2lab.tokenizer import Tokenizer


def logprobs_of(entries: Sequence[Entry], spell: Callable[[int], str]) -> dict[str, Any]:
    """Return ``entries`` with ``spell`` for each token; the likeliest always include the drawn token."""
    tops: list[dict[str, float] | None] = []
    for entry in entries:
        if entry.logprob is None:
            tops.append(None)
            continue
        top = {spell(id): logprob for id, logprob in entry.top}
        top.setdefault(spell(entry.token), entry.logprob)
        tops.append(top)
    return {
        "tokens": [spell(entry.token) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": tops,
        "text_offset": [entry.offset for entry in entries],
    }


def id_of(token: int) -> str:
    """Spell a token by its id, as vLLM's server does."""
    return f"token_id:{token}"


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """Return a token's text; ``bytes:\\x..`` if it is part of a character, as in OpenAI's API."""
    try:
        data = tokenizer.token_bytes(token)
    except Gpt2LabError:  # an id beyond the vocabulary, which is never drawn but may be among the likeliest
        return id_of(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
