"""The interface of an engine that computes GPT-2.

An engine holds weights and KV caches, turns token ids into logits, and draws the next ids. It knows nothing of text,
of requests, or of checkpoint formats. :mod:`gpt2lab.generation.scheduler` drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.hooks import Edit, Site
    from gpt2lab.sampling.custom import CustomStage
    from gpt2lab.sampling.declaration import SamplingParams

Outputs = Literal["last", "all", "none"]
"""The fed tokens whose logits are returned."""


@dataclass(slots=True)
class Draw:
    """Instructions to draw from the logits of the last ``count`` tokens that a step feeds to a sequence."""

    params: SamplingParams
    seed: int
    stream: int
    """Number of the random stream of ``seed``."""
    position: int
    """Position of the first draw in the stream; each later draw's is one more."""
    history: Sequence[int] = ()
    """Ids so far, as of the first draw, for penalties and ``stages``; may be empty if there are none of these."""
    count: int = 1
    """At least 1, at most the number of tokens fed. Above 1, the last ``count - 1`` of these are guesses."""
    top: int = 0
    """The number of likeliest ids to report with each draw."""
    stages: Sequence[CustomStage] = ()
    """The user's own stages. An engine need not support them: see :mod:`gpt2lab.generation.custom_draws`."""


class Drawn(NamedTuple):
    """One drawn token."""

    token: int
    logprob: float
    """Natural log-probability under softmax(logits), before bias, penalties and filters."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids and their log-probabilities, likeliest first; of equal ones, the lower id first."""


class Inspection(Protocol):
    """An engine's functions for looking inside: activations, and single rows of its weights, in its precision."""

    def edit_sequence(self, sequence: int, edits: Sequence[Edit]) -> None:
        """Change the activations of every token that is fed to ``sequence`` from now on; its forks inherit it.

        An edit that sets numbers to what they were, or adds zeros, changes no logit.
        """

    def record(
        self, sequence: int, tokens: Sequence[int], sites: Sequence[Site], first_layer: int = 0
    ) -> dict[Site, npt.NDArray[np.float32]]:
        """Feed ``tokens`` to ``sequence`` and return the activations at ``sites``, from ``first_layer`` on.

        Each is float32 ``[n_layer - first_layer, len(tokens), n_embd]``, that of ``resid_pre`` one layer longer.
        """

    def unembed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits ``[n, n_vocab]`` of rows ``[n, n_embd]`` of the residual stream, as if no layer followed.

        For the last rows that were recorded they are those of :meth:`Engine.forward`, to the bit.
        """

    def compare(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the products ``[n, n_vocab]`` of rows ``[n, n_embd]`` with the embedding of every token."""

    def embedding_lengths(self) -> npt.NDArray[np.float32]:
        """Return the Euclidean length of every token's embedding, ``[n_vocab]``."""

    def token_row(self, token: int, output: bool) -> npt.NDArray[np.float32]:
        """Return a token's row ``[n_embd]`` of the embedding, or of the ``output`` matrix."""

    def pull_back(self, layer: int, direction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``W @ direction [n_embd]``, with ``W [n_embd, n_embd]`` the output projection of a layer's attention.

        Each number says how far a unit of ``z`` moves the residual stream along ``direction``.
        """


class Engine(Inspection, Protocol):
    """A GPT-2 that can run several sequences at once.

    The results for a sequence depend only on that sequence's tokens: not on the rest of the call, nor on how the tokens
    were split into calls.
    """

    config: ModelConfig

    @property
    def device_memory(self) -> int | None:
        """Bytes that are free for keys and values on a device with memory of its own; None: in the machine's memory."""

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values per token of a sequence."""

    @property
    def kv_block_tokens(self) -> int:
        """The number of tokens in a block of keys and values; 0 if forks share nothing once they grow.

        Forks share the blocks that were full when they were made.
        """

    def new_sequence(self) -> int:
        """Return the handle of a new, empty sequence. It takes memory until :meth:`free_sequence`."""

    def fork_sequence(self, sequence: int) -> int:
        """Return the handle of a copy of ``sequence``: the same tokens so far, their keys and values shared."""

    def free_sequence(self, sequence: int) -> None:
        """Free everything that ``sequence`` holds; its handle is invalid from then on."""

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of ``sequence``."""

    def read_sequence(self, sequence: int) -> npt.NDArray[np.number]:
        """Return a copy of the keys and values of ``sequence``: ``[n_layer, 2, n_head, n_tokens, head_dim]``.

        They have the dtype in which the engine holds them: float32, float16, uint16 (the bits of bfloat16) or int8. In
        int8 the last axis has four bytes more: the row's scale in float32.
        """

    def write_sequence(self, values: npt.NDArray[np.number]) -> int:
        """Return the handle of a new sequence with these keys and values, as :meth:`read_sequence` returned them."""

    def release_memory(self) -> None:
        """Return the memory of keys and values that no sequence uses to the system."""

    def keep_to_cores(self) -> None:
        """Bind each thread to a core of its own from now on, if there are as many threads as usable cores.

        A hint for programs in which other threads compute too, briefly but often, as a server's event loop does.
        """

    def forward(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], outputs: Outputs = "last"
    ) -> npt.NDArray[np.float32]:
        """Feed ``tokens[i]`` (at least one) to ``sequences[i]`` (all different) and return logits.

        Returns float32 logits that the caller owns: ``[len(sequences), n_vocab]`` after the last token of each for
        ``"last"``; ``[sum of len(tokens[i]), n_vocab]`` for ``"all"``; ``[0, n_vocab]`` for ``"none"``.
        Raises :class:`~gpt2lab.errors.ContextError` if a sequence would hold more than ``n_ctx`` tokens.
        """

    def step(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
    ) -> list[list[Drawn]]:
        """Feed ``tokens[i]`` (at least one) to ``sequences[i]`` (all different) and draw as ``draws[i]`` says.

        If ``draws[i]`` is None, nothing is drawn. If its ``count`` is above 1, the first draw is from the logits before
        the first guess; as long as the token drawn equals the guess that was fed, it joins the history and the next is
        drawn. So 1 to ``count`` tokens are returned, the same as without guesses, and the sequence holds all tokens
        fed. If anything is raised, every sequence stays as it was.
        Raises :class:`~gpt2lab.errors.ContextError` if a sequence would hold more than ``n_ctx`` tokens,
        :class:`~gpt2lab.errors.SamplingError` for NaN or +inf logits or if no token is left to draw.
        """
