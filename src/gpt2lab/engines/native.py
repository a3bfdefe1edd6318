"""The C++ core behind the engine protocol: GPT-2 on a CPU.

The engine packs a checkpoint's weights, then feeds tokens and draws samples. It knows nothing of text, prompts or
scheduling.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.draw_arguments import (
    NO_DRAW,
    ParamArrays,
    ParamCache,
    drawn_lists,
    penalised_histories,
    ragged,
)
from gpt2lab.engines.forks import let_fork
from gpt2lab.engines.loading import load_weights
from gpt2lab.engines.precision import check_pair, default_kv_precision
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.errors import ContextError, SamplingError, UsageError
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.system.cores import physical_cores
from gpt2lab.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.engines.hooks import Edit, Site

_OUTPUTS = {"last": 0, "all": 1, "none": 2}
_NO_NUMBERS = "seed, stream, position and the ids of the history must be whole numbers from 0, below 2^64"


class NativeEngine:
    """An engine that runs ``checkpoint`` on ``threads`` CPU threads (default: one per physical core).

    Matrices are held in ``precision``, keys and values in ``kv_precision`` (default: float32 with float32 weights,
    bfloat16 with bfloat16, else int8); see ``docs/precision.md``. Packed weights are cached: see
    :mod:`gpt2lab.engines.loading`.

    A row's logits depend only on its sequence: not on the other rows of a call, on how a text is cut into calls, or on
    the number of threads. The kernels are the fastest that the CPU can run; the environment variable ``GPT2LAB_ISA``
    (``amx``, ``avx512vnni``, ``avx512``, ``avxvnni``, ``avx2``, ``dotprod``, ``baseline``) selects others. Raises
    :class:`UsageError` for a bad number of threads or an instruction set that the CPU lacks,
    :class:`~gpt2lab.errors.CheckpointError` for a tensor that cannot be read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        threads: int | None = None,
        precision: str = "float32",
        kv_precision: str | None = None,
    ) -> None:
        self.config = checkpoint.config
        self._precision = precision
        self._params = ParamCache(checkpoint.config.n_vocab)
        threads = physical_cores() if threads is None else threads
        if not 1 <= threads <= 1024:
            raise UsageError(f"threads must be from 1 to 1024, got {threads}")
        kv_precision = kv_precision or default_kv_precision(precision)
        check_pair(precision, kv_precision)
        self._core = _native.Engine(
            **{name: value for name, value in self.config.to_hparams().items() if name != "reorder_and_upcast_attn"},
            threads=threads,
            instruction_set=asked_instruction_set(),
            precision=precision,
            kv_precision=kv_precision,
        )
        if self._core.emulates_fma and precision in ("float32", "bfloat16"):
            _warn_of_slowness()
        let_fork(self, self._core)
        try:
            load_weights(self._core, checkpoint, precision)
        except RuntimeError as error:
            raise UsageError(f"{threads} threads could not be started ({error}): use fewer") from None

    @property
    def threads(self) -> int:
        """CPU threads in use."""
        return int(self._core.threads)

    @property
    def instruction_set(self) -> str:
        """Name of the kernels in use."""
        return str(self._core.instruction_set)

    @property
    def device_memory(self) -> None:
        """Return None: keys and values are in the machine's memory."""

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values that the existing sequences hold; shared blocks count once."""
        return int(self._core.blocks_in_use * self._core.block_bytes)

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values per token of a full block."""
        return int(self._core.block_bytes // _native.KV_BLOCK_TOKENS)

    @property
    def kv_block_tokens(self) -> int:
        """The number of tokens in a block of keys and values; forks share blocks that are full."""
        return _native.KV_BLOCK_TOKENS

    def new_sequence(self) -> int:
        """Make an empty sequence; :meth:`free_sequence` releases its memory."""
        return int(self._core.new_sequence())

    def fork_sequence(self, sequence: int) -> int:
        """Make a new sequence with the same tokens so far; the two share memory until one of them grows."""
        return int(self._core.fork_sequence(sequence))

    def free_sequence(self, sequence: int) -> None:
        """Free a sequence."""
        self._core.free_sequence(sequence)

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of a sequence."""
        self._core.truncate_sequence(sequence, length)

    def read_sequence(self, sequence: int) -> npt.NDArray[np.number]:
        """Return a copy of the keys and values of a sequence: ``[n_layer, 2, n_head, n_tokens, head_dim]``.

        In int8 the last axis has four bytes more: the row's scale in float32.
        """
        values: npt.NDArray[np.number] = self._core.read_sequence(sequence)
        return values

    def write_sequence(self, values: npt.NDArray[np.number]) -> int:
        """Make a sequence with these keys and values, of the dtype in which the engine holds them."""
        try:
            return int(self._core.write_sequence(values))
        except OverflowError as error:
            raise ContextError(str(error)) from None

    def release_memory(self) -> None:
        """Return the memory that no sequence uses to the system.

        Without this call, up to 64 MB of it are kept once no sequence exists, and all of it while one does.
        """
        self._core.trim_kv_cache()

    def keep_to_cores(self) -> None:
        """Bind each thread to a core of its own from now on, if there are as many threads as usable cores.

        Beside threads that compute briefly but often, batches are a fifth faster; beside a program that keeps a core
        busy, they are a tenth slower. The calling thread is bound only during calls. Has an effect on Linux only.
        """
        self._core.keep_to_cores()

    def start_meters(self) -> None:
        """Begin to measure where forward passes spend their time."""
        self._core.start_meters()

    def stop_meters(self) -> dict[str, list[float]]:
        """Return, for each part of the passes since :meth:`start_meters`, the seconds of every thread.

        Without :meth:`start_meters`, there are none.
        """
        threads = self._core.stop_meters()
        return {part: [seconds[number] for seconds in threads] for number, part in enumerate(_native.PARTS)}

    def forward(
        self,
        sequences: Sequence[int],
        tokens: Sequence[Sequence[int]],
        outputs: Literal["last", "all", "none"] = "last",
    ) -> npt.NDArray[np.float32]:
        """Append ``tokens[i]`` to ``sequences[i]`` and return float32 logits.

        ``[len(sequences), n_vocab]`` for ``"last"``, ``[all tokens, n_vocab]`` for ``"all"``, ``[0, n_vocab]`` for
        ``"none"``. Raises :class:`ContextError` if a sequence would exceed ``n_ctx`` tokens.
        """
        try:
            return self._core.forward(
                sequences, [*chain.from_iterable(tokens)], [len(ids) for ids in tokens], _OUTPUTS[outputs]
            )
        except OverflowError as error:
            raise ContextError(str(error)) from None
        except IndexError as error:
            raise UsageError(str(error)) from None
        except TypeError as error:
            raise _no_numbers(sequences, tokens) from error

    def step(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
    ) -> list[list[Drawn]]:
        """Feed tokens and draw after them in one call of the core; see :meth:`gpt2lab.engines.protocol.Engine.step`.

        If anything is raised, the tokens fed are removed from the sequences.
        """
        wanted = [draw or NO_DRAW for draw in draws]
        counts = [len(ids) for ids in tokens]
        top = [min(draw.top, self.config.n_vocab) for draw in wanted]
        params = self._params.arrays([draw.params for draw in wanted])
        history, history_offsets = penalised_histories(wanted, params.penalised)
        try:
            ids, logprobs, drawn, top_ids, top_logprobs = self._core.step(
                sequences,
                [*chain.from_iterable(tokens)],
                counts,
                [draw.count for draw in wanted],
                params.numbers,
                [number for draw in wanted for number in (draw.seed, draw.stream, draw.position)],
                history,
                history_offsets,
                params.bias_ids,
                params.bias_values,
                params.bias_offsets,
                top,
            )
        except _native.DrawError as error:
            raise SamplingError(str(error)) from None
        except OverflowError as error:
            raise ContextError(str(error)) from None
        except IndexError as error:
            raise UsageError(str(error)) from None
        except TypeError as error:
            raise _no_numbers(sequences, tokens) from error
        return drawn_lists(ids, logprobs, drawn, top, top_ids, top_logprobs)

    def edit_sequence(self, sequence: int, edits: Sequence[Edit]) -> None:
        """Change activations in what is fed from now on; see :meth:`gpt2lab.engines.protocol.Inspection`."""
        from gpt2lab.engines.hooks import SITES

        changes = [
            (SITES.index(e.site), e.layer, e.add, e.column, e.first, 0 if e.every else len(e.values), e.values)
            for e in edits
        ]
        self._core.edit_sequence(sequence, changes)

    def record(
        self, sequence: int, tokens: Sequence[int], sites: Sequence[Site], first_layer: int = 0
    ) -> dict[Site, npt.NDArray[np.float32]]:
        """Feed tokens and return activations ``[layers, len(tokens), n_embd]`` of each site."""
        from gpt2lab.engines.hooks import SITES

        try:
            found = self._core.record(sequence, tokens, [SITES.index(site) for site in sites], first_layer)
        except OverflowError as error:
            raise ContextError(str(error)) from None
        except IndexError as error:
            raise UsageError(str(error)) from None
        except TypeError as error:
            raise _no_numbers([sequence], [tokens]) from error
        return dict(zip(sites, found, strict=True))

    def unembed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits ``[n, n_vocab]`` of rows of the residual stream."""
        return self._core.unembed(x)

    def compare(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the products ``[n, n_vocab]`` of rows with the embedding of every token."""
        return self._core.compare(x)

    def embedding_lengths(self) -> npt.NDArray[np.float32]:
        """Return the length of every token's embedding, ``[n_vocab]``."""
        return self._core.embedding_lengths()

    def token_row(self, token: int, output: bool) -> npt.NDArray[np.float32]:
        """Return a token's row ``[n_embd]`` of the embedding, or of the output matrix."""
        return self._core.token_row(token, output)

    def pull_back(self, layer: int, direction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``W @ direction`` for the output projection ``W`` of a layer's attention."""
        return self._core.pull_back(layer, direction)

    def sample(
        self,
        logits: npt.NDArray[np.float32],
        params: Sequence[SamplingParams],
        seeds: Sequence[int],
        streams: Sequence[int],
        positions: Sequence[int],
        histories: Sequence[Sequence[int]],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Draw one token per row of ``logits`` by the rules of :mod:`gpt2lab.sampling`.

        Returns ids int32 ``[n]`` and their natural log-probabilities under the unmodified logits, float32 ``[n]``.
        Raises :class:`SamplingError` for NaN or +inf logits or if no token is left to draw.
        """
        used = [h if p.penalises else () for p, h in zip(params, histories, strict=True)]
        try:
            arrays = ParamArrays.of(params, self.config.n_vocab)
            history, history_offsets = ragged(used)
            ids, logprobs = self._core.sample(
                logits,
                arrays.numbers,
                [*chain.from_iterable(zip(seeds, streams, positions, strict=True))],
                history,
                history_offsets,
                arrays.bias_ids,
                arrays.bias_values,
                arrays.bias_offsets,
            )
        except (ValueError, IndexError, OverflowError) as error:
            raise SamplingError(str(error)) from None
        except TypeError as error:
            raise SamplingError(_NO_NUMBERS) from error
        return ids, logprobs


def asked_instruction_set() -> str:
    """Return the instruction set that ``GPT2LAB_ISA`` names, or "". Raises UsageError for one that this CPU lacks."""
    name, available = os.environ.get("GPT2LAB_ISA", ""), _native.instruction_sets()
    if name and name not in available:
        raise UsageError(f"GPT2LAB_ISA is {name!r}, but this CPU has kernels for {', '.join(available)}")
    return name


def instruction_set() -> str:
    """Return the instruction set with which this process computes: the one asked for, or the fastest it may use."""
    smallest = ModelConfig(n_vocab=1, n_ctx=1, n_embd=1, n_head=1, n_layer=1)
    core = _native.Engine(
        **smallest.to_hparams(),
        threads=1,
        instruction_set=asked_instruction_set(),
        precision="float32",
        kv_precision="float32",
    )
    return str(core.instruction_set)


@functools.cache  # once in a process
def _warn_of_slowness() -> None:
    import logging

    logging.getLogger("gpt2lab").warning(
        "gpt2lab: the kernels in use (baseline) have no fused multiply-add and emulate it in float32 and bfloat16, so "
        "that the text is the same everywhere; this is many times slower, and int8 is faster"
    )


def _no_numbers(sequences: Sequence[int], tokens: Sequence[Sequence[int]]) -> UsageError | SamplingError:
    """Return the error to raise if the core cannot read the arguments of a step."""
    for ids in (sequences, *tokens):
        for id in ids:
            if not hasattr(id, "__index__") or not -(2**31) <= id < 2**31:
                return UsageError(f"token ids and sequences must be whole numbers below 2^31, got {ids}")
    return SamplingError(_NO_NUMBERS)
