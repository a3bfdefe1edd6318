"""Conversion from any readable format to any writable one."""

from __future__ import annotations

from pathlib import Path

from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import Checkpoint

FORMATS = ("huggingface", "gguf")
PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int4", "q8_0", "q4_0")
"""Precisions of stored matrices; each format supports some of them."""

_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".index", ".json", ".h5", ".onnx")
"""Suffixes of files that users may expect, where a folder would be written."""


def format_of(destination: Path) -> str:
    """Return the format that a destination's name means: ``.gguf`` is GGUF, everything else a Hugging Face folder."""
    return "gguf" if destination.suffix.lower() == ".gguf" else "huggingface"


def convert(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    format: str | None = None,
    precision: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``checkpoint`` to ``destination``: a ``.gguf`` file, or a Hugging Face folder.

    ``format`` defaults to that of the name, ``precision`` to the checkpoint's own if the format has it, else float32.
    Raises :class:`UsageError` for an unknown format or precision, or for a folder with a file's suffix, and
    :class:`CheckpointError` if the destination exists (unless ``overwrite``) or cannot be written. No partly written
    file is left behind.
    """
    chosen = format or format_of(destination)
    if chosen not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, not {chosen!r}")
    if format is None and destination.suffix.lower() in _FILES:
        raise UsageError(
            f"{destination} looks like a file, but this format is a folder: name a folder, such as "
            f"{destination.with_suffix('')}, or a .gguf file"
        )
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if chosen == "gguf":
        from gpt2lab.weights.gguf_writing import WRITABLE, write_gguf

        kept = checkpoint.precision if checkpoint.precision in WRITABLE else "float32"
        write_gguf(checkpoint, destination, precision=precision or kept, overwrite=overwrite)
    else:
        from gpt2lab.weights import huggingface

        kept = checkpoint.precision if checkpoint.precision in huggingface.WRITABLE else "float32"
        huggingface.write_huggingface(checkpoint, destination, precision=precision or kept, overwrite=overwrite)
