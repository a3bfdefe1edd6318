"""Measure the time to open a GGUF of the size of ``tales`` (25 MB, q8_0) and to read all of it as float32.

The bound is memory: the values are written once (4 bytes each), into fresh pages. Last line: JSON, milliseconds of
processor time, the best of 20 rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from gpt2lab.config import ModelConfig
from gpt2lab.weights import Checkpoint, convert, open_checkpoint, tensor_shapes

CONFIG = ModelConfig(n_ctx=512, n_embd=256, n_head=4, n_layer=12)


def main() -> None:
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in tensor_shapes(CONFIG).items()}
    made = Checkpoint(CONFIG, tensors, None, "made", "float32", Path("made"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.gguf"
        convert(made, path, precision="q8_0")
        rounds = [measure(path) for _ in range(20)]
        size = path.stat().st_size
    opened, read = (1000 * min(times) for times in zip(*rounds, strict=True))
    result = {"file_mb": size / 1e6, "open_ms": opened, "read_ms": read, "values": CONFIG.n_params}
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))


def measure(path: Path) -> tuple[float, float]:
    """Return the seconds to open the file, and to read every tensor; the tensors are kept, as an engine keeps them."""
    start = time.process_time()
    checkpoint = open_checkpoint(path)
    opened = time.process_time()
    kept = list(checkpoint.tensors.values())
    end = time.process_time()
    assert kept
    return opened - start, end - opened


if __name__ == "__main__":
    main()
