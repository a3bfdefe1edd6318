"""The C++ core; see native/bindings/. The rest of the package uses it through :mod:`gpt2lab.engines.native`."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

KV_BLOCK_TOKENS: int
PACKED_LAYOUT: int
PARTS: tuple[str, ...]

def checksum(data: memoryview | bytes, /) -> int: ...
def cpu_vendor() -> str: ...
def instruction_sets() -> list[str]: ...
def philox_uniform(seed: int, stream: int, position: int) -> float: ...

class TrainingCore:
    """The kernels for training, on NumPy arrays or CPU objects that export DLPack.

    Raises ValueError for arguments that do not fit, TypeError for other types.
    """

    has_tiles: bool
    """Whether the core uses a matrix unit, which ``*_tiles``, ``sum_rows`` and ``cross_entropy`` need."""

    def __init__(self, threads: int, instruction_set: str) -> None: ...
    def multiply(self, a: Any, b: Any, out: Any, bias: Any = None, add: bool = False, gelu: bool = False) -> None:
        """Compute ``out[m, n] = a[m, k] @ b[k, n] + bias[n]``, or ``out += a @ b`` with ``add``.

        ``gelu`` applies GELU to ``a`` first. Rows or columns of ``a`` and ``b`` and the rows of ``out`` are contiguous.
        """

    def gelu_gradient(self, x: Any, d: Any, out: Any) -> None:
        """Compute ``out = d * gelu'(x)``, matrices with contiguous rows; ``out`` may be one of the others."""

    def layer_norm(self, x: Any, gain: Any, bias: Any, epsilon: float, out: Any) -> None:
        """Write the layer norm of each row of ``x`` [rows, n] to ``out``; ``gain`` and ``bias`` [n]. All contiguous."""

    def layer_norm_gradient(self, x: Any, gain: Any, epsilon: float, d: Any, d_gain: Any, d_bias: Any) -> None:
        """Replace ``d`` [rows, n], the gradient of :meth:`layer_norm`'s output, by that of ``x``.

        Writes ``d_gain`` and ``d_bias`` [n].
        """

    def attend(self, qkv: Any, out: Any, log_sums: Any, scale: float | None = None) -> None:
        """Compute causal attention of ``qkv`` [batch, time, 3, n_head, head_dim].

        Scores are multiplied by ``scale`` (None: 1/√head_dim). Writes ``out`` [batch, time, n_head, head_dim], and
        ``log_sums``, the logarithms of the softmax's sums, [batch, n_head, time].
        """

    def attend_backward(self, qkv: Any, log_sums: Any, d_out: Any, d_qkv: Any, scale: float | None = None) -> None:
        """Write ``d_qkv``, which may be ``qkv``, from :meth:`attend`'s ``qkv`` and ``log_sums`` and from ``d_out``."""

    def multiply_tiles(
        self, a: Any, b: Any, out: Any, bias: Any = None, before: Any = None, gelu: bool = False
    ) -> None:
        """Compute ``out[m, n] = a[m, k] @ b[k, n] + bias[n] + before[m, n]`` with ``a`` and ``b`` rounded to bfloat16.

        ``a``, ``b`` and ``out`` are float32 or bfloat16, ``bias`` and ``before`` float32; ``before`` may be ``out``.
        ``gelu`` applies GELU to ``a`` first. Rows or columns of ``a`` and ``b`` and the rows of ``out`` are contiguous.
        """

    def attend_tiles(self, qkv: Any, out: Any, log_sums: Any, scale: float | None = None) -> None:
        """Compute :meth:`attend` of ``qkv`` and ``out`` in bfloat16."""

    def attend_tiles_backward(
        self, qkv: Any, log_sums: Any, d_out: Any, d_qkv: Any, scale: float | None = None
    ) -> None:
        """Compute :meth:`attend_backward` of ``qkv``, ``d_out`` and ``d_qkv`` in bfloat16."""

    def gelu_gradient_tiles(self, x: Any, d: Any) -> None:
        """Compute ``x = d * gelu'(x)`` of bfloat16 matrices with contiguous rows."""

    def sum_rows(self, x: Any, sums: Any) -> None:
        """Write to ``sums`` [n] the sum of the rows of ``x`` [rows, n], float32 or bfloat16."""

    def cross_entropy(self, logits: Any, targets: Any, losses: Any) -> None:
        """Write ``-log softmax(logits)[target]`` of each row to ``losses`` [rows].

        ``logits`` [rows, n], bfloat16, become the gradient of the sum of the losses; ``targets`` is int64 [rows].
        """

    def before_fork(self) -> None: ...
    def after_fork(self) -> None: ...

class DrawError(ValueError): ...

class Engine:
    def __init__(
        self,
        n_vocab: int,
        n_ctx: int,
        n_embd: int,
        n_head: int,
        n_layer: int,
        threads: int,
        instruction_set: str,
        precision: str,
        kv_precision: str,
        n_inner: int | None = None,
        activation: str = "gelu_new",
        layer_norm_epsilon: float = 1e-5,
        scale_attn_weights: bool = True,
        scale_attn_by_inverse_layer_idx: bool = False,
        tie_word_embeddings: bool = True,
    ) -> None: ...
    def set_tensor(self, name: str, values: npt.NDArray[np.float32], /) -> None: ...
    def set_integers(
        self,
        name: str,
        q: npt.NDArray[np.int8],
        scales: npt.NDArray[np.float32],
        factors: npt.NDArray[np.int8] | None,
    ) -> None: ...
    def mark_loaded(self) -> None: ...
    @property
    def packed(self) -> memoryview: ...
    @property
    def packed_size(self) -> int: ...
    def new_sequence(self) -> int: ...
    def fork_sequence(self, sequence: int, /) -> int: ...
    def free_sequence(self, sequence: int, /) -> None: ...
    def sequence_length(self, sequence: int, /) -> int: ...
    def truncate_sequence(self, sequence: int, length: int, /) -> None: ...
    def read_sequence(self, sequence: int, /) -> npt.NDArray[np.number]: ...
    def write_sequence(self, values: npt.NDArray[np.number], /) -> int: ...
    def trim_kv_cache(self) -> None: ...
    def keep_to_cores(self) -> None: ...
    def start_meters(self) -> None: ...
    def stop_meters(self) -> list[list[float]]: ...
    def before_fork(self) -> None: ...
    def after_fork(self) -> None: ...
    def forward(
        self,
        sequences: Sequence[int],
        tokens: Sequence[int],
        counts: Sequence[int],
        outputs: int,
        /,
    ) -> npt.NDArray[np.float32]: ...
    def edit_sequence(
        self, sequence: int, changes: Sequence[tuple[int, int, bool, int, int, int, npt.NDArray[np.float32]]], /
    ) -> None: ...
    def record(
        self, sequence: int, tokens: Sequence[int], sites: Sequence[int], first_layer: int, /
    ) -> list[npt.NDArray[np.float32]]: ...
    def unembed(self, x: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]: ...
    def compare(self, x: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]: ...
    def embedding_lengths(self) -> npt.NDArray[np.float32]: ...
    def token_row(self, token: int, output: bool, /) -> npt.NDArray[np.float32]: ...
    def pull_back(self, layer: int, direction: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]: ...
    def sample(
        self,
        logits: npt.NDArray[np.float32],
        params: array[float],
        streams: Sequence[int],
        history: Sequence[int],
        history_offsets: Sequence[int],
        bias_ids: array[int],
        bias_values: array[float],
        bias_offsets: array[int],
        /,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
    def step(
        self,
        sequences: Sequence[int],
        tokens: Sequence[int],
        counts: Sequence[int],
        draw_counts: Sequence[int],
        params: array[float],
        streams: Sequence[int],
        history: Sequence[int],
        history_offsets: Sequence[int],
        bias_ids: array[int],
        bias_values: array[float],
        bias_offsets: array[int],
        top: Sequence[int],
        /,
    ) -> tuple[list[int], list[float], list[int], list[int], list[float]]: ...
    @property
    def threads(self) -> int: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def emulates_fma(self) -> bool: ...
    @property
    def blocks_in_use(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
    @property
    def kv_bytes_held(self) -> int: ...
