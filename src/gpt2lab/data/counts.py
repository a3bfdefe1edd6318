"""Statistics of a dataset. The tokens are read once, a few million at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpt2lab.data.tokens import Documents
from gpt2lab.data.vocabulary import token_sizes
from gpt2lab.errors import UsageError
from gpt2lab.tokenizer import Tokenizer

_SCAN = 1 << 22  # tokens


@dataclass(frozen=True)
class Counts:
    """Counts of a dataset: lengths are in tokens without separators, ``used`` is the number of distinct tokens."""

    documents: int
    tokens: int
    trained: int
    n_bytes: int
    used: int
    shortest: int
    median: int
    longest: int

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as a dict for JSON."""
        return asdict(self)


def count(documents: Documents, tokenizer: Tokenizer) -> Counts:
    """Count ``documents``, at least one, encoded with ``tokenizer``'s vocabulary.

    Raises :class:`UsageError` for a token outside the vocabulary.
    """
    n_tokens = len(documents.tokens)
    occurrences = np.zeros(tokenizer.n_vocab, dtype=np.int64)
    trained = n_tokens if documents.trained is None else 0
    for first in range(0, n_tokens, _SCAN):
        found = np.bincount(documents.tokens[first : first + _SCAN], minlength=tokenizer.n_vocab)
        if len(found) > tokenizer.n_vocab:
            raise UsageError(f"token {len(found) - 1} is outside the vocabulary (0 to {tokenizer.n_vocab - 1})")
        occurrences += found
        if documents.trained is not None:
            trained += int(np.count_nonzero(documents.trained[first : first + _SCAN]))
    lengths = documents.lengths
    return Counts(
        documents=len(documents),
        tokens=n_tokens,
        trained=trained,
        n_bytes=int(occurrences @ token_sizes(tokenizer)[0]),
        used=int(np.count_nonzero(occurrences)),
        shortest=int(lengths.min()),
        median=int(np.sort(lengths)[(len(lengths) - 1) // 2]),
        longest=int(lengths.max()),
    )
