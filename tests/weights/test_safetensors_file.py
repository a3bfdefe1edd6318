"""We refuse what the safetensors package refuses, and read what it reads."""

import json
import struct
import sys
from pathlib import Path
from random import Random

import pytest
from safetensors import SafetensorError, safe_open

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.safetensors_file import read_metadata, read_safetensors

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzzing"))

from mutations import json_bytes, spoilt


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def file(header, n_bytes=8, padding=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) + len(padding)) + text + padding + bytes(n_bytes)


A = entry("F32", [2], 0, 8)
REFUSED = {
    "bytes after the last tensor": (file({"a": A}, 9), "1 bytes after the last tensor"),
    "a hole between tensors": (file({"a": A, "b": entry("F32", [1], 12, 16)}, 16), "before b, are in no tensor"),
    "a hole before the first": (file({"a": entry("F32", [2], 4, 12)}, 12), "before a, are in no tensor"),
    "two tensors in one place": (file({"a": A, "b": entry("F32", [2], 4, 12)}, 12), "share the bytes"),
    "metadata that is a number": (file({"__metadata__": {"step": 1}, "a": A}), "but 'step' is 1"),
    "metadata that is null": (file({"__metadata__": {"step": None}, "a": A}), "but 'step' is None"),
    "metadata in metadata": (file({"__metadata__": {"step": {}}, "a": A}), "but 'step' is"),
    "metadata in a list": (file({"__metadata__": [], "a": A}), "must be an object"),
    "metadata of one string": (file({"__metadata__": "x", "a": A}), "must be an object"),
    "a shape that is too large": (file({"a": entry("F32", [3], 0, 8)}), "cannot take 8 bytes"),
    "the same for a dtype of no weights": (file({"a": entry("I64", [2], 0, 8)}), "cannot take 8 bytes"),
    "half a byte": (file({"a": entry("F4", [15], 0, 8)}), "cannot take 8 bytes"),
    "a shape that overflows": (file({"a": A, "b": entry("F32", [2**62, 2**62, 0], 8, 8)}), "cannot take 0 bytes"),
    "a dtype that does not exist": (file({"a": entry("F33", [2], 0, 8)}), "dtype F33"),
    "NaN": (file(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":NaN}}'), "not valid JSON"),
    "half a surrogate pair": (file(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "not valid JSON"),
    "a byte after the header": (file({"a": A}, 8, b"\0"), "not valid JSON"),
    "an end before the start": (file({"a": entry("F32", [0], 8, 0)}), "cut short or corrupt"),
}
READ = {
    "as usual": file({"__metadata__": {"format": "pt"}, "a": A}),
    "no metadata": file({"__metadata__": None, "a": A}),
    "an empty tensor": file({"a": A, "e": entry("F32", [0], 8, 8), "b": entry("F16", [2], 8, 12)}, 12),
    "other dtypes": file({"a": entry("BOOL", [4], 0, 4), "b": entry("F8_E4M3", [4], 4, 8)}),
    "values of 4 bits": file({"a": entry("F4", [16], 0, 8)}),
    "another order": file({"b": entry("F32", [2], 8, 16), "a": A}, 16),
    "a scalar": file({"a": entry("F32", [], 0, 4)}, 4),
    "spaces after the header": file({"a": A}, 8, b"  \n"),
    "no tensor": file({}, 0),
}


def theirs(path):
    """Return the names and shapes that the package reads; None if it refuses the file."""
    try:
        with safe_open(path, "numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError:
        return None


def ours(path):
    try:
        read_metadata(path)
        return {name: tensor.shape for name, tensor in read_safetensors(path).items()}
    except CheckpointError:
        return None


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_package_refuses_is_refused(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / "m.safetensors").write_bytes(content)
    assert theirs(tmp_path / "m.safetensors") is None
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", READ)
def test_what_the_package_reads_is_read(tmp_path, name):
    (tmp_path / "m.safetensors").write_bytes(READ[name])
    assert theirs(tmp_path / "m.safetensors") == ours(tmp_path / "m.safetensors") is not None


def strange(random, header):
    """Return a file whose header or bytes were spoilt, and perhaps its size."""
    content = file(json_bytes(random, header), 28 + random.choice([0, 0, 0, -1, 1, 8]))
    return spoilt(random, content) if random.random() < 0.2 else content


def agree(path, seeds):
    header = {
        "a": A,
        "b": entry("F16", [2, 3], 8, 20),
        "c": entry("I64", [1], 20, 28),
        "__metadata__": {"format": "pt"},
    }
    accepted = 0
    for seed in seeds:
        path.write_bytes(strange(Random(seed), header))
        expected, got = theirs(path), ours(path)
        if expected is None:
            assert got is None, f"seed {seed}"
        elif got is not None:  # we refuse a name that occurs twice, and tensors of more than 8 dimensions
            assert got == expected, f"seed {seed}"
            accepted += 1
    assert 0.02 * len(seeds) < accepted < len(seeds)


def test_no_spoilt_file_is_read_that_the_package_refuses(tmp_path):
    agree(tmp_path / "m.safetensors", range(600))


@pytest.mark.slow
def test_nor_any_of_many(tmp_path):
    agree(tmp_path / "m.safetensors", range(600, 40_000))
