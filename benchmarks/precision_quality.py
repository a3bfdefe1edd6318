"""Measure the precisions' quality on a text: their next-token distributions beside float32's.

    python benchmarks/precision_quality.py --text FILE_OR_FOLDER [--model tales] [--held_out 0.025] [--tokens 20000]
                                           [--outliers 20]

Every engine reads the same windows of ``n_ctx`` tokens. Prints for each the perplexity and its difference from
float32's (± the standard error of that difference), the Kullback-Leibler divergence of its distributions from float32's
in nats (mean and 99th percentile over positions), and how often the likeliest token is the same. The last line is JSON.
``--held_out`` takes the part of the text that ``gpt2lab train`` holds out. ``--outliers`` multiplies three gains of
each layer's norms, and divides the weights that they feed by as much: the same model in exact arithmetic, with large
inputs as real GPT-2s have them. Needs the extra ``train``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpt2lab.data.open import open_documents
from gpt2lab.data.split import hold_out
from gpt2lab.data.windows import Ring
from gpt2lab.engines.native import NativeEngine
from gpt2lab.model import tokenizer_of
from gpt2lab.sampling.rules import log_softmax
from gpt2lab.system.cores import physical_cores
from gpt2lab.weights import Checkpoint, open_checkpoint

ENGINES = [  # precisions of weights and of keys and values; the first is what others are compared with
    ("float32", "float32"),
    ("float32", "float16"),
    ("float32", "int8"),
    ("bfloat16", "float32"),
    ("bfloat16", "float16"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "int8"),
    ("int8", "float32"),
    ("int8", "float16"),
    ("int8", "int8"),
    ("int4", "float32"),
    ("int4", "float16"),
    ("int4", "int8"),
]
CHUNK = 64  # tokens whose logits are held at a time
Array = NDArray[np.float64]


@dataclass
class Figures:
    """The numbers of one engine, one for each position."""

    loss: list[Array] = field(default_factory=list)  # -ln p(next token)
    divergence: list[Array] = field(default_factory=list)  # nats
    same_top: list[NDArray[np.bool_]] = field(default_factory=list)

    def report(self, reference: Figures) -> dict[str, float]:
        loss, reference_loss = np.concatenate(self.loss), np.concatenate(reference.loss)
        change = loss - reference_loss
        divergence = np.concatenate(self.divergence)
        return {
            "perplexity": math.exp(loss.mean()),
            "change_percent": 100 * math.expm1(change.mean()),
            "standard_error_percent": 100 * change.std() / math.sqrt(len(change)),
            "kl_mean": divergence.mean(),
            "kl_99": float(np.quantile(divergence, 0.99)),
            "same_top_percent": 100 * np.concatenate(self.same_top).mean(),
        }


def read_tokens(paths: list[str], checkpoint: Checkpoint, held_out: float | None) -> NDArray[np.int32]:
    """Return all documents in a row, with ``<|endoftext|>`` before each."""
    tokenizer = tokenizer_of(checkpoint)
    if tokenizer is None or tokenizer.end_of_text is None:
        raise SystemExit("precision_quality: the model needs a tokenizer with an end of text")
    documents = open_documents(paths, tokenizer)
    if held_out is None:
        ring: Ring | None = Ring(documents, separator=tokenizer.end_of_text)
    else:
        _, ring = hold_out(documents, held_out, seed=0, separator=tokenizer.end_of_text)
    if ring is None:
        raise SystemExit("precision_quality: too little text to hold anything out")
    return ring.take(np.arange(len(ring)))[0].astype(np.int32)


def with_outliers(checkpoint: Checkpoint, factor: float) -> Checkpoint:
    """Return the same model with three large gains in each layer's norms, and small weights after them."""
    tensors = {name: np.array(tensor, np.float32) for name, tensor in checkpoint.tensors.items()}
    random = np.random.default_rng(0)
    for layer in range(checkpoint.config.n_layer):
        for norm, behind in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            chosen = random.choice(checkpoint.config.n_embd, 3, replace=False)
            for part in ("weight", "bias"):
                tensors[f"h.{layer}.{norm}.{part}"][chosen] *= factor
            tensors[f"h.{layer}.{behind}.weight"][chosen] /= factor
    return replace(checkpoint, tensors=tensors, files=())


def windows(tokens: NDArray[np.int32], n_ctx: int, n_tokens: int) -> Iterator[NDArray[np.int32]]:
    """Yield windows of ``n_ctx + 1`` tokens, spread over the text, with ``n_tokens`` targets if there are that many."""
    length = min(n_ctx, len(tokens) - 1)
    count = max(1, min(n_tokens // length, (len(tokens) - 1) // length))
    for start in np.linspace(0, len(tokens) - 1 - length, count).astype(int):
        yield tokens[start : start + length + 1]


def read_window(engines: list[NativeEngine], figures: list[Figures], window: NDArray[np.int32]) -> None:
    sequences = [engine.new_sequence() for engine in engines]
    for start in range(0, len(window) - 1, CHUNK):
        inputs = window[start : min(start + CHUNK, len(window) - 1)]
        targets = window[start + 1 : start + 1 + len(inputs), None]
        for engine, sequence, numbers in zip(engines, sequences, figures, strict=True):
            logits = engine.forward([sequence], [inputs.tolist()], "all")  # [len(inputs), n_vocab]
            logprobs = log_softmax(logits)
            if numbers is figures[0]:
                expected, probabilities, top = logprobs, np.exp(logprobs), logprobs.argmax(axis=-1)
            numbers.loss.append(-np.take_along_axis(logprobs, targets, axis=-1)[:, 0])
            numbers.divergence.append((probabilities * (expected - logprobs)).sum(axis=-1))
            numbers.same_top.append(logprobs.argmax(axis=-1) == top)
    for engine, sequence in zip(engines, sequences, strict=True):
        engine.free_sequence(sequence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text", nargs="+", required=True, help="text files or folders of .txt; each file is a document"
    )
    parser.add_argument("--model", default="tales", help="a path or a name, as everywhere")
    parser.add_argument(
        "--held_out", type=float, metavar="FRACTION", help="use only the part that training with it holds out"
    )
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens to predict (default: 20000)")
    parser.add_argument("--outliers", type=float, metavar="FACTOR", help="plant outliers this many times as large")
    parser.add_argument("--threads", type=int, default=physical_cores())
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.model)
    tokens = read_tokens(arguments.text, checkpoint, arguments.held_out)
    if arguments.outliers is not None:
        checkpoint = with_outliers(checkpoint, arguments.outliers)
    engines = [
        NativeEngine(checkpoint, precision=precision, kv_precision=kv_precision, threads=arguments.threads)
        for precision, kv_precision in ENGINES
    ]
    figures = [Figures() for _ in ENGINES]
    for window in windows(tokens, checkpoint.config.n_ctx, arguments.tokens):
        read_window(engines, figures, window)
    reports = {
        f"{precision} kv {kv_precision}": numbers.report(figures[0])
        for (precision, kv_precision), numbers in zip(ENGINES, figures, strict=True)
    }
    print_table(reports)
    header = {
        "model": arguments.model,
        "stored_in": checkpoint.precision,
        "outliers": arguments.outliers,
        "instruction_set": engines[0].instruction_set,
    }
    header["tokens"] = sum(map(len, figures[0].loss))
    print(json.dumps({**header, "precisions": reports}))


def print_table(reports: dict[str, dict[str, float]]) -> None:
    print(f"{'':26} {'perplexity':>10} {'change %':>18} {'KL mean':>9} {'KL 99 %':>9} {'same top %':>10}")
    for variant, values in reports.items():
        change = f"{values['change_percent']:+.3f} ± {values['standard_error_percent']:.3f}"
        print(
            f"{variant:26} {values['perplexity']:10.4f} {change:>18} {values['kl_mean']:9.2e} {values['kl_99']:9.2e} "
            f"{values['same_top_percent']:10.2f}"
        )


if __name__ == "__main__":
    main()
