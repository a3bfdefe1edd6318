"""PyTorch behind the engine protocol: GPT-2 on a GPU, or on a CPU for tests.

Tokens are fed in passes of a fixed number of rows (:mod:`gpt2lab.engines.pytorch_model`), padded if there are fewer.
So a row's numbers depend on its sequence alone, as in the native engine, though not to the same bits. This module knows
nothing of text, prompts or scheduling.
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gpt2lab.engines.forks import LockedCore, let_fork
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.engines.pytorch_blocks import BLOCK, SCRAP, Blocks
from gpt2lab.engines.pytorch_graphs import RECORDING, Graphs
from gpt2lab.engines.pytorch_model import DTYPES, TorchModel
from gpt2lab.engines.pytorch_sampler import Row, TorchSampler
from gpt2lab.engines.uninspected import Uninspected
from gpt2lab.errors import ContextError, SamplingError, UsageError, first_line
from gpt2lab.system.process import around_forks

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Outputs
    from gpt2lab.weights.checkpoint import Checkpoint

ROWS = {"cpu": 16, "cuda": 64, "mps": 64}
"""Rows of a pass on each type of device: about as many as a GPU computes in the time that it takes to read the weights.

A CPU takes time for each row."""

_LEAST_BLOCKS = 128 // BLOCK
"""The fewest blocks of keys that attention covers; then twice as many, and so on."""

# A child would wait for the parent's threads, which it lacks.
around_forks(after_in_child=partial(torch.set_num_threads, 1))


class TorchEngine(Uninspected):
    """An :class:`~gpt2lab.engines.protocol.Engine` that runs ``checkpoint`` in PyTorch.

    ``device`` is ``"cpu"``, ``"cuda"`` or ``"mps"``; the matrices are held in ``precision``, keys and values in
    ``kv_precision``. ``rows`` is the number of rows in a pass (default: :data:`ROWS`). It cannot look inside the model:
    those methods raise :class:`UsageError`. Every method, and opening it, raises MemoryError if the device has too
    little memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        precision: str,
        kv_precision: str,
        rows: int | None = None,
    ) -> None:
        self.config = checkpoint.config
        self.device = torch.device(device)
        self._n_rows = rows or ROWS[device]
        with _memory_errors():
            self._model = TorchModel(checkpoint, self.device, precision)
        self._hidden_of = Graphs(self._model.hidden) if device == "cuda" else self._model.hidden
        self._sampler = TorchSampler(self.config.n_vocab, self.device)
        self._blocks = Blocks(self.config, DTYPES[kv_precision], self.device)
        self._lock = Lock()
        let_fork(self, LockedCore(self._lock))
        self._ended: deque[int] = deque()  # to be freed: free_sequence must not wait for the lock

    @property
    def machine(self) -> str:
        """What the bits of the logits depend on besides the model and its precision."""
        kinds = {
            "cpu": torch.backends.cpu.get_cpu_capability,
            "cuda": torch.cuda.get_device_name,
            "mps": platform.machine,
        }
        return f"PyTorch {torch.__version__} on {self.device.type} ({kinds[self.device.type]()})"

    @property
    def device_memory(self) -> int | None:
        """Bytes that are free on a GPU with memory of its own; None: in the machine's memory."""
        return int(torch.cuda.mem_get_info()[0]) if self.device.type == "cuda" else None

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values that the existing sequences hold; shared blocks count once."""
        with self._alone():
            return self._blocks.n_in_use * BLOCK * self._blocks.bytes_per_token

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values per token of a full block."""
        return self._blocks.bytes_per_token

    @property
    def kv_block_tokens(self) -> int:
        """The number of tokens in a block of keys and values; forks share blocks that are full."""
        return BLOCK

    def new_sequence(self) -> int:
        """Make an empty sequence; :meth:`free_sequence` releases its memory."""
        with self._alone():
            return self._blocks.new()

    def fork_sequence(self, sequence: int) -> int:
        """Make a new sequence with the same tokens so far; the two share memory until one of them grows."""
        with self._alone():
            return self._blocks.fork(sequence)

    def free_sequence(self, sequence: int) -> None:
        """Free a sequence; the next call can reuse its memory."""
        self._ended.append(sequence)

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of a sequence."""
        with self._alone():
            self._blocks.truncate(sequence, length)

    def read_sequence(self, sequence: int) -> npt.NDArray[np.number]:
        """Return a copy of the keys and values of a sequence: ``[n_layer, 2, n_head, n_tokens, head_dim]``."""
        with self._alone():
            values: npt.NDArray[np.number] = self._blocks.read(sequence).cpu().numpy()
            return np.ascontiguousarray(values)

    def write_sequence(self, values: npt.NDArray[np.number]) -> int:
        """Make a sequence with these keys and values, of the dtype in which the engine holds them."""
        if values.shape[3] > self.config.n_ctx:
            raise ContextError(f"{values.shape[3]} tokens are more than the model's context of {self.config.n_ctx}")
        with self._alone():
            return self._blocks.write(torch.from_numpy(np.ascontiguousarray(values)))

    def release_memory(self) -> None:
        """Return the memory that no sequence uses to the device."""
        with suppress(MemoryError), self._alone():  # the smaller copy may not fit beside what is there
            self._blocks.shrink()
        if self.device.type == "cuda":
            with RECORDING:
                torch.cuda.empty_cache()

    def keep_to_cores(self) -> None:
        """Do nothing: the threads are PyTorch's."""

    def forward(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], outputs: Outputs = "last"
    ) -> npt.NDArray[np.float32]:
        """Feed tokens and return their logits; see :meth:`gpt2lab.engines.protocol.Engine.forward`."""
        wanted = [{"last": 1, "all": len(ids), "none": 0}[outputs] for ids in tokens]
        with self._fed(sequences, tokens, wanted) as logits:
            found: npt.NDArray[np.float32] = logits.cpu().numpy()
        return found

    def step(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
    ) -> list[list[Drawn]]:
        """Feed tokens and draw after them; see :meth:`gpt2lab.engines.protocol.Engine.step`."""
        for ids, draw in zip(tokens, draws, strict=True):
            if draw and not (1 <= draw.count <= len(ids) and draw.top >= 0):
                raise SamplingError(
                    f"cannot draw {draw.count} times, with {draw.top} ids each, after {len(ids)} tokens"
                )
        counts = [draw.count if draw else 0 for draw in draws]
        rows = [row for ids, draw in zip(tokens, draws, strict=True) if draw for row in _rows_of(ids, draw)]
        with self._fed(sequences, tokens, counts) as logits:
            found = self._sampler.draw(logits, rows) if rows else []
            ends = np.cumsum(counts)
            return [
                self._kept(logits[end - count : end], rows[end - count : end], found[end - count : end], ids)
                for end, count, ids in zip(ends, counts, tokens, strict=True)
            ]

    def _kept(
        self, logits: Tensor, rows: Sequence[Row], found: Sequence[Drawn | None], fed: Sequence[int]
    ) -> list[Drawn]:
        """Return the draws of one sequence up to the first that differs from the token fed after it."""
        kept: list[Drawn] = []
        guesses = [*fed[len(fed) - len(rows) + 1 :], None]
        for row, drawn, guess, numbers in zip(rows, found, guesses, logits, strict=False):
            if drawn is None:
                raise self._sampler.error(numbers, row)
            kept.append(drawn)
            if drawn.token != guess:
                break
        return kept

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out, after freeing what has ended."""
        with self._lock, _memory_errors():
            while self._ended:
                self._blocks.free(self._ended.popleft())
            yield

    @contextmanager
    def _fed(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], wanted: Sequence[int]
    ) -> Iterator[Tensor]:
        """Feed tokens; provide the logits after the last ``wanted[i]`` of each sequence, ``[sum(wanted), n_vocab]``.

        If anything is raised, here or in the block, every sequence stays as it was.
        """
        with self._alone():
            ids = self._checked(sequences, tokens)
            lengths = [self._blocks.held(sequence).length for sequence in sequences]
            ends = {s: n + len(row) for s, n, row in zip(sequences, lengths, ids, strict=True)}
            if ends and max(ends.values()) > self.config.n_ctx:
                raise ContextError(
                    f"{max(ends.values())} tokens are more than the model's context of {self.config.n_ctx}"
                )
            try:
                self._blocks.reserve(ends)
                yield self._logits(self._hidden(sequences, ids, lengths, wanted))
            except BaseException:
                for sequence, length in zip(sequences, lengths, strict=True):
                    self._blocks.truncate(sequence, length)
                raise
            for sequence, end in ends.items():
                self._blocks.held(sequence).length = end

    def _checked(self, sequences: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[npt.NDArray[np.int64]]:
        """Return the tokens as arrays."""
        if len({*sequences}) < len(sequences):
            raise ValueError("a sequence cannot be fed twice in a call")
        arrays = []
        for row in tokens:
            ids = np.asarray(row)
            if not ids.size or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.config.n_vocab:
                raise UsageError(f"token ids must be whole numbers from 0 to {self.config.n_vocab - 1}, got {row}")
            arrays.append(ids.astype(np.int64))
        return arrays

    def _hidden(
        self,
        sequences: Sequence[int],
        ids: Sequence[npt.NDArray[np.int64]],
        lengths: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Run the passes; return the hidden states of the rows whose logits are wanted, ``[sum(wanted), n_embd]``."""
        if not sequences:
            return self._model.wte.new_empty((0, self.config.n_embd))
        counts = [len(row) for row in ids]
        owners = np.repeat(np.asarray(sequences), counts)
        tokens = np.concatenate(ids)
        positions = np.concatenate([np.arange(n, n + count) for n, count in zip(lengths, counts, strict=True)])
        is_wanted = np.concatenate([np.arange(count) >= count - n for n, count in zip(wanted, counts, strict=True)])
        found = []
        for first in range(0, len(tokens), self._n_rows):
            part = slice(first, first + self._n_rows)
            hidden = self._pass(owners[part], tokens[part], positions[part])
            if is_wanted[part].any():
                found.append(hidden[torch.from_numpy(np.flatnonzero(is_wanted[part])).to(self.device)])
        return torch.cat(found) if found else self._model.wte.new_empty((0, self.config.n_embd))

    def _pass(
        self, owners: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
    ) -> Tensor:
        """Run one pass; return the hidden states ``[self._n_rows, n_embd]``, those of the rows given first."""
        n_blocks = _LEAST_BLOCKS
        while n_blocks * BLOCK <= positions.max():
            n_blocks *= 2
        rows = np.zeros((self._n_rows, 2 + n_blocks), np.int64)
        rows[: len(tokens), 0] = tokens
        rows[: len(tokens), 1] = positions
        rows[:, 2] = SCRAP
        rows[: len(tokens), 2:] = self._blocks.table(owners.tolist(), n_blocks)
        return self._hidden_of(self._blocks.cache, torch.from_numpy(rows).to(self.device))

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return the logits ``[n, n_vocab]`` of hidden states ``[n, n_embd]``, in passes of their own."""
        n = len(hidden)
        padded = torch.nn.functional.pad(hidden, (0, 0, 0, -n % self._n_rows))
        parts = [self._model.logits(part) for part in padded.split(self._n_rows)] if n else []
        return torch.cat(parts)[:n] if parts else hidden.new_empty((0, self.config.n_vocab))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise PyTorch's errors of lacking memory as MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):  # the latter: mps
            raise
        raise MemoryError(first_line(error)) from None


def _rows_of(fed: Sequence[int], draw: Draw) -> list[Row]:
    """Return a row for each draw, as if all guesses before it were right."""
    guesses = list(fed[len(fed) - draw.count + 1 :])
    return [
        Row(draw.params, draw.seed, draw.stream, draw.position + n, [*draw.history, *guesses[:n]], draw.top)
        for n in range(draw.count)
    ]
