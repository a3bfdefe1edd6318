"""The distribution of the next token, stage by stage, for display.

:mod:`gpt2lab.sampling` computes the stages; this module adds the text of their likeliest tokens. It knows nothing of
how logits are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.markup.html import percent
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import largest, stages

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.sampling.custom import CustomStage
    from gpt2lab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """A token that may come next; ``text`` is empty if the model has no tokenizer."""

    id: int
    text: str
    logit: float
    probability: float


@dataclass(frozen=True)
class StageView:
    """The distribution after one stage of sampling.

    Attributes:
        name: name of the stage; stages follow the order of :mod:`gpt2lab.sampling`.
        kept: number of tokens with a probability above 0.
        candidates: the likeliest of them, likeliest first, lower ids first on ties.
    """

    name: str
    kept: int
    candidates: list[Candidate]


@dataclass(frozen=True)
class NextToken:
    """The distribution of the token after ``tokens`` (the prompt's ids), stage by stage."""

    tokens: list[int]
    stages: list[StageView]

    @property
    def candidates(self) -> list[Candidate]:
        """The likeliest tokens of the last stage, the distribution that is drawn from."""
        return self.stages[-1].candidates

    def __repr__(self) -> str:
        first = ", ".join(f"{_name(each)} {percent(each.probability)}" for each in self.candidates[:3])
        more = f", … {self.stages[-1].kept:,} in all" if self.stages[-1].kept > 3 else ""
        return f"<NextToken after {len(self.tokens):,} tokens: {first}{more}>"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: a row for each likely token, a column for each stage."""
        from gpt2lab.markup import fragment

        found = {each.id: each for stage in self.stages for each in stage.candidates}
        shown = [{each.id: each.probability for each in stage.candidates} for stage in self.stages]
        heads = [f"{stage.name} ({stage.kept:,} tokens)" for stage in self.stages]
        rows = [(_name(each), [stage.get(id) for stage in shown]) for id, each in found.items()]
        note = "Probabilities after each stage of sampling. A token without one was cut, or others are likelier."
        return fragment.fragment(fragment.tinted_table(["token", *heads], rows) + fragment.faint(note))


def _name(candidate: Candidate) -> str:
    return repr(candidate.text) if candidate.text else f"#{candidate.id}"


def next_token(
    tokens: Sequence[int],
    logits: npt.NDArray[np.float32],
    params: SamplingParams,
    history: Sequence[int],
    tokenizer: Tokenizer | None,
    top: int,
    custom: Sequence[CustomStage] = (),
) -> NextToken:
    """Apply the stages of ``params`` and ``custom`` to ``logits [n_vocab]``; keep the ``top`` likeliest of each."""
    views = []
    for stage in stages(logits, params, history, custom):
        kept = int(np.count_nonzero(stage.probabilities))
        candidates = [
            Candidate(id, token_text(tokenizer, id), float(stage.logits[id]), float(stage.probabilities[id]))
            for id in largest(stage.logits, min(top, kept)).tolist()
        ]
        views.append(StageView(stage.name, kept, candidates))
    return NextToken(list(tokens), views)


def token_text(tokenizer: Tokenizer | None, id: int) -> str:
    """Return the text of one token by itself; empty if it has none."""
    return tokenizer.decode([id]) if tokenizer and id < tokenizer.n_vocab else ""


def token_texts(ids: Sequence[int], tokenizer: Tokenizer | None) -> list[str] | None:
    """Return the text that each token adds after those before it, empty within a character; None without tokenizer."""
    decoder = tokenizer.incremental_decoder() if tokenizer else None
    return [decoder.feed(id) for id in ids] if decoder else None


def without_text(logits: npt.NDArray[np.float32], tokenizer: Tokenizer | None) -> npt.NDArray[np.float32]:
    """Set ``logits [..., n_vocab]`` in place to -inf for ids that ``tokenizer`` has no text for, and return them."""
    if tokenizer:
        logits[..., tokenizer.n_vocab :] = -np.inf
    return logits
