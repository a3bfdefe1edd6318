"""The C++ core; see native/bindings.cpp. :mod:`gpt2lab.engines.native` is what the rest of the package uses."""

from typing import Any

import numpy as np
import numpy.typing as npt

def instruction_sets() -> list[str]: ...
def philox_uniform(seed: int, stream: int, position: int) -> float: ...

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
    ) -> None: ...
    def set_embeddings(self, wte: npt.NDArray[np.float32], wpe: npt.NDArray[np.float32]) -> None: ...
    def set_norm(self, name: str, layer: int, gain: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None: ...
    def set_linear(
        self, name: str, layer: int, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
    ) -> None: ...
    def new_sequence(self) -> int: ...
    def fork_sequence(self, sequence: int) -> int: ...
    def free_sequence(self, sequence: int) -> None: ...
    def sequence_length(self, sequence: int) -> int: ...
    def truncate_sequence(self, sequence: int, length: int) -> None: ...
    def forward(
        self,
        sequences: npt.NDArray[np.int32],
        tokens: npt.NDArray[np.int32],
        counts: npt.NDArray[np.int32],
        outputs: int,
    ) -> npt.NDArray[np.float32]: ...
    def sample(
        self,
        logits: npt.NDArray[np.float32],
        params: npt.NDArray[np.float64],
        streams: npt.NDArray[np.uint64],
        history: npt.NDArray[Any],
        history_offsets: npt.NDArray[np.int64],
        bias_ids: npt.NDArray[Any],
        bias_values: npt.NDArray[Any],
        bias_offsets: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
    @property
    def threads(self) -> int: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def blocks_in_use(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
