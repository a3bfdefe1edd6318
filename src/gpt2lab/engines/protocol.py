"""What a machine that computes GPT-2 must be able to do.

An engine holds weights and key/value caches, turns token ids into logits, and draws the next ones. It knows nothing of
text, of requests, or of checkpoint formats. :mod:`gpt2lab.generation.scheduler` is what drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.config import ModelConfig
    from gpt2lab.sampling.custom import CustomStage
    from gpt2lab.sampling.declaration import SamplingParams

Outputs = Literal["last", "all", "none"]
"""For which of the tokens fed logits are wanted."""


@dataclass(slots=True)
class Draw:
    """How to draw from the logits of the last ``count`` of the tokens that a step feeds to a sequence."""

    params: SamplingParams
    seed: int
    stream: int
    """Number of the random stream of ``seed``."""
    position: int
    """Position in the stream of the first draw; the next one's is one more, and so on."""
    history: Sequence[int] = ()
    """Ids so far, as of the first draw, for penalties and ``stages``; may be empty if there are none of these."""
    count: int = 1
    """At least 1, at most the tokens fed. Above 1 the last ``count - 1`` of them are guesses."""
    top: int = 0
    """How many of the likeliest ids to report with each draw."""
    stages: Sequence[CustomStage] = ()
    """Stages that are a user's own. An engine need not know them: see :mod:`gpt2lab.generation.custom_draws`."""


class Drawn(NamedTuple):
    """One token drawn."""

    token: int
    logprob: float
    """Natural log-probability under softmax(logits), before bias, penalties and filters."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids and their log-probabilities, likeliest first, the lower id first of equal ones."""


class Engine(Protocol):
    """A GPT-2 that can run several sequences at once.

    What it computes for a sequence depends on that sequence's tokens alone, and on which of them were given and which
    drawn: not on what else is in the call, nor on how a prompt was cut into calls.
    """

    config: ModelConfig

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values that a token of a sequence takes."""

    def new_sequence(self) -> int:
        """The handle of a new, empty sequence. It takes memory until :meth:`free_sequence`."""

    def fork_sequence(self, sequence: int) -> int:
        """The handle of a copy of ``sequence``: the same tokens so far, their keys and values shared."""

    def free_sequence(self, sequence: int) -> None:
        """Give back what ``sequence`` holds; its handle is invalid from then on."""

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of ``sequence``."""

    def forward(
        self,
        sequences: Sequence[int],
        tokens: Sequence[Sequence[int]],
        outputs: Outputs = "last",
        *,
        given: bool = True,
    ) -> npt.NDArray[np.float32]:
        """Feed ``tokens[i]`` (at least one) to ``sequences[i]`` (all different) and return logits.

        ``given`` says whether the tokens count as a prompt's or as drawn, see :meth:`step`.

        Returns float32 logits of the caller's own: ``[len(sequences), n_vocab]`` after the last token of each for
        ``"last"``; ``[sum of len(tokens[i]), n_vocab]`` for ``"all"``; ``[0, n_vocab]`` for ``"none"``.
        Raises :class:`~gpt2lab.errors.ContextError` if a sequence would hold more than ``n_ctx`` tokens.
        """

    def step(
        self,
        sequences: Sequence[int],
        tokens: Sequence[Sequence[int]],
        draws: Sequence[Draw | None],
        given: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """Feed ``tokens[i]`` (at least one) to ``sequences[i]`` (all different) and draw as ``draws[i]`` says.

        The first ``given[i]`` of ``tokens[i]`` (default: all) are of a prompt, the others were drawn or guessed. An
        engine may compute the two in different ways, a prompt's fastest for many, a continuation's for few; each way
        gives a token the same numbers whatever else is in the call.

        Nothing is drawn where it is None. Where its ``count`` is above 1 the first draw is from the logits before the
        first guess; as long as the token drawn is the guess that was fed, it joins the history and the next is drawn.
        So 1 to ``count`` tokens come back, the same as without guesses, and the sequence holds all that was fed; if
        anything is raised, every sequence is as it was.
        Raises :class:`~gpt2lab.errors.ContextError` if a sequence would hold more than ``n_ctx`` tokens,
        :class:`~gpt2lab.errors.SamplingError` for NaN or +inf logits or if no token is left to draw.
        """
