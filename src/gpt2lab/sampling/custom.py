"""Custom sampling stages: the user's Python functions between the built-in stages.

A function gets copies, which it may change, and its result is checked. This module knows nothing of the built-in stages
except their names and order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpt2lab.errors import StageError, UsageError
from gpt2lab.sampling.declaration import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

StageFunction: TypeAlias = "Callable[[NDArray[np.float32], NDArray[np.int64]], Any]"
"""A function ``f(logits, tokens) -> logits``."""

_PLACES = ("model", *STAGES, "draw")


@dataclass(frozen=True)
class CustomStage:
    """A custom sampling stage, and its place among the built-in ones.

    The function is called as ``function(logits, tokens)`` once for each token drawn. ``logits`` is float32
    ``[n_vocab]``, the output of the previous stage; -inf rules a token out. ``tokens`` is int64 ``[n]``: the ids of the
    prompt and the completion so far. Both are copies that the function may change. It returns the logits for the next
    stage: ``[n_vocab]`` numbers of any precision. Samples run in batches, and tokens are guessed ahead, so the text is
    the same at any batch size only if the result depends on the arguments alone.

    Attributes:
        function: the stage.
        before, after: the name of a built-in stage, or ``after="model"`` for the first place and ``before="draw"`` for
            the last; give at most one. Default: before the temperature, so that the logits are the model's own with
            biases and penalties, and temperature 0 takes the most likely token that the function leaves.
    """

    function: StageFunction
    before: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(f"a stage must be a function f(logits, tokens), got {self.function!r}")
        if self.before is not None and self.after is not None:
            raise UsageError(f"stage {self.name}: give either before or after, not both")
        for where, place, places in (("before", self.before, _PLACES[1:]), ("after", self.after, _PLACES[:-1])):
            if place is not None and place not in places:
                raise UsageError(f"stage {self.name}: {where} must be one of {', '.join(places)}, got {place!r}")

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def place(self) -> str:
        """The next built-in stage, or ``draw``."""
        if self.after is not None:
            return _PLACES[_PLACES.index(self.after) + 1]
        return self.before or "temperature"

    def apply(
        self, logits: NDArray[np.float64], history: Sequence[int], ruled_out: Sequence[int] = ()
    ) -> NDArray[np.float64]:
        """Apply the function to ``logits [n_vocab]``; it cannot bring back the ids in ``ruled_out``.

        A logit that the function leaves unchanged keeps its float64 value: a filter rounds nothing. Raises
        :class:`~gpt2lab.errors.StageError`.
        """
        with np.errstate(over="ignore"):  # absurd penalties and temperatures overflow float32
            given = logits.astype(np.float32)
        try:
            returned = self.function(given.copy(), np.array(history, dtype=np.int64))
        except Exception as error:
            raise StageError(f"stage {self.name} failed after {len(history)} tokens: {_one_line(error)}") from error
        checked = self._checked(returned, given)
        changed = np.where(checked == given, logits, checked)
        changed[list(ruled_out)] = -np.inf
        if changed.max() == -np.inf:
            raise StageError(f"stage {self.name} ruled out every token: it must leave at least one logit above -inf")
        return changed

    def _checked(self, returned: Any, given: NDArray[np.float32]) -> NDArray[np.float64]:
        if returned is None:
            raise StageError(f"stage {self.name} returned None: it must return the logits")
        try:
            array = np.asarray(returned)
        except Exception as error:
            raise StageError(f"stage {self.name} must return an array of logits: {_one_line(error)}") from error
        if array.shape != given.shape or array.dtype.kind not in "fiu":
            what = f"an array of {array.dtype} with shape {list(array.shape)}"
            raise StageError(f"stage {self.name} must return {given.size} logits, one per token, got {what}")
        bad = ~(array < np.inf) & (array != given)
        if bad.any():
            token = int(np.argmax(bad))
            raise StageError(
                f"stage {self.name} returned {array[token]} as the logit of token {token}; use finite logits or -inf"
            )
        return array.astype(np.float64)


def custom_stages(given: Iterable[StageFunction | CustomStage]) -> tuple[CustomStage, ...]:
    """Wrap functions as stages at the default place. Raises :class:`~gpt2lab.errors.UsageError` for anything else."""
    if not isinstance(given, Iterable):
        raise UsageError(f"stages must be a list of functions f(logits, tokens), got {given!r}")
    return tuple(stage if isinstance(stage, CustomStage) else CustomStage(stage) for stage in given)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
