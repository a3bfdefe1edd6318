"""What people give that is no checkpoint of ours: each is refused by its name, with what to do.

Where the writer is no package of the tests, a file has the published mark of its format and no more.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from checkpoint_cases.registry import refused, saved, tiny

TF = "from_tf=True).save_pretrained(NEW)"
EXPORTED = "give the checkpoint that it was exported from"


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 20)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"))
    return out.getvalue()


def numpy_file() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones(3))
    return out.getvalue()


def numpy_archive() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.ones(3), b=np.ones(2))
    return out.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(40)
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.9.0" + bytes(20)
FILES: dict[str, tuple[str, str, bytes | Callable[[], bytes], str, tuple[str, ...]]] = {
    "keras": (
        "a Keras file, `tf_model.h5`",
        "tf_model.h5",
        HDF5,
        "convert it with transformers 4",
        ("a Keras file", TF),
    ),
    "keras_archive": (
        *("a `.keras` archive", "m.keras", lambda: zipped("metadata.json", "config.json", "model.weights.h5")),
        *("convert it with transformers 4", ("a Keras archive", TF)),
    ),
    "flax": (
        "a Flax file",
        "flax_model.msgpack",
        b"\x82\xa3abc",
        "convert it with transformers 4",
        ("is a Flax file",),
    ),
    "onnx": ("an ONNX model", "model.onnx", ONNX, "give its source", ("is an ONNX model", EXPORTED)),
    "tflite": (
        *("a TensorFlow Lite model", "m.tflite", b"\x1c\0\0\0TFL3" + bytes(40), "give its source"),
        ("is a TensorFlow Lite model", EXPORTED),
    ),
    "tensorflow_part": (
        *("a part of a TensorFlow checkpoint", "model.ckpt.meta", b"\x0a\x05abcde", "give the prefix"),
        ("is a part of a TensorFlow checkpoint: give ", "model.ckpt"),
    ),
    "ggml": ("a GGML file", "ggml-model.bin", b"lmgg" + bytes(40), "convert it to GGUF", ("a GGML file, older than",)),
    "ggjt": ("a GGML file (GGJT)", "m.bin", b"tjgg\3\0\0\0" + bytes(40), "convert it to GGUF", ("convert_hf_to_gguf",)),
    "numpy": ("a `.npy` file", "a.npy", numpy_file, "give a checkpoint", ("is a NumPy array",)),
    "npz": ("a `.npz` file", "a.npz", numpy_archive, "give a checkpoint", ("is an archive of NumPy arrays",)),
    "pickle": (
        *("a pickle", "m.pkl", lambda: pickle.dumps({"a": [1.0]}), "save a state_dict"),
        ("is a Python pickle, which could run code",),
    ),
    "torchscript": (
        *("a TorchScript program", "m.pt", lambda: zipped("m/data.pkl", "m/constants.pkl", "m/code/m.py")),
        *("give its source", ("is a TorchScript program", EXPORTED)),
    ),
    "zip": ("a zip archive", "m.zip", lambda: zipped("gpt2/config.json"), "unpack it", ("a zip archive: unpack",)),
    "gzip": ("a gzip file", "m.tar.gz", lambda: gzip.compress(b"x", mtime=0), "unpack it", ("is a gzip file: unpack",)),
    "tar": ("a tar archive", "m.tar", tarred, "unpack it", ("is a tar archive: unpack it",)),
    "web_page": (
        *("a web page", "model.safetensors", b"<!DOCTYPE html><html>", "download it again"),
        ("is a web page: download the file again",),
    ),
    "json": ("a `.json` file", "config.json", b'{"model_type": "gpt2"}', "give its folder", ("is a JSON file: give",)),
    "lfs": (
        *("a Git LFS pointer", "model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        *("`git lfs pull`", ("is a Git LFS pointer",)),
    ),
    "empty": ("an empty file", "model.safetensors", b"", "download it again", ("not a checkpoint", "it is empty")),
    "anything": (
        *("any other file", "photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "the message shows its first bytes"),
        ("not a checkpoint in a known format (it begins with b'\\xff\\xd8\\xff",),
    ),
}
"""Name → kind, file name, content, note, and words of the refusal."""


def _file(
    name: str, kind: str, file: str, content: bytes | Callable[[], bytes], note: str, says: tuple[str, ...]
) -> None:
    def build(folder: Path) -> Path:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content())
        return folder / file

    build.__name__ = name
    refused(kind, writer="by hand", note=note, says=says)(build)


for _name, _row in FILES.items():
    _file(_name, *_row)


FOLDERS: dict[str, tuple[str, tuple[str, ...], str, tuple[str, ...]]] = {
    "keras_folder": (
        "folder with `tf_model.h5` alone",
        ("config.json", "tf_model.h5"),
        "convert it with transformers 4",
        ("Keras", TF),
    ),
    "flax_folder": (
        *(
            "folder with `flax_model.msgpack` alone",
            ("config.json", "flax_model.msgpack"),
            "convert it with transformers 4",
        ),
        ("holds a config.json but no weights", "a Flax file (flax_model.msgpack)", "from_flax=True"),
    ),
    "onnx_folder": ("folder with ONNX models", ("config.json", "model.onnx"), "give its source", ("an ONNX model",)),
    "saved_model": ("a TensorFlow SavedModel", ("saved_model.pb",), "give its source", ("a TensorFlow SavedModel",)),
    "deepspeed": (
        *("a DeepSpeed checkpoint", ("latest", "zero_to_fp32.py"), "run its `zero_to_fp32.py`"),
        ("a DeepSpeed checkpoint", "zero_to_fp32.py"),
    ),
    "distributed": (
        *("a distributed PyTorch checkpoint", ("__0_0.distcp", "__1_0.distcp", ".metadata"), "join it"),
        ("a distributed PyTorch checkpoint (__0_0.distcp, __1_0.distcp)", "format_utils"),
    ),
    "other_names": (
        *("folder with weights under other names", ("config.json", "a.safetensors", "b.safetensors")),
        *("give the path of one", ("weights under another name (a.safetensors, b.safetensors): give the path of one",)),
    ),
    "tokenizer_folder": (
        *("folder with a tokenizer alone", ("vocab.json", "merges.txt"), "add the weights"),
        ("holds no checkpoint in a known format",),
    ),
}
"""Name → kind, names of the files, note, and words of the refusal."""


def _folder(name: str, kind: str, files: tuple[str, ...], note: str, says: tuple[str, ...]) -> None:
    def build(folder: Path) -> Path:
        (folder / "m").mkdir()
        for file in files:
            content = json.dumps({"model_type": "gpt2"}).encode() if file == "config.json" else HDF5
            (folder / "m" / file).write_bytes(content)
        return folder / "m"

    build.__name__ = name
    refused(kind, writer="by hand", note=note, says=says)(build)


for _name, _kind in FOLDERS.items():
    _folder(_name, *_kind)


def with_header(folder: Path, change: Callable[[dict], None], more: bytes = b"") -> Path:
    """Change the header of a safetensors file that transformers wrote, and put bytes after it."""
    path = saved(tiny(), folder / "hf").path / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :] + more)
    return path.parent


@refused(
    "safetensors with bytes after the last tensor",
    writer="by hand",
    note="as the safetensors package does",
    says=("4 bytes after the last tensor are in no tensor",),
)
def trailing_bytes(folder: Path) -> Path:
    return with_header(folder, lambda header: None, bytes(4))


@refused(
    "safetensors with a hole between tensors",
    writer="by hand",
    note="as the safetensors package does",
    says=("are in no tensor",),
)
def hole(folder: Path) -> Path:
    return with_header(folder, lambda header: header.pop("transformer.ln_f.bias"))


@refused(
    "safetensors with metadata that is not a string",
    writer="by hand",
    note="as the safetensors package does",
    says=("every value of __metadata__ must be a string, but 'step' is 5",),
)
def metadata(folder: Path) -> Path:
    return with_header(folder, lambda header: header["__metadata__"].update(step=5))
