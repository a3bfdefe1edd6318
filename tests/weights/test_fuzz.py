"""Malformed files: every reader returns a checkpoint or raises one CheckpointError, without memory for absent data."""

import json
import shutil
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import Checkpoint, TokenizerFiles, convert, open_checkpoint, tensor_shapes
from tf_bundle import entry, table, variables, varint, write_bundle

CONFIG = ModelConfig(n_vocab=5, n_ctx=2, n_embd=4, n_head=2, n_layer=1)
TENSORS = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(CONFIG).items()}
OWN = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])
MADE = Checkpoint(CONFIG, TENSORS, OWN, "test", "float32", Path("made"))

MEMORY = 24 << 20  # bytes; the files themselves have a few thousand
EXTREMES = [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(EXTREMES) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def samples():
    """Make a folder with one small checkpoint of each format."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(MADE, folder / "m.gguf")
        convert(MADE, folder / "hf")
        write_bundle(folder / "tf", MADE)
        yield folder


@pytest.fixture
def fresh(samples, tmp_path):
    """Copy a sample, to be damaged, to the same place for every example."""

    def copy(name):
        place = tmp_path / name
        if place.is_dir():
            shutil.rmtree(place)
        if (samples / name).is_dir():
            shutil.copytree(samples / name, place)
        return place

    return copy


def survives(path):
    """Open and read everything; allow a CheckpointError of one line, but not much memory."""
    if peak_of_reading(path) >= MEMORY:  # a thread that an earlier test left may have allocated it: look again
        assert peak_of_reading(path) < MEMORY


def peak_of_reading(path):
    tracemalloc.start()
    try:
        dict(open_checkpoint(path).tensors)
    except CheckpointError as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@st.composite
def spoilt(draw, data):
    """Damage ``data``: cut it short, flip bits, overwrite numbers, insert or remove bytes."""
    at = st.integers(0, len(data) - 1)
    kind = draw(st.sampled_from(["cut", "flip", "number", "insert", "remove"]))
    out = bytearray(data)
    if kind == "cut":
        return bytes(data[: draw(at)])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(at)
        if kind == "flip":
            out[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            value = draw(st.sampled_from(EXTREMES))
            size = draw(st.sampled_from([4, 8]))
            out[place : place + size] = struct.pack("<Q", value)[:size]
        elif kind == "insert":
            out[place:place] = draw(st.binary(min_size=1, max_size=9))
        else:
            del out[place : place + draw(st.integers(1, 9))]
    return bytes(out)


@quick
@given(data=st.data())
def test_gguf(samples, tmp_path, data):
    content = (samples / "m.gguf").read_bytes()
    end = content.rindex(b"output_norm.bias") + 60
    header = data.draw(spoilt(content[:end]))
    (tmp_path / "m.gguf").write_bytes(header + data.draw(st.sampled_from([b"", content[end:]])))
    survives(tmp_path / "m.gguf")


FILES = [("hf", "model.safetensors"), ("hf", "config.json"), ("hf", "tokenizer.json"), ("hf", "merges.txt")]
FILES += [("tf", "model.ckpt.index"), ("tf", "checkpoint"), ("tf", "hparams.json"), ("hf", "vocab.json")]


@pytest.mark.parametrize(("folder", "name"), FILES)
@settings(quick, max_examples=60)
@given(data=st.data())
def test_files_of_folders(samples, fresh, folder, name, data):
    place = fresh(folder)
    if name == "tokenizer.json":
        (place / "vocab.json").unlink()
    content = (samples / folder / name).read_bytes()
    (place / name).write_bytes(data.draw(spoilt(content)))
    survives(place)


@quick
@given(data=st.data())
def test_safetensors_headers_that_lie(samples, fresh, data):
    place = fresh("hf")
    content = (samples / "hf" / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = data.draw(st.sampled_from(list(header)))
    what = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", None]))
    value = data.draw(JSON | st.lists(st.sampled_from([*EXTREMES, 4, 2, 5]), max_size=3))
    if what is None or name == "__metadata__":
        header[name] = value
    else:
        header[name][what] = value
    text = json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    survives(place)


@pytest.mark.parametrize(("folder", "name"), [("hf", "config.json"), ("tf", "hparams.json"), ("hf", "tokenizer.json")])
@settings(quick, max_examples=100)
@given(data=st.data())
def test_json_with_other_values(samples, fresh, folder, name, data):
    place = fresh(folder)
    if name == "tokenizer.json":
        (place / "merges.txt").unlink()
    content = json.loads((samples / folder / name).read_bytes())
    content[data.draw(st.sampled_from(list(content)))] = data.draw(JSON)
    (place / name).write_text(json.dumps(content))
    survives(place)


@quick
@given(data=st.data())
def test_shard_indexes_that_lie(samples, fresh, data):
    place = fresh("hf")
    (place / "model.safetensors").rename(place / "a.safetensors")
    names = st.sampled_from(
        ["a.safetensors", "../x.safetensors", "model.safetensors.index.json", "..", "", "/dev/zero"]
    )
    value = data.draw(JSON | st.dictionaries(st.sampled_from(list(TENSORS)), names | JSON))
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
    survives(place)


@quick
@given(data=st.data())
def test_tensorflow_entries_that_lie_behind_a_good_checksum(samples, fresh, data):
    place = fresh("tf")
    entries = {b"": b"\x08" + varint(data.draw(st.sampled_from([1, 1, 1, *EXTREMES])))}
    offset = 0
    for name, tensor in variables(MADE).items():
        entries[name.encode()] = entry(tensor, 0, offset=offset)
        offset += tensor.nbytes
    victim = data.draw(st.sampled_from(list(entries)))
    lie = st.fixed_dictionaries(
        {}, optional={field: st.sampled_from(EXTREMES) for field in ("dtype", "offset", "size")}
    ).map(lambda fields: entry(np.ones((1, 4, 4), np.float32), 0, **{"offset": 0, **fields}))
    entries[victim] = data.draw(lie | spoilt(entries[victim]) | st.binary(max_size=30))
    (place / "model.ckpt.index").write_bytes(table(sorted(entries.items())))
    survives(place)


@settings(quick, max_examples=25)
@given(data=st.data())
def test_torch_files(tmp_path, data):
    torch = needs.package("torch")
    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 2, "vocab_size": 5, "bias": True}
    path = tmp_path / "ckpt.pt"
    torch.save({"model": {n: torch.from_numpy(t) for n, t in TENSORS.items()}, "model_args": arguments}, path)
    path.write_bytes(data.draw(spoilt(path.read_bytes())))
    survives(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, '{"a":1,"a":2}', "", '{"n_vocab": 1e400}', "NaN"])
def test_json_that_is_strange(fresh, text):
    for folder, name in (("hf", "config.json"), ("tf", "hparams.json"), ("hf", "tokenizer.json"), ("hf", "vocab.json")):
        place = fresh(folder)
        if name == "vocab.json":  # which counts only without the other
            (place / "tokenizer.json").unlink()
        (place / name).write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError):
            open_checkpoint(place)


@pytest.mark.parametrize("name", ["m.gguf", "hf/model.safetensors", "tf/model.ckpt.index"])
@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 16, b"\xff" * 64, b"<!DOCTYPE html>"])
def test_files_that_are_hardly_there(samples, tmp_path, name, content):
    shutil.copytree(samples, tmp_path / "s")
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        open_checkpoint((tmp_path / "s" / name).parent if "/" in name else tmp_path / "s" / name)


def test_a_folder_where_a_file_should_be(tmp_path, fresh):
    place = fresh("hf")
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError):
        open_checkpoint(place)
