"""Time looking inside a model at one token: the logit lens, attention, contributions and neighbours.

    python benchmarks/inside.py --model_name 124M --tokens 100

Prints medians in milliseconds: of a text that is read as a whole, as a client that opens a text asks for it, and of one
whose earlier tokens are kept, as when a reader walks through it. With ``--shape 124M`` the model has random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import gpt2lab
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.inside.neighbours import nearest
from gpt2lab.inside.tracing import Trace, trace, trace_more


def look(model: gpt2lab.LanguageModel, found: Trace) -> None:
    """Compute everything that a panel shows of the last token."""
    token = int(found.lens()[-1].argmax())
    assert np.isfinite(found.attention).all()
    found.contributions(token)
    engine = model.exact_engine
    nearest(engine, engine.token_row(token, False), 10, [token])


def whole(model: gpt2lab.LanguageModel, ids: list[int]) -> None:
    """Look at the last token of a text that is read from its start."""
    look(model, trace(model.exact_engine, model.checkpoint, ids, last=1))


def continued(model: gpt2lab.LanguageModel, sequence: int, ids: list[int]) -> None:
    """Look at the last token of a text whose other tokens ``sequence`` holds."""
    engine = model.exact_engine
    engine.truncate_sequence(sequence, len(ids) - 1)
    look(model, trace_more(engine, model.checkpoint, sequence, len(ids) - 1, ids, last=1))


def milliseconds(work: Callable[[], None], times: int) -> float:
    """Return the median time of ``work`` after a first run."""
    work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


def random_model(size: str, folder: Path) -> Path:
    """Write a checkpoint of a released size with random weights, and return its folder."""
    from gpt2lab.config import RELEASED_SIZES
    from gpt2lab.weights.checkpoint import tensor_shapes
    from gpt2lab.weights.precisions import PRECISIONS
    from gpt2lab.weights.safetensors_file import write_safetensors
    from gpt2lab.weights.writing import NewTensor

    config, rng = RELEASED_SIZES[size], np.random.default_rng(0)

    def random(shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
        return lambda: (0.02 * rng.standard_normal(int(np.prod(shape)), np.float32)).astype(np.float32)

    tensors = [
        NewTensor(name, shape, PRECISIONS["float32"], random(shape)) for name, shape in tensor_shapes(config).items()
    ]
    with (folder / "model.safetensors").open("wb") as file:
        write_safetensors(file, tensors)
    text = f'{{"model_type": "gpt2", "vocab_size": {config.n_vocab}, "n_positions": {config.n_ctx}, '
    text += f'"n_embd": {config.n_embd}, "n_head": {config.n_head}, "n_layer": {config.n_layer}}}'
    (folder / "config.json").write_text(text)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model_name", default="tales")
    parser.add_argument("--shape", choices=["124M", "355M", "774M", "1558M"], help="a size, with random weights")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        name = random_model(arguments.shape, Path(folder)) if arguments.shape else arguments.model_name
        model = gpt2lab.load(name, precision=arguments.precision, threads=arguments.threads)
        ids = [(7 * i * i + 3 * i) % min(50000, model.config.n_vocab) for i in range(arguments.tokens)]
        engine = model.exact_engine
        shown = f"{arguments.shape} with random weights" if arguments.shape else name
        print(f"{shown}, {arguments.precision}, {arguments.tokens} tokens, {arguments.threads} threads")
        print(f"read from the start: {milliseconds(lambda: whole(model, ids), arguments.times):.0f} ms")
        with new_sequence(engine) as sequence:
            engine.forward([sequence], [ids], "none")
            print(
                f"earlier tokens kept: {milliseconds(lambda: continued(model, sequence, ids), arguments.times):.0f} ms"
            )


if __name__ == "__main__":
    main()
