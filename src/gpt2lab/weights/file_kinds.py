"""Say what a file is by its first bytes, and what a folder holds that is not read: the name, and what to do with it.

Knows many formats by their marks, and reads none of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import check_not_pointer, unreadable

_BEGINNING = 512  # bytes; tar has its mark at 257

_EXPORTED = "give the checkpoint that it was exported from"
_UNPACK = "unpack it, and give what is inside"
_KERAS = (
    "save it as safetensors with transformers 4: "
    "GPT2LMHeadModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)"
)
_FLAX = _KERAS.replace("from_tf", "from_flax")
_GGML = "convert the checkpoint that it was made from with llama.cpp's convert_hf_to_gguf.py"
_PICKLE = "which could run code: save the model's state_dict with torch.save, or as safetensors"


class Kind(NamedTuple):
    """A kind of file: ``name`` is what a message calls it, ``advice`` what to do with one that is not read."""

    name: str
    advice: str = ""


SAFETENSORS, TORCH, LLM_C, INDEX = map(
    Kind, ("a safetensors file", "a PyTorch file", "an llm.c file", "an index of shards")
)

_MARKS: tuple[tuple[int, bytes, Kind], ...] = (
    (0, (20240326).to_bytes(4, "little"), LLM_C),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", TORCH),  # the number that PyTorch wrote before 1.6
    (0, (20240327).to_bytes(4, "little"), Kind("llm.c's debug state", "give the model beside it")),
    (0, (20240328).to_bytes(4, "little"), Kind("llm.c's tokenizer", "give the model beside it")),
    (0, (20240520).to_bytes(4, "little"), Kind("llm.c's training data", "give a model")),
    (0, (20240803).to_bytes(4, "little"), Kind("llm.c's Llama 3", "only its GPT-2 is supported")),
    (0, b"\x89HDF\r\n\x1a\n", Kind("a Keras file (HDF5)", _KERAS)),
    (0, b"lmgg", Kind("a GGML file, older than GGUF", _GGML)),
    (0, b"fmgg", Kind("a GGML file (GGMF), older than GGUF", _GGML)),
    (0, b"tjgg", Kind("a GGML file (GGJT), older than GGUF", _GGML)),
    (0, b"algg", Kind("a GGML adapter", "merge it into its base model, then convert that to GGUF")),
    (4, b"TFL3", Kind("a TensorFlow Lite model", _EXPORTED)),
    (0, b"\x93NUMPY", Kind("a NumPy array", "give a checkpoint")),
    (0, b"PAR1", Kind("a Parquet file", "give a checkpoint")),
    (0, b"\x1f\x8b", Kind("a gzip file", _UNPACK)),
    (0, b"BZh", Kind("a bzip2 file", _UNPACK)),
    (0, b"\xfd7zXZ\0", Kind("an xz file", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("a Zstandard file", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7-Zip archive", _UNPACK)),
    (257, b"ustar", Kind("a tar archive", _UNPACK)),
)
_NAMES: tuple[tuple[str, Kind], ...] = (
    ("adapter_model.*", Kind("a PEFT adapter", "merge it into its base model, then save that")),
    ("tf_model.h5", Kind("a Keras file", _KERAS)),
    ("*.h5", Kind("a Keras file", _KERAS)),
    ("*.keras", Kind("a Keras archive", _KERAS)),
    ("flax_model.msgpack", Kind("a Flax file", _FLAX)),
    ("*.msgpack", Kind("a Flax file", _FLAX)),
    ("*.onnx", Kind("an ONNX model", _EXPORTED)),
    ("onnx", Kind("an ONNX model", _EXPORTED)),
    ("saved_model.pb", Kind("a TensorFlow SavedModel", _EXPORTED)),
    ("*.tflite", Kind("a TensorFlow Lite model", _EXPORTED)),
    ("*.mlpackage", Kind("a Core ML model", _EXPORTED)),
    ("rust_model.ot", Kind("weights for rust-bert", _EXPORTED)),
    ("zero_to_fp32.py", Kind("a DeepSpeed checkpoint", "run python zero_to_fp32.py . pytorch_model.bin in it")),
    (
        "*.distcp",
        Kind("a distributed PyTorch checkpoint", "join it: python -m torch.distributed.checkpoint.format_utils"),
    ),
    ("adapter.safetensors", Kind("a LoRA state of gpt2lab train", "give the folder of its run")),
    ("*.safetensors", Kind("weights under another name", "give the path of one, with a config.json beside it")),
    ("*.bin", Kind("files of another kind", "give the path of one")),
    ("*.pt", Kind("PyTorch files", "give the path of one")),
    ("*.pth", Kind("PyTorch files", "give the path of one")),
)
"""Patterns of names in a folder, and what they are; the first that is there counts."""


def kind_of(path: Path) -> Kind:
    """Return the kind of a file. Raises :class:`CheckpointError` for one that is not read: it says what the file is."""
    try:
        with path.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError as error:
        raise unreadable(path, error) from None
    check_not_pointer(path, start)
    kind = _kind(path, start)
    if kind is None:
        what = f"it begins with {start[:8]!r}" if start else "it is empty"
        raise CheckpointError(f"{path} is not a checkpoint in a known format ({what})")
    if kind.advice:
        joint = ", " if kind.advice.startswith("which") else ": "
        raise CheckpointError(f"{path} is {kind.name}{joint}{kind.advice}")
    return kind


def _kind(path: Path, start: bytes) -> Kind | None:
    for offset, mark, kind in _MARKS:
        if start[offset : offset + len(mark)] == mark:
            return kind
    if start[:4] == b"PK\3\4":
        return _kind_of_zip(path)
    if start[8:9] == b"{":  # after the length of the header
        return SAFETENSORS
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return Kind("a Python pickle", _PICKLE)
    if re.fullmatch(rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", start[:3]):  # ir_version, and the next field
        return Kind("an ONNX model", _EXPORTED)
    return _kind_of_text(path, start.lstrip(b"\xef\xbb\xbf \t\r\n"))


def _kind_of_text(path: Path, start: bytes) -> Kind | None:
    if start[:1] == b"<":
        return Kind("a web page", "download the file again")
    if start[:1] in (b"{", b"["):
        weights = path.name.endswith((".safetensors.index.json", ".bin.index.json"))
        return INDEX if weights else Kind("a JSON file", "give the folder that it is in")
    part_of_tensorflow = re.search(r"\.(meta|data-\d+-of-\d+)$", path.name)
    if part_of_tensorflow:
        prefix = path.name[: part_of_tensorflow.start()]
        return Kind("a part of a TensorFlow checkpoint", f"give {path.with_name(prefix)}")
    return Kind("a Flax file", _FLAX) if path.suffix == ".msgpack" else None


def _kind_of_zip(path: Path) -> Kind:
    """Return what a zip archive is, by the names in it."""
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: a damaged zip archive ({error})") from None
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return Kind("a TorchScript program", _EXPORTED)
    if "data.pkl" in last:
        return TORCH
    if "model.weights.h5" in last:
        return Kind("a Keras archive", _KERAS)
    if last and all(name.endswith(".npy") for name in last):
        return Kind("an archive of NumPy arrays", "give a checkpoint")
    return Kind("a zip archive", _UNPACK)


def found_in(folder: Path) -> str | None:
    """Return a phrase about the first thing in a folder that has a name of :data:`_NAMES`, and what to do with it."""
    for pattern, kind in _NAMES:
        names = sorted(path.name for path in folder.glob(pattern))
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"{kind.name} ({', '.join(names[:3])}{more}): {kind.advice}"
    return None
