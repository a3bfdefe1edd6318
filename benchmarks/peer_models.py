"""One random-weight GPT-2 in the format of every peer, made when first needed.

Everything comes from one Hugging Face folder. CTranslate2 and OpenVINO convert with their own programs, which lie
beside the Python of their environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from gpt2lab.benchmarking import random_checkpoint
from gpt2lab.weights import convert, open_checkpoint

OPENVINO_WEIGHTS = {
    "fp32": ["--weight-format", "fp32"],
    "fp16": ["--weight-format", "fp16"],
    "int8": ["--weight-format", "int8"],
    "int4": ["--weight-format", "int4", "--group-size", "64", "--ratio", "1.0", "--sym"],
}
"""OpenVINO GenAI's usual exports; int4 in groups of 64 is up to 5 per cent faster than in q4_0's of 32."""


def prepare(kind: str, size: str, folder: Path, programs: Path) -> Path:
    """Return the path of the model in ``kind``, such as ``gguf-q8_0``; converters are looked for in ``programs``.

    Raises subprocess.CalledProcessError or OSError if a converter fails or is missing.
    """
    format, _, variant = kind.partition("-")
    path = folder / (f"{size}-{variant}.gguf" if format == "gguf" else f"{size}-{kind}")
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if format == "huggingface":
        convert(random_checkpoint(size), path)
        return path
    source = prepare("huggingface", size, folder, programs)
    if format == "gguf":
        convert(open_checkpoint(source), path, precision=variant)
        return path
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = _ctranslate2 if format == "ctranslate2" else _openvino
    run = command(source, partial, variant, programs)
    subprocess.run(run, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return partial.rename(path)


def _openvino(source: Path, destination: Path, variant: str, programs: Path) -> list[str]:
    task = ["--model", str(source), "--task", "text-generation-with-past"]
    return [str(programs / "optimum-cli"), "export", "openvino", *task, *OPENVINO_WEIGHTS[variant], str(destination)]


def _ctranslate2(source: Path, destination: Path, variant: str, programs: Path) -> list[str]:
    """Return the converter's command, after writing the tokenizer that it needs: tokens t0, t1, … beside the source."""
    folder = source.with_name(source.name + "-with-tokens")
    folder.mkdir(exist_ok=True)
    for file in (source / "config.json", source / "model.safetensors"):  # without the source's own tokenizer
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    tokens = {f"t{id}": id for id in range(50256)} | {"<|endoftext|>": 50256}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    how = ["--model", str(folder), "--output_dir", str(destination), "--quantization", variant]
    return [str(programs / "ct2-transformers-converter"), *how]
