"""GGUF files that llama.cpp refuses, or that are something else than a whole GPT-2: refused, and named."""

import struct

import numpy as np
import pytest

import needs
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.gguf_writing import write_gguf
from gpt2lab.weights.precisions import GGML_TYPES

gguf = needs.package("gguf")
Type = gguf.GGUFValueType
NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)


@pytest.fixture
def by_gguf(tmp_path, make_checkpoint):
    """Write a GPT-2 with the gguf package, after ``change(writer)``."""

    def write(change=lambda writer: None, *, tensors=True, architecture="gpt2", **how):
        made = make_checkpoint()
        path = tmp_path / "theirs.gguf"
        writer = gguf.GGUFWriter(path, architecture, **how)
        writer.add_block_count(2)
        writer.add_context_length(7)
        writer.add_embedding_length(64)
        writer.add_feed_forward_length(256)
        writer.add_head_count(4)
        writer.add_layer_norm_eps(1e-5)
        change(writer)
        for name, tensor in made.tensors.items() if tensors else ():
            stored = tensor.T.copy() if tensor.ndim == 2 and name.startswith("h.") else tensor
            writer.add_tensor(NAMES.get_name(f"transformer.{name}", (".weight", ".bias")), stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_every_alignment_that_is_a_power_of_two_is_obeyed(by_gguf, make_checkpoint, same, alignment):
    def align(writer):
        writer.add_custom_alignment(alignment)

    same(open_checkpoint(by_gguf(align)), make_checkpoint())


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (Type.UINT32, 13, "13 as uint32"),
        (Type.UINT32, 0, "0 as uint32"),
        (Type.UINT32, 24, "24 as uint32"),
        (Type.INT32, 32, "32 as int32"),
        (Type.UINT64, 32, "32 as 10"),
        (Type.BOOL, True, "True as bool"),
        (Type.STRING, "32", "'32' as string"),
    ],
)
def test_an_alignment_that_llama_cpp_refuses_is_named(by_gguf, kind, value, found):
    path = by_gguf(lambda writer: writer.add_key_value("general.alignment", value, kind))
    with pytest.raises(CheckpointError, match=rf"general\.alignment must be a power of two as uint32, not {found}"):
        open_checkpoint(path)


def relabelled(path, name, kind):
    """Change the type of a tensor that is stored as F32, and nothing else."""
    data = path.read_bytes()
    at = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    n_dims = int.from_bytes(data[at : at + 4], "little")
    at += 4 + 8 * n_dims
    assert data[at : at + 4] == bytes(4)
    path.write_bytes(data[:at] + struct.pack("<I", kind) + data[at + 4 :])


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_qkv.weight", "blk.1.ffn_down.bias"])
@pytest.mark.parametrize("kind", [1, 2, 8, 30])
def test_a_type_changed_from_f32_is_found_by_the_place_of_the_next_tensor(by_gguf, name, kind):
    path = by_gguf()
    relabelled(path, name, kind)
    with pytest.raises(CheckpointError, match=r"starts at byte \d+, not \d+: a tensor's type or shape is wrong"):
        open_checkpoint(path)


def test_a_changed_type_of_the_last_tensor_is_found_by_the_end_of_the_file(by_gguf):
    path = by_gguf()
    relabelled(path, "output_norm.bias", 1)
    with pytest.raises(CheckpointError, match="bytes follow the last tensor"):
        open_checkpoint(path)


def test_a_changed_type_within_the_padding_is_found(tmp_path, make_checkpoint):
    from gpt2lab.config import ModelConfig

    made = make_checkpoint(ModelConfig(n_vocab=5, n_ctx=2, n_embd=4, n_head=2, n_layer=1))
    write_gguf(made, tmp_path / "m.gguf", precision="float32")
    relabelled(tmp_path / "m.gguf", "output_norm.weight", 1)
    with pytest.raises(CheckpointError, match=r"the padding after output_norm\.weight is not zero"):
        open_checkpoint(tmp_path / "m.gguf")


def test_a_last_tensor_without_padding_is_read(by_gguf, tmp_path):
    def add(writer):
        writer.add_custom_alignment(4096)

    path = by_gguf(add)
    data = path.read_bytes()
    path.write_bytes(data[: len(data.rstrip(b"\0"))])
    assert len(path.read_bytes()) % 4096
    dict(open_checkpoint(path).tensors)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tensors": False}, "holds a vocabulary without weights"),
        ({"endianess": gguf.GGUFEndian.BIG}, "a big-endian GGUF file: convert it with 'gguf-convert-endian"),
        ({"architecture": "llama"}, "holds a model of architecture 'llama', not gpt2"),
        (
            {"change": lambda w: w.add_type("adapter")},
            r"holds an adapter for another model: merge it .* \(general\.type is 'adapter'\)",
        ),
        ({"change": lambda w: w.add_uint16("split.count", 3)}, r"one of 3 parts \(split\.count\)"),
        ({"change": lambda w: w.add_tensor("output.bias", np.zeros(23, np.float32))}, "output.bias is not part"),
        (
            {"change": lambda w: w.add_tensor("blk.2.ffn_up.bias", np.zeros(256, np.float32))},
            "not part of a GPT-2 of 2",
        ),
        ({"change": lambda w: w.add_logit_scale(0.5)}, r"gpt2\.logit_scale is 0\.5, but a GPT-2 has no such key"),
        ({"change": lambda w: w.add_causal_attention(False)}, r"gpt2\.attention\.causal is False; only True"),
        ({"change": lambda w: w.add_head_count_kv(2)}, r"gpt2\.attention\.head_count_kv is 2; only 4"),
        ({"change": lambda w: w.add_vocab_size(24)}, r"gpt2\.vocab_size is 24; only 23"),
        ({"change": lambda w: w.add_array("gpt2.attention.key_length", [16, 16])}, "key_length is a list of 2"),
    ],
)
def test_what_is_no_whole_gpt2_is_named(by_gguf, how, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(by_gguf(**how))


def test_sizes_of_types_are_those_of_the_gguf_package():
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {kind: (precision.block, precision.dtype.itemsize) for kind, precision in GGML_TYPES.items()}
    assert ours == {**ours, **theirs} and len(ours) >= len(theirs)
