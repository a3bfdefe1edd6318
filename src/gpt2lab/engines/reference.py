"""An engine made of :mod:`gpt2lab.reference` and :mod:`gpt2lab.sampling.rules`: slow, simple, for comparison.

Every sequence is computed by itself, so other sequences cannot affect it. Keys and values are whole NumPy arrays
that are never changed in place, so a fork shares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab import reference
from gpt2lab.engines.hooks import Edit, Site, apply_all
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.engines.python_draws import draw_rows

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Outputs
    from gpt2lab.weights.checkpoint import Checkpoint


class ReferenceEngine:
    """An :class:`~gpt2lab.engines.protocol.Engine` that runs on NumPy; all weights are held as float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self._weights = dict(checkpoint.tensors)
        self._handles = count()
        self._past: dict[int, npt.NDArray[np.float32]] = {}  # [n_layer, 2, n_head, n_seq, head_dim]
        self._edits: dict[int, tuple[Edit, ...]] = {}

    @property
    def n_sequences(self) -> int:
        """The number of sequences held."""
        return len(self._past)

    @property
    def device_memory(self) -> None:
        """Return None: keys and values are in the machine's memory."""

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values per token."""
        return self.config.kv_cache_bytes(1)

    @property
    def kv_block_tokens(self) -> int:
        """Return 0: a sequence that grows is copied as a whole."""
        return 0

    def new_sequence(self) -> int:
        """Make an empty sequence."""
        config = self.config
        return self._hold(np.zeros((config.n_layer, 2, config.n_head, 0, config.head_dim), np.float32))

    def fork_sequence(self, sequence: int) -> int:
        """Make a sequence with the same tokens, sharing their keys and values."""
        fork = self._hold(self._past[sequence])
        self.edit_sequence(fork, self._edits.get(sequence, ()))
        return fork

    def free_sequence(self, sequence: int) -> None:
        """Free a sequence."""
        del self._past[sequence]
        self._edits.pop(sequence, None)

    def read_sequence(self, sequence: int) -> npt.NDArray[np.number]:
        """Return a copy of the keys and values of a sequence: float32 ``[n_layer, 2, n_head, n_tokens, head_dim]``."""
        return np.array(self._past[sequence])

    def write_sequence(self, values: npt.NDArray[np.number]) -> int:
        """Make a sequence with these keys and values."""
        return self._hold(values.astype(np.float32))

    def release_memory(self) -> None:
        """Do nothing: NumPy returns the memory of freed sequences."""

    def keep_to_cores(self) -> None:
        """Do nothing: the threads are NumPy's."""

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self._past[sequence] = self._past[sequence][:, :, :, :length].copy()  # a view would hold all of it

    def forward(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], outputs: Outputs = "last"
    ) -> npt.NDArray[np.float32]:
        """Feed tokens and return their logits; see :meth:`gpt2lab.engines.protocol.Engine.forward`."""
        rows = [np.empty((0, self.config.n_vocab), np.float32)]
        with self._all_or_nothing(sequences):
            for sequence, ids in zip(sequences, tokens, strict=True):
                logits = self._feed(sequence, ids)  # [len(ids), n_vocab]
                if outputs != "none":
                    rows.append(logits if outputs == "all" else logits[-1:])
        return np.concatenate(rows)

    def step(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
    ) -> list[list[Drawn]]:
        """Feed tokens and draw after them; see :meth:`gpt2lab.engines.protocol.Engine.step`."""
        drawn: list[list[Drawn]] = []
        with self._all_or_nothing(sequences):
            for sequence, ids, draw in zip(sequences, tokens, draws, strict=True):
                logits = self._feed(sequence, ids)  # [len(ids), n_vocab]
                drawn.append([*draw_rows(logits[-draw.count :], ids[-draw.count :], draw)] if draw else [])
        return drawn

    def edit_sequence(self, sequence: int, edits: Sequence[Edit]) -> None:
        """Change activations in what is fed from now on; see :meth:`gpt2lab.engines.protocol.Inspection`."""
        self._edits[sequence] = tuple(edits)

    def record(
        self, sequence: int, tokens: Sequence[int], sites: Sequence[Site], first_layer: int = 0
    ) -> dict[Site, npt.NDArray[np.float32]]:
        """Feed tokens and return activations ``[layers, len(tokens), n_embd]`` of each site."""
        recorded: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
        self._feed(sequence, tokens, recorded)
        layers = range(first_layer, self.config.n_layer)
        empty = np.empty((0, len(tokens), self.config.n_embd), np.float32)
        found = {site: np.stack([recorded[site, n] for n in layers]) if layers else empty for site in sites}
        if "resid_pre" in found:
            found["resid_pre"] = np.concatenate([found["resid_pre"], recorded["resid_pre", self.config.n_layer][None]])
        return found

    def unembed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits ``[n, n_vocab]`` of rows of the residual stream."""
        return reference.unembed(self._weights, self.config, x)

    def compare(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the products ``[n, n_vocab]`` of rows with the embedding of every token."""
        products: npt.NDArray[np.float32] = x @ self._weights["wte.weight"].T
        return products

    def embedding_lengths(self) -> npt.NDArray[np.float32]:
        """Return the length of every token's embedding, ``[n_vocab]``."""
        lengths: npt.NDArray[np.float32] = np.linalg.norm(self._weights["wte.weight"], axis=-1)
        return lengths

    def token_row(self, token: int, output: bool) -> npt.NDArray[np.float32]:
        """Return a token's row ``[n_embd]`` of the embedding, or of the output matrix."""
        matrix = reference.output_matrix(self._weights, self.config) if output else self._weights["wte.weight"]
        return np.array(matrix[token])

    def pull_back(self, layer: int, direction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``W @ direction`` for the output projection ``W`` of a layer's attention."""
        back: npt.NDArray[np.float32] = self._weights[f"h.{layer}.attn.c_proj.weight"] @ direction
        return back

    @contextmanager
    def _all_or_nothing(self, sequences: Sequence[int]) -> Iterator[None]:
        """Restore ``sequences`` as they were if anything is raised."""
        before = {sequence: self._past[sequence] for sequence in sequences}
        try:
            yield
        except BaseException:
            self._past |= before
            raise

    def _hold(self, past: npt.NDArray[np.float32]) -> int:
        handle = next(self._handles)
        self._past[handle] = past
        return handle

    def _feed(
        self, sequence: int, ids: Sequence[int], recorded: dict[tuple[str, int], npt.NDArray[np.float32]] | None = None
    ) -> npt.NDArray[np.float32]:
        past = self._past[sequence]
        edits, position = self._edits.get(sequence, ()), past.shape[-2]

        def hook(site: str, layer: int, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            x = apply_all(edits, site, layer, x, position)
            if recorded is not None:
                recorded[site, layer] = x
            return x

        logits, present = reference.forward(self._weights, self.config, ids, past, hook)
        self._past[sequence] = np.concatenate([past, present], axis=-2)
        return logits
