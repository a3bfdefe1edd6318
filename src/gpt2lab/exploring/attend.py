"""Attention of every layer and head, and the logit lens: what each layer would predict if it were the last.

Both come from :func:`gpt2lab.reference.forward`, the readable forward pass, so a layer is defined in one place. The
logit lens (nostalgebraist 2020) sends a layer's output through the final layer norm and the output matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.distribution import token_text
from gpt2lab.errors import UsageError
from gpt2lab.exploring.reading import Alternative, likeliest
from gpt2lab.generation.plan import fed_tokens
from gpt2lab.reference import Trace, forward, layer_norm, output_matrix
from gpt2lab.sampling.rules import log_softmax

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.reference import Weights
    from gpt2lab.tokenizer import Tokenizer
    from gpt2lab.weights.checkpoint import Checkpoint

MOST_TOKENS = 256
"""The longest prompt: each head's picture is tokens by tokens, and larger ones are unreadable and fill files."""

ROWS = 32
"""Positions whose logits are held at a time."""


@dataclass(frozen=True)
class Attention:
    """A model's attention and its predictions after each layer.

    Attributes:
        tokens: the prompt's tokens as text.
        ids: the same tokens as ids.
        lens: the likeliest next tokens at each token, for the input and then each layer:
            ``[n_layer + 1][n_seq][top]``.
        weights: float32 ``[n_layer, n_head, n_seq, n_seq]``: the attention of a row's token to a column's; each row
            sums to 1.
    """

    prompt: str
    tokens: list[str]
    ids: list[int]
    lens: list[list[list[Alternative]]]
    weights: npt.NDArray[np.float32]


def attend(checkpoint: Checkpoint, tokenizer: Tokenizer | None, prompt: Prompt, top: int = 3) -> Attention:
    """Run ``prompt`` (if empty, the token that starts a text) through all layers and record attention and predictions.

    Raises :class:`~gpt2lab.errors.UsageError` for more than :data:`MOST_TOKENS` tokens or the model's context.
    """
    config = checkpoint.config
    ids = fed_tokens(prompt, config, tokenizer)
    most = min(MOST_TOKENS, config.n_ctx)
    if len(ids) > most:
        raise UsageError(f"the prompt has {len(ids)} tokens, more than the {most} that attend can show: shorten it")
    trace = Trace()
    tensors = dict(checkpoint.tensors)
    forward(tensors, config, ids, trace=trace)
    return Attention(
        prompt=prompt if isinstance(prompt, str) else "",
        tokens=[token_text(tokenizer, id) or f"#{id}" for id in ids],
        ids=list(ids),
        lens=[logit_lens(tensors, config, hidden, tokenizer, top) for hidden in trace.hidden],
        weights=np.stack(trace.attention),
    )


def logit_lens(
    weights: Weights,
    config: ModelConfig,
    hidden: npt.NDArray[np.float32],
    tokenizer: Tokenizer | None,
    top: int,
) -> list[list[Alternative]]:
    """Return the likeliest next tokens for each row of ``hidden [n_seq, n_embd]``, as if no layer followed."""
    known = tokenizer.n_vocab if tokenizer else config.n_vocab
    result = []
    for rows in _parts(hidden):
        normed = layer_norm(weights, "ln_f", rows, config.layer_norm_epsilon)  # [n, n_embd]
        logits = normed @ output_matrix(weights, config)[:known].T  # [n, n_embd] -> [n, n_vocab]
        result += [likeliest(row, top, tokenizer) for row in np.exp(log_softmax(logits))]
    return result


def _parts(hidden: npt.NDArray[np.float32]) -> Sequence[npt.NDArray[np.float32]]:
    return [hidden[i : i + ROWS] for i in range(0, len(hidden), ROWS)]
