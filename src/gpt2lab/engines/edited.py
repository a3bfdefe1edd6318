"""An engine that applies the same edits to every sequence, from its first token on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.engines.protocol import Engine


def edited(engine: Engine, edits: Sequence[Edit]) -> Engine:
    """Return ``engine`` with ``edits`` in every sequence that the returned engine makes."""
    return cast("Engine", _EditedEngine(engine, edits)) if edits else engine


class EditedEngines:
    """The engines of a model, with ``edits_of(engine)`` in every sequence; otherwise as ``engines``."""

    def __init__(self, engines: Engines, edits_of: Callable[[Engine], Sequence[Edit]]) -> None:
        self._engines = engines
        self._edits_of = edits_of
        self._edited: dict[int, Engine] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet while a copy is being made
            raise AttributeError(name)
        return getattr(self._engines, name)

    @property
    def generating(self) -> Engine:
        """The engine that generates text."""
        return self._of(self._engines.generating)

    @property
    def exact(self) -> Engine:
        """The engine for exact logits."""
        return self._of(self._engines.exact)

    def _of(self, engine: Engine) -> Engine:
        if id(engine) not in self._edited:
            self._edited[id(engine)] = edited(engine, self._edits_of(engine))
        return self._edited[id(engine)]


class _EditedEngine:
    def __init__(self, engine: Engine, edits: Sequence[Edit]) -> None:
        self._engine = engine
        self._edits = edits

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._engine, name)

    def new_sequence(self) -> int:
        return self._with_edits(self._engine.new_sequence())

    def write_sequence(self, values: npt.NDArray[np.number]) -> int:
        return self._with_edits(self._engine.write_sequence(values))

    def edit_sequence(self, sequence: int, edits: Sequence[Edit]) -> None:
        self._engine.edit_sequence(sequence, [*self._edits, *edits])

    def _with_edits(self, sequence: int) -> int:
        self._engine.edit_sequence(sequence, self._edits)
        return sequence
