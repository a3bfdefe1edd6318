"""Weights that are no numbers, files cut while they are open, pointers, and small files that ask for much memory."""

import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import Checkpoint, TokenizerFiles, convert, open_checkpoint, tensor_shapes
from gpt2lab.weights.checkpoint import MappedFile
from gpt2lab.weights.crc32c import masked_crc32c
from gpt2lab.weights.leveldb import read_table, unsnappy
from tf_bundle import entry, snappy, table, varint, write_bundle

CONFIG = ModelConfig(n_vocab=5, n_ctx=2, n_embd=4, n_head=2, n_layer=1)
OWN = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])
VICTIM = "h.0.mlp.c_fc.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 497759232\n"


def checkpoint(victim=1.0):
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(CONFIG).items()}
    tensors[VICTIM][0, 0] = victim
    return Checkpoint(CONFIG, tensors, OWN, "test", "float32", Path("made"))


def save_torch(path, victim=1.0, **changes):
    torch = needs.package("torch")
    linear = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    model = {
        f"transformer.{name}": torch.from_numpy(tensor).T if name.endswith(linear) else torch.from_numpy(tensor)
        for name, tensor in checkpoint(victim).tensors.items()
    }
    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 2, "vocab_size": 5, "bias": True}
    torch.save({"model": {**model, **changes}, "model_args": arguments}, path)
    return path


def save(format, folder, victim=1.0):
    """Write a checkpoint; return its path, and that of the file with its tensors."""
    if format == "openai":
        write_bundle(folder / "tf", checkpoint(victim))
        return folder / "tf", folder / "tf" / "model.ckpt.data-00000-of-00001"
    if format == "nanogpt":
        return save_torch(folder / "ckpt.pt", victim), folder / "ckpt.pt"
    if format == "pytorch_model.bin":
        torch = needs.package("torch")
        convert(checkpoint(), folder / "bin")
        (folder / "bin" / "model.safetensors").unlink()
        state = {name: torch.from_numpy(tensor) for name, tensor in checkpoint(victim).tensors.items()}
        torch.save(state, folder / "bin" / "pytorch_model.bin")
        return folder / "bin", folder / "bin" / "pytorch_model.bin"
    if format == "gguf":  # which refuses to write such a number, so it is put into the file
        convert(checkpoint(12345.0), folder / "m.gguf", precision="float32")
        content = (folder / "m.gguf").read_bytes()
        was, now = struct.pack("<f", 12345.0), struct.pack("<f", victim)
        assert content.count(was) == 1
        (folder / "m.gguf").write_bytes(content.replace(was, now))
        return folder / "m.gguf", folder / "m.gguf"
    convert(checkpoint(victim), folder / "hf", precision="float32")
    return folder / "hf", folder / "hf" / "model.safetensors"


FORMATS = ["openai", "huggingface", "pytorch_model.bin", "nanogpt", "gguf"]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", FORMATS)
def test_a_weight_that_is_not_finite_is_refused_by_the_name_of_its_tensor(tmp_path, format, number):
    path, _ = save(format, tmp_path, number)
    with pytest.raises(CheckpointError, match=rf"tensor {VICTIM} has values that are NaN or infinite"):
        dict(open_checkpoint(path).tensors)


def test_weights_whose_sum_overflows_are_finite(tmp_path):
    tensors = dict(checkpoint().tensors)
    tensors["wte.weight"] = np.full((5, 4), 3e38, np.float32)
    convert(Checkpoint(CONFIG, tensors, OWN, "test", "float32", Path("made")), tmp_path / "hf")
    assert open_checkpoint(tmp_path / "hf").tensors["wte.weight"].max() == np.float32(3e38)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_truncated_while_it_is_open_is_an_error(tmp_path, format):
    path, weights = save(format, tmp_path)
    opened = open_checkpoint(path)
    os.truncate(weights, 10)
    with pytest.raises(CheckpointError, match="was cut short while it was open"):
        dict(opened.tensors)


@pytest.mark.parametrize("format", FORMATS)
def test_weights_outlive_a_file_that_is_replaced(tmp_path, format):
    path, weights = save(format, tmp_path)
    opened = open_checkpoint(path)
    (tmp_path / "new").write_bytes(weights.read_bytes())
    (tmp_path / "new").replace(weights)
    assert np.array_equal(opened.tensors[VICTIM], checkpoint().tensors[VICTIM])


@pytest.mark.parametrize("format", FORMATS)
def test_a_git_lfs_pointer_is_named(tmp_path, format):
    path, weights = save(format, tmp_path)
    weights.write_bytes(LFS)
    with pytest.raises(CheckpointError, match=rf"{weights.name} is a Git LFS pointer.*git lfs pull"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.json", "merges.txt"])
def test_a_git_lfs_pointer_in_place_of_a_description_is_named(tmp_path, name):
    path, _ = save("huggingface", tmp_path)
    if name in ("vocab.json", "merges.txt"):  # which count only without the other
        (path / "tokenizer.json").unlink()
    (path / name).write_bytes(LFS)
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer"):
        open_checkpoint(path)


# ---- TensorFlow's index ---------------------------------------------------------------------------------------------


def index_file(path, blocks, handles):
    """Write a table of ``blocks`` (bytes, compressed or not) whose index has ``handles``, numbers of blocks."""
    out, places = bytearray(), []

    def add(body, kind):
        places.append(varint(len(out)) + varint(len(body)))
        out.extend(body + kind + struct.pack("<I", masked_crc32c(body + kind)))
        return places[-1]

    for body, kind in blocks:
        add(body, kind)
    index = bytearray()
    for number, block in enumerate(handles):
        key = b"%08d" % number
        index += varint(0) + varint(len(key)) + varint(len(places[block])) + key + places[block]
    ends = add(b"\0\0\0\0\1\0\0\0", b"\0") + add(bytes(index) + struct.pack("<II", 0, 1), b"\0")
    path.write_bytes(bytes(out) + ends.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    return path


def block(entries):
    body = b"".join(
        varint(shared) + varint(len(key)) + varint(len(value)) + key + value for shared, key, value in entries
    )
    return body + struct.pack("<II", 0, 1)


def refused(path, message):
    """Read a table, which must be refused with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            read_table(MappedFile(path))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_an_index_that_points_at_one_block_often_is_refused(tmp_path):
    body = block([(0, b"%06d" % number, b"v") for number in range(1000)])
    refused(index_file(tmp_path / "t.index", [(body, b"\0")], [0] * 2000), "two blocks overlap")


def test_keys_that_grow_from_shared_prefixes_are_refused(tmp_path):
    body = block([(number, b"k", b"") for number in range(2000)])
    refused(index_file(tmp_path / "t.index", [(body, b"\0")], [0]), "a key of 1025 bytes")


def test_more_keys_than_a_model_has_are_refused(tmp_path):
    body = block([(0, b"%06d" % number, b"") for number in range(9000)])
    refused(index_file(tmp_path / "t.index", [(body, b"\0")] * 3, [0, 1, 2]), "more keys than a GPT-2 can have")


def test_a_compressed_block_that_claims_more_than_it_can_hold_is_refused(tmp_path):
    body = varint(3 << 20) + b"\0a"
    refused(index_file(tmp_path / "t.index", [(body, b"\1")], [0]), "a compressed block that claims 3145728 bytes")


def test_an_index_larger_than_any_is_refused(tmp_path):
    with (tmp_path / "t.index").open("wb") as file:
        file.truncate(1 << 30)
    refused(tmp_path / "t.index", "larger than the 4 MiB")


def test_copies_that_reach_far_back_take_no_longer_than_near_ones():
    literal = os.urandom(1 << 16)
    far = b"\xfe" + struct.pack("<H", 65535)  # 64 bytes from 65,535 bytes before
    data = varint(len(literal) + 64 * 1000) + b"\xf4" + struct.pack("<H", len(literal) - 1) + literal + far * 1000
    expected = bytearray(literal)
    for _ in range(1000):
        expected += expected[len(expected) - 65535 :][:64]
    assert unsnappy(data) == expected


def test_a_copy_may_repeat_what_it_copies():
    assert unsnappy(varint(11) + b"\x04ab" + bytes([8 << 2 | 2]) + struct.pack("<H", 2)) == b"ab" + b"ababababa"


def test_tables_of_the_usual_kind_are_still_read(tmp_path):
    entries = sorted((b"model/h%d/x" % number, b"value%d" % number) for number in range(300))
    for compress in (False, True):
        (tmp_path / "t.index").write_bytes(table(entries, compress=compress))
        assert read_table(MappedFile(tmp_path / "t.index")) == dict(entries)
    assert unsnappy(snappy(b"abcd" * 50)) == b"abcd" * 50


def test_a_shape_of_many_dimensions_is_refused(tmp_path):
    path, _ = save("openai", tmp_path)
    tensor = np.ones((1,) * 20, np.float32)
    entries = {b"": b"\x08\x01\x1a\x02\x08\x01", b"model/wte": entry(tensor, 0, offset=0)}
    (path / "model.ckpt.index").write_bytes(table(sorted(entries.items())))
    with pytest.raises(CheckpointError, match=r"wte\.weight has 20 dimensions"):
        open_checkpoint(path)


def test_a_safetensors_shape_of_many_dimensions_is_refused(tmp_path):
    path, weights = save("huggingface", tmp_path)
    header = {"x": {"dtype": "F32", "shape": [2**62] * 100_000, "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(CheckpointError, match="the header's entry for 'x' is malformed"):
        open_checkpoint(path)


# ---- PyTorch's files ------------------------------------------------------------------------------------------------


def test_a_tensor_that_repeats_one_value_is_refused(tmp_path):
    torch = needs.package("torch")
    repeated = torch.ones(1).expand(1 << 31, 1 << 31)
    path = save_torch(tmp_path / "ckpt.pt", **{"transformer.wte.weight": repeated})
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match=r"wte\.weight of shape .* claims more values than the file has"):
        open_checkpoint(path)


def test_a_sparse_tensor_is_refused(tmp_path):
    torch = needs.package("torch")
    sparse = torch.sparse_coo_tensor([[0], [0]], [1.0], (1 << 20, 1 << 20), check_invariants=True)
    with pytest.raises(CheckpointError, match=r"wte\.weight"):
        open_checkpoint(save_torch(tmp_path / "ckpt.pt", **{"transformer.wte.weight": sparse}))


def test_a_pickle_of_more_than_tensors_is_refused_in_one_line_that_does_not_advise_to_run_it(tmp_path, recwarn):
    torch = needs.package("torch")
    path, weights = save("pytorch_model.bin", tmp_path)
    torch.save({"wte.weight": Path("x")}, weights)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert "holds objects that could run code; save the model's state_dict, or use safetensors" in message
    assert "\n" not in message and "weights_only" not in message and not recwarn.list


def test_a_pickle_that_asks_for_more_than_the_file_has_takes_no_memory_for_it(tmp_path):
    needs.package("torch")
    path, weights = save("pytorch_model.bin", tmp_path)
    weights.write_bytes(b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 100)  # a string of 2 GiB
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="PyTorch cannot load it"):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
