"""A map of activation patching: the places in one prompt's run where another prompt's activation restores its answer.

Meng et al. 2022 ("causal tracing") and Wang et al. 2023: the clean prompt has the answer in question, and the
corrupted prompt, with the same number of tokens, has another. The corrupted prompt runs once for each
layer and position, with one activation copied from the clean prompt. Positions before the first token that differs have
no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.distribution import token_text
from gpt2lab.engines.hooks import Edit
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError
from gpt2lab.exploring.patch_page import PLACES, PatchMap, Place
from gpt2lab.generation.plan import fed_tokens

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.model import LanguageModel

Array = npt.NDArray[np.float32]

MOST_TOKENS = 128
"""The longest prompt: a map needs a run for each layer and token, and wider ones are unreadable."""


def patch_map(
    model: LanguageModel, clean: Prompt, corrupted: Prompt, answer: str | None = None, other: str | None = None
) -> PatchMap:
    """Patch every layer and position of ``corrupted`` with the activation of ``clean`` there, one at a time.

    ``answer`` and ``other`` are texts of one token each; default: the likeliest after each prompt.
    Raises :class:`~gpt2lab.errors.UsageError` if the prompts differ in their number of tokens or agree on the answer.
    """
    engine = model.exact_engine
    ids = [fed_tokens(prompt, model.config, model.tokenizer) for prompt in (clean, corrupted)]
    _check(ids[0], ids[1])
    with new_sequence(engine) as sequence:
        activations = engine.record(sequence, ids[0], PLACES)
    logits = [_last_logits(engine, each) for each in ids]
    tokens = [_token(model, text, row) for text, row in zip((answer, other), logits, strict=True)]
    if tokens[0] == tokens[1]:
        raise UsageError("both prompts have the same answer: name two tokens to compare with --answer and --other")
    differences = [float(row[tokens[0]]) - float(row[tokens[1]]) for row in logits]
    if differences[0] == differences[1]:
        raise UsageError("both prompts give the two tokens the same difference, so no patch can bring it back")

    def share(rows: Array) -> Array:
        found = rows[:, tokens[0]].astype(np.float64) - rows[:, tokens[1]]
        return ((found - differences[1]) / (differences[0] - differences[1])).astype(np.float32)

    effects: dict[Place, Array] = {place: np.zeros((model.config.n_layer, len(ids[0])), np.float32) for place in PLACES}
    first = next(at for at, pair in enumerate(zip(*ids, strict=True)) if pair[0] != pair[1])
    with new_sequence(engine) as sequence:
        engine.forward([sequence], [ids[1]], "none")
        for position in range(first, len(ids[0])):
            for place in PLACES:
                values = activations[place][: model.config.n_layer, position]  # [n_layer, n_embd]
                effects[place][:, position] = share(_patched(engine, sequence, ids[1], place, position, values))
    texts = [[token_text(model.tokenizer, id) or f"#{id}" for id in each] for each in ids]
    names = [token_text(model.tokenizer, id) or f"#{id}" for id in tokens]
    return PatchMap(
        texts[0], texts[1], tokens[0], tokens[1], names[0], names[1], differences[0], differences[1], effects
    )


def _patched(engine: Engine, sequence: int, ids: tuple[int, ...], place: Place, position: int, values: Array) -> Array:
    """Return the last logits ``[n_layer, n_vocab]`` of ``ids``, which ``sequence`` holds, each with a layer patched."""
    forks: list[int] = []
    try:
        for layer, value in enumerate(values):
            forks.append(engine.fork_sequence(sequence))
            engine.truncate_sequence(forks[-1], position)
            engine.edit_sequence(forks[-1], [Edit(place, layer, value[None], first=position)])
        logits: Array = engine.forward(forks, [ids[position:]] * len(forks), "last")
        return logits
    finally:
        for fork in forks:
            engine.free_sequence(fork)


def _last_logits(engine: Engine, ids: tuple[int, ...]) -> Array:
    with new_sequence(engine) as sequence:
        row: Array = engine.forward([sequence], [ids], "last")[0]
        return row


def _token(model: LanguageModel, text: str | None, logits: Array) -> int:
    if text is None:
        known = model.tokenizer.n_vocab if model.tokenizer else None
        return int(logits[:known].argmax())
    if model.tokenizer is None:
        raise UsageError("this model has no tokenizer, so it cannot read --answer and --other")
    ids = model.tokenizer.encode(text)
    if len(ids) != 1:
        raise UsageError(f"{text!r} has {len(ids)} tokens, but an answer is one token: most words begin with a space")
    return ids[0]


def _check(clean: tuple[int, ...], corrupted: tuple[int, ...]) -> None:
    if len(clean) != len(corrupted):
        raise UsageError(
            f"the prompts have {len(clean)} and {len(corrupted)} tokens, but patching needs the same number in both: "
            "gpt2lab tokens shows them"
        )
    if clean == corrupted:
        raise UsageError("the two prompts are the same")
    if len(clean) > MOST_TOKENS:
        raise UsageError(f"the prompts have {len(clean)} tokens, and a map holds at most {MOST_TOKENS}: shorten them")
