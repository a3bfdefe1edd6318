"""Saved prompts: the keys and values of one prompt in a file, so that a later process need not compute them.

A file is a safetensors container with the tensor ``keys_and_values``, in the precision of the KV cache, ``[n_layer, 2,
n_head, n_tokens, head_dim]``; in int8 each row's scale, the four bytes of a float32, follows it. Its ``__metadata__``
holds the token ids, the :class:`~gpt2lab.engines.origin.Origin` of the numbers, and a SHA-256 of all that. A file of
another origin is refused: continuing it would change the text. This module knows nothing of text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.generation.scheduler import PREFILL_CHUNK
from gpt2lab.weights.precisions import PRECISIONS
from gpt2lab.weights.safetensors_file import INT8, read_metadata, read_safetensors, write_safetensors
from gpt2lab.weights.writing import NewTensor, destination_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.origin import Origin
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.generation.sequences import Sequences
    from gpt2lab.weights.precisions import Precision

FORMAT = "gpt2lab.prompt"
_TENSOR = "keys_and_values"
_PRECISIONS = {name: PRECISIONS[name] for name in ("float32", "float16", "bfloat16")} | {INT8.name: INT8}


def save_prompt(path: Path, tokens: Sequence[int], engine: Engine, sequences: Sequences, origin: Origin) -> None:
    """Compute the keys and values of ``tokens`` as far as they are not known, and write them to ``path``.

    Raises :class:`~gpt2lab.errors.CheckpointError` if the file cannot be written.
    """
    sequence, known = sequences.begin(tokens)
    try:
        for start in range(known, len(tokens), PREFILL_CHUNK):
            engine.forward([sequence], [tokens[start : start + PREFILL_CHUNK]], "none")
        values = engine.read_sequence(sequence)
    except BaseException:
        sequences.free(sequence)
        raise
    sequences.end(sequence, tokens)
    facts = {"format": FORMAT, "tokens": json.dumps(list(tokens)), **_texts(origin)}
    facts["sha256"] = _digest(facts, values)
    precision = _PRECISIONS[origin.kv_precision]
    tensor = NewTensor(_TENSOR, values.shape, precision, lambda: values.astype(precision.dtype, copy=False).reshape(-1))
    with destination_file(path, overwrite=True) as file:
        write_safetensors(file, [tensor], facts)


def load_prompt(path: Path, engine: Engine, sequences: Sequences, origin: Origin) -> list[int]:
    """Let ``sequences`` keep what :func:`save_prompt` wrote, and return its tokens.

    Raises :class:`~gpt2lab.errors.CheckpointError` for a file that is no saved prompt or is damaged,
    :class:`~gpt2lab.errors.UsageError` for one of another origin.
    """
    facts = read_metadata(path)
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a saved prompt: --save_prompt writes one")
    _check_origin(path, facts, _texts(origin))
    tensors = read_safetensors(path)
    tokens = _tokens(facts.get("tokens", ""), engine.config)
    precision = _PRECISIONS[origin.kv_precision]
    shape = _shape(engine.config, len(tokens or ()), precision)
    if tokens is None or list(tensors) != [_TENSOR] or tensors[_TENSOR].shape != shape:
        raise CheckpointError(f"{path} is damaged: its tokens do not fit its keys and values")
    values = tensors[_TENSOR].items(_TENSOR, precision)()
    if facts.pop("sha256", "") != _digest(facts, values):
        raise CheckpointError(f"{path} is damaged: its checksum differs")
    sequences.end(engine.write_sequence(values), tokens)
    return tokens


def _texts(origin: Origin) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(origin).items()}


def _check_origin(path: Path, facts: dict[str, str], origin: dict[str, str]) -> None:
    for name, wanted in origin.items():
        if (saved := facts.get(name, "")) != wanted:
            what = "is of another model" if name == "weights" else f"has {name} {saved[:100]!r}, not {wanted!r}"
            raise UsageError(f"{path} {what}: save the prompt again with --save_prompt")


def _tokens(text: str, config: ModelConfig) -> list[int] | None:
    """Return the token ids in JSON; None unless they are a prompt of the model."""
    try:
        tokens: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    good = isinstance(tokens, list) and 1 <= len(tokens) <= config.n_ctx
    return tokens if good and all(type(id) is int and 0 <= id < config.n_vocab for id in tokens) else None


def _shape(config: ModelConfig, n_tokens: int, precision: Precision) -> tuple[int, ...]:
    row = config.head_dim + 4 * (precision is INT8)
    return (config.n_layer, 2, config.n_head, n_tokens, row)


def _digest(facts: dict[str, str], values: npt.NDArray[np.number]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()
