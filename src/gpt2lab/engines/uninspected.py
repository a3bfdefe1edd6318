"""The inspecting methods of an engine that cannot look inside its model: each reports that as an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.engines.hooks import Edit, Site


class Uninspected:
    """Every method of :class:`~gpt2lab.engines.protocol.Inspection`; each raises :class:`UsageError`."""

    def edit_sequence(self, sequence: int, edits: Sequence[Edit]) -> None:
        """Refuse edits; an empty list is accepted."""
        if edits:
            _refuse()

    def record(
        self, sequence: int, tokens: Sequence[int], sites: Sequence[Site], first_layer: int = 0
    ) -> dict[Site, npt.NDArray[np.float32]]:
        """Refuse."""
        _refuse()

    def unembed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Refuse."""
        _refuse()

    def compare(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Refuse."""
        _refuse()

    def embedding_lengths(self) -> npt.NDArray[np.float32]:
        """Refuse."""
        _refuse()

    def token_row(self, token: int, output: bool) -> npt.NDArray[np.float32]:
        """Refuse."""
        _refuse()

    def pull_back(self, layer: int, direction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Refuse."""
        _refuse()


def _refuse() -> NoReturn:
    raise UsageError("PyTorch's engine cannot look inside the model or change it: use device cpu")
