"""Activations of a served model at one token, and the effect of a change there, read between the steps of samples.

This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.distribution import without_text
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.generation.scheduler import PREFILL_CHUNK
from gpt2lab.inside.neighbours import nearest
from gpt2lab.inside.tracing import trace_more
from gpt2lab.sampling.rules import largest, log_softmax

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.inside.tracing import Trace
    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.worker import Reading

DIGITS = 4
"""Decimal places of attention weights and contributions in an answer."""


def look(served: ServedModel, tokens: Sequence[int], token: int | None, top: int, client: Hashable) -> Reading:
    """Return the activations at the last of ``tokens``, for the logit of ``token`` (default: the likeliest)."""
    engine = served.model.engine
    sequence, known = served.prompts.begin(tokens[:-1], client)
    try:
        yield from _feed(engine, sequence, tokens[known:-1])
        trace = trace_more(engine, served.model.checkpoint, sequence, len(tokens) - 1, tokens, last=1)
    except BaseException:
        served.prompts.free(sequence)
        raise
    served.prompts.end(sequence, tokens, client)
    yield
    return _seen(served, trace, token, top)


def change(
    served: ServedModel,
    tokens: Sequence[int],
    edits: Sequence[Edit],
    token: int | None,
    top: int,
    length: int,
    client: Hashable,
) -> Reading:
    """Return the next tokens after ``tokens`` without and with ``edits``, and ``length`` likeliest ones in a row."""
    engine = served.model.engine
    begun, known = served.prompts.begin(tokens[:-1], client)
    try:
        with new_sequence(engine) as edited:
            engine.edit_sequence(edited, edits)
            yield from _feed(engine, begun, tokens[known:-1])
            yield from _feed(engine, edited, tokens[:-1])
            found = yield from _greedy(served, [begun, edited], tokens, length)
    except BaseException:
        served.prompts.free(begun)
        raise
    served.prompts.end(begun, tokens, client)
    plain, changed = (log_softmax(row) for row, _ in found)
    asked = int(plain.argmax()) if token is None else token
    p = np.exp(plain)
    possible = p > 0  # ids that stand for no text are not
    kl = float((p[possible] * (plain[possible] - changed[possible])).sum())
    return {
        "token": asked,
        "kl": kl,
        **{
            name: {
                "logit": _finite(row[asked]),
                "probability": float(np.exp(logprobs[asked])),
                "top": _likeliest(logprobs, top),
                "tokens": text,
            }
            for name, logprobs, (row, text) in zip(("before", "after"), (plain, changed), found, strict=True)
        },
    }


def _greedy(served: ServedModel, sequences: Sequence[int], tokens: Sequence[int], length: int) -> Any:
    """Return, for each sequence, its logits after ``tokens`` and the ``length`` ids that temperature 0 draws.

    The sequences hold all tokens but the last. They go on together: two rows cost little more than one.
    """
    engine = served.model.engine
    most = min(length, engine.config.n_ctx - len(tokens))
    texts: list[list[int]] = [[] for _ in sequences]
    running = list(range(len(sequences)))
    rows = first = engine.forward(sequences, [tokens[-1:]] * len(sequences))
    while most:
        for at, row in zip(running, rows, strict=True):
            texts[at].append(int(without_text(row, served.tokenizer).argmax()))
        running = [at for at in running if len(texts[at]) < most and texts[at][-1] not in served.model.eos]
        if not running:
            break
        yield
        rows = engine.forward([sequences[at] for at in running], [texts[at][-1:] for at in running])
    return [(without_text(row, served.tokenizer), text) for row, text in zip(first, texts, strict=True)]


def _feed(engine: Engine, sequence: int, ids: Sequence[int]) -> Any:
    for start in range(0, len(ids), PREFILL_CHUNK):
        engine.forward([sequence], [ids[start : start + PREFILL_CHUNK]], "none")
        yield


def _seen(served: ServedModel, trace: Trace, token: int | None, top: int) -> dict[str, Any]:
    lens = np.stack([without_text(row, served.tokenizer) for row in trace.lens()])  # [n_layer + 1, n_vocab]
    asked = int(lens[-1].argmax()) if token is None else token
    logprobs = log_softmax(lens)
    parts = trace.contributions(asked)
    engine = served.model.engine
    near = nearest(engine, engine.token_row(asked, False), top, [asked], served.tokenizer.n_vocab)
    return {
        "token": asked,
        "lens": [
            {
                "probability": float(np.exp(row[asked])),
                "rank": 1 + int((row > row[asked]).sum()),
                "top": _likeliest(row, top),
            }
            for row in logprobs
        ],
        "attention": trace.attention[:, :, 0].astype(float).round(DIGITS).tolist(),
        "contributions": {
            name: value.astype(float).round(DIGITS).tolist() if isinstance(value, np.ndarray) else round(value, DIGITS)
            for name, value in parts._asdict().items()
            if name != "token"
        },
        "neighbours": [[each.token, round(each.cosine, DIGITS)] for each in near],
    }


def _likeliest(logprobs: Any, top: int) -> list[list[float]]:
    ids = largest(logprobs, top).tolist()
    return [[id, float(np.exp(logprobs[id]))] for id in ids if np.isfinite(logprobs[id])]


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
