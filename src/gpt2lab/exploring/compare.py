"""Two models and one prompt: the texts that they write with one seed, and the distance of their distributions.

Both models read both texts, token by token. KL(A‖B) is the extra surprise, in nats a token, of a reader who expects B
and gets A. This module knows nothing of how results are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.distribution import token_text, without_text
from gpt2lab.errors import UsageError
from gpt2lab.exploring.compared import Comparison, Moved, Place, Written
from gpt2lab.exploring.figures import mean
from gpt2lab.exploring.reading import TOP, Doubles, likeliest
from gpt2lab.exploring.replay import generate_command
from gpt2lab.generation.options import new_seed
from gpt2lab.generation.plan import fed_tokens
from gpt2lab.generation.run import in_order
from gpt2lab.sampling.rules import largest, log_softmax
from gpt2lab.scoring import window_logits

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.sampling.declaration import SamplingParams


class _Shift:
    """Sums of both models' probabilities over places."""

    def __init__(self, n_vocab: int) -> None:
        self.a, self.b, self.n = np.zeros(n_vocab), np.zeros(n_vocab), 0

    def moved(self, model: LanguageModel, top: int, sign: int) -> list[Moved]:
        """Return the ``top`` tokens whose mean probability rises (``sign`` 1) or falls (-1) most from A to B."""
        change = sign * (self.b - self.a)
        return [
            Moved(id, token_text(model.tokenizer, id), float(self.a[id] / self.n), float(self.b[id] / self.n))
            for id in largest(change, top).tolist()
            if change[id] > 0
        ]


def compare(
    a: LanguageModel,
    b: LanguageModel,
    prompt: str,
    params: SamplingParams,
    *,
    names: tuple[str, str],
    nsamples: int = 1,
    length: int = 60,
    seed: int | None = None,
    top: int = 10,
    options: Sequence[str] = (),
) -> Comparison:
    """Let each model write ``nsamples`` completions, and let both read all of them.

    Raises :class:`~gpt2lab.errors.UsageError` if the models have different vocabularies.
    """
    check_same_vocabulary(a, b, names)
    seed = new_seed() if seed is None else seed
    shift = _Shift(a.tokenizer.n_vocab if a.tokenizer else 0)
    sampling: dict[str, Any] = dict(vars(params))
    written = []
    for author, model, name in (("A", a, names[0]), ("B", b, names[1])):
        pieces = model.pieces([prompt], n=nsamples, length=length, seed=seed, **sampling)
        for number, each in enumerate(in_order(pieces), 1):
            command = generate_command(
                prompt, params, length=length, seed=seed, nsamples=number, model=["--model_name", name, *options]
            )
            written.append(Written(author, number, each.text, _read_both(a, b, prompt, each.tokens, shift), command))
    return Comparison(
        model_a=names[0],
        model_b=names[1],
        prompt=prompt,
        seed=seed,
        written=written,
        kl=mean([place.kl for each in written for place in each.places]),
        up=shift.moved(a, top, 1),
        down=shift.moved(a, top, -1),
    )


def check_same_vocabulary(a: LanguageModel, b: LanguageModel, names: tuple[str, str]) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` unless every id means the same to both models."""
    for model, name in zip((a, b), names, strict=True):
        if model.tokenizer is None:
            raise UsageError(f"{name} has no tokenizer, which a comparison needs: put its vocabulary files beside it")
    assert a.tokenizer is not None and b.tokenizer is not None
    if a.tokenizer is b.tokenizer:
        return
    if a.tokenizer.encoder() != b.tokenizer.encoder() or a.tokenizer.merges() != b.tokenizer.merges():
        raise UsageError(f"{names[0]} and {names[1]} have different vocabularies: compare models that share one")


def _read_both(
    a: LanguageModel, b: LanguageModel, prompt: str, completion: Sequence[int], shift: _Shift
) -> list[Place]:
    """Return the places of ``completion``, and add their distributions to ``shift``."""
    if not completion:
        return []
    before = fed_tokens(prompt, a.config, a.tokenizer)
    tokens = [*before, *completion]
    if len(tokens) > min(a.config.n_ctx, b.config.n_ctx):
        raise UsageError(f"{len(tokens)} tokens do not fit both models' contexts: give a smaller --length")
    decoder = a.tokenizer.incremental_decoder() if a.tokenizer else None
    places = []
    # One window holds all tokens, so both models are cut at the same places.
    both = (window_logits(model.exact_engine, tokens, model.config.n_ctx) for model in (a, b))
    for (at, _, rows_a), (_, _, rows_b) in zip(*both, strict=True):
        known = len(shift.a)
        logs_a = log_softmax(without_text(rows_a, a.tokenizer)[:, :known])
        logs_b = log_softmax(without_text(rows_b, b.tokenizer)[:, :known])
        for i in range(max(0, len(before) - 1 - at), len(rows_a)):
            id = tokens[at + i + 1]
            p_a, p_b = np.exp(logs_a[i]), np.exp(logs_b[i])
            shift.a += p_a
            shift.b += p_b
            shift.n += 1
            text = decoder.feed(id) if decoder else ""
            best = likeliest(p_a, TOP, a.tokenizer), likeliest(p_b, TOP, a.tokenizer)
            places.append(Place(id, text, divergence(logs_a[i], logs_b[i]), float(p_a[id]), float(p_b[id]), *best))
    return places


def divergence(log_a: Doubles, log_b: Doubles) -> float:
    """Return KL(A‖B) in nats of two rows of log-probabilities; never below 0."""
    a = np.exp(log_a)
    return max(0.0, float(np.sum(a * np.where(a > 0, log_a - log_b, 0.0))))
