"""Folders in int8 and int4: what is stored, that loading rounds nothing again, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import convert, open_checkpoint
from gpt2lab.weights.describe import weights_sha256
from gpt2lab.weights.integers import encode, is_matrix

WIDE = ModelConfig(n_vocab=23, n_ctx=7, n_embd=320, n_head=4, n_layer=1)  # two and five blocks of inputs
FILE = "weights-int8.safetensors"
BOTH = pytest.mark.parametrize("precision", ["int8", "int4"])


@pytest.fixture
def folder(tmp_path, make_checkpoint):
    """Make a folder whose tensors or config are changed after it was written."""

    def make(change=lambda tensors: None, precision="int8", **config):
        path, file = tmp_path / precision, f"weights-{precision}.safetensors"
        convert(make_checkpoint(WIDE), path, precision=precision)
        tensors = dict(safetensors.numpy.load_file(path / file))
        change(tensors)
        safetensors.numpy.save_file(tensors, path / file)
        values = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**values, **config}))
        return path

    return make


def packed(checkpoint, precision="int8"):
    return NativeEngine(checkpoint, precision=precision, threads=1)._core.packed.tobytes()


def test_matrices_are_whole_numbers_with_a_scale_for_each_block_of_inputs(tmp_path, make_checkpoint):
    made = make_checkpoint(WIDE)
    convert(made, tmp_path / "m", precision="int8")
    tensors = safetensors.numpy.load_file(tmp_path / "m" / FILE)
    for name, values in made.tensors.items():
        stored, scales = tensors[f"transformer.{name}"], tensors.get(f"transformer.{name}.scales")
        if not is_matrix(name):
            assert scales is None
            np.testing.assert_array_equal(stored, values, strict=True)
        elif name == "wte.weight":
            rounded = encode(values, "int8")
            np.testing.assert_array_equal(stored, rounded.q, strict=True)
            np.testing.assert_array_equal(scales, rounded.scales, strict=True)
        else:
            rounded = encode(np.ascontiguousarray(values.T), "int8")
            np.testing.assert_array_equal(stored, rounded.q.T, strict=True)
            np.testing.assert_array_equal(scales, rounded.scales.T, strict=True)


def test_int4_is_two_inputs_in_a_byte_with_a_factor_for_each_group(tmp_path, make_checkpoint):
    made = make_checkpoint(WIDE)
    convert(made, tmp_path / "m", precision="int4")
    tensors = safetensors.numpy.load_file(tmp_path / "m" / "weights-int4.safetensors")
    name = "transformer.h.0.mlp.c_proj.weight"  # [n_in, n_out]
    rounded = encode(np.ascontiguousarray(made.tensors[name.removeprefix("transformer.")].T), "int4")
    stored = tensors[name]
    np.testing.assert_array_equal(stored & 15, rounded.q.T[::2] + 8)
    np.testing.assert_array_equal(stored >> 4, rounded.q.T[1::2] + 8)
    np.testing.assert_array_equal(tensors[name + ".factors"], rounded.factors.T, strict=True)
    np.testing.assert_array_equal(tensors[name + ".scales"], rounded.scales.T, strict=True)


@BOTH
def test_tensors_are_read_as_the_rounded_weights(folder, make_checkpoint, precision):
    read = open_checkpoint(folder(precision=precision))
    assert (read.format, read.precision) == ("huggingface", precision)
    for name, values in make_checkpoint(WIDE).tensors.items():
        if name == "wte.weight":
            expected = encode(values, precision).decode()
        else:
            expected = encode(np.ascontiguousarray(values.T), precision).decode().T if is_matrix(name) else values
        np.testing.assert_array_equal(read.tensors[name], expected, err_msg=name)


@BOTH
def test_loading_packs_the_bytes_of_the_original(folder, make_checkpoint, precision):
    assert packed(open_checkpoint(folder(precision=precision)), precision) == packed(make_checkpoint(WIDE), precision)


@BOTH
def test_loading_the_built_in_model_rounds_nothing_again(tmp_path, precision):
    convert(open_checkpoint("tales"), tmp_path / "m", precision=precision)
    assert packed(open_checkpoint(tmp_path / "m"), precision) == packed(open_checkpoint("tales"), precision)


@BOTH
def test_numbers_that_rounding_would_not_choose_are_packed_as_they_are(folder, make_checkpoint, precision):
    def unlike_ours(tensors):  # the largest number of a block is small, and the scale has all its bits
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"] & 0x33
        tensors["transformer.wte.weight.scales"] = np.full_like(tensors["transformer.wte.weight.scales"], 0.1)

    read = open_checkpoint(folder(unlike_ours, precision))
    core = NativeEngine(read, precision=precision, threads=1)._core
    stored = read.tensors.integers("wte.weight", precision)
    core.set_integers("wte.weight", *stored)
    assert core.packed.tobytes() == packed(read, precision)
    assert stored.q.max() <= 0x33
    assert (stored.scales == np.float32(0.1)).all()


@BOTH
def test_scales_that_make_weights_infinite_are_refused_when_the_numbers_are_packed(folder, precision):
    read = open_checkpoint(folder(lambda t: t["transformer.wte.weight.scales"].fill(3e38), precision))
    with pytest.raises(CheckpointError, match=r"wte\.weight\.scales has values that are .*too large"):
        NativeEngine(read, precision=precision, threads=1)


@BOTH
def test_a_copy_holds_the_same_numbers(folder, tmp_path, precision):
    path = folder(precision=precision)
    convert(open_checkpoint(path), tmp_path / "again")
    file = f"weights-{precision}.safetensors"
    ours, copied = (safetensors.numpy.load_file(where / file) for where in (path, tmp_path / "again"))
    assert ours.keys() == copied.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(copied[name], values, strict=True)


def test_weights_of_any_size_are_rounded_once(tmp_path, make_checkpoint):
    made = make_checkpoint(WIDE)
    sizes = np.random.default_rng(1)
    tensors = {
        name: values * np.float32(10) ** sizes.integers(-35, 30, values.shape[-1]).astype(np.float32)
        for name, values in made.tensors.items()
    }
    convert(replace(made, tensors=tensors), tmp_path / "m", precision="int8")
    once = open_checkpoint(tmp_path / "m")
    convert(once, tmp_path / "again")
    assert (tmp_path / "again" / FILE).read_bytes() == (tmp_path / "m" / FILE).read_bytes()


def test_other_formats_get_the_same_weights(folder, tmp_path):
    read = open_checkpoint(folder())
    convert(read, tmp_path / "m.gguf")
    convert(read, tmp_path / "folder", precision="float32")
    for path in ("m.gguf", "folder"):
        assert open_checkpoint(tmp_path / path).precision == "float32"
        assert weights_sha256(open_checkpoint(tmp_path / path)) == weights_sha256(read)


def test_a_gguf_file_in_int8_is_refused(tmp_path, make_checkpoint):
    with pytest.raises(CheckpointError, match=r"a \.gguf file holds .*; for int8, write a folder"):
        convert(make_checkpoint(), tmp_path / "m.gguf", precision="int8")


def as_matrix(tensors, name, kind):
    tensors[f"transformer.{name}"] = tensors[f"transformer.{name}"].astype(kind)


def smallest(tensors):
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].copy()
    tensors["transformer.wte.weight"][3, 5] = -128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer.wte.weight.scales"), r"wte\.weight\.scales is missing"),
        (lambda t: t.pop("transformer.wte.weight"), r"wte\.weight\.scales belongs to no matrix"),
        (lambda t: t.pop("transformer.h.0.ln_1.bias"), r"h\.0\.ln_1\.bias is missing"),
        (
            lambda t: t.update({"transformer.wte.weight.scales": np.zeros((3, 23), np.float32)}),
            r"scales has shape \[3, 23\], not \[23, 2\]",
        ),
        (lambda t: t.update({"transformer.wte.weight": np.zeros(23, np.int8)}), r"of shape \[23\] is not a matrix"),
        (
            lambda t: t.update(
                {
                    "transformer.wte.weight": np.zeros((24, 320), np.int8),
                    "transformer.wte.weight.scales": np.zeros((24, 2), np.float32),
                }
            ),
            r"wte\.weight has shape \[24, 320\], not \[23, 320\]",
        ),
        (lambda t: as_matrix(t, "wte.weight", np.float32), r"wte\.weight has dtype F32, not I8"),
        (lambda t: as_matrix(t, "wte.weight.scales", np.float64), r"scales has dtype F64, not F32"),
        (lambda t: as_matrix(t, "wpe.weight", np.int8), r"wpe\.weight has dtype I8"),
        (smallest, r"wte\.weight holds -128"),
        (
            lambda t: t["transformer.wte.weight.scales"].fill(np.inf),
            r"wte\.weight\.scales has values that are NaN or inf",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, change, message):
    path = folder(change)
    with pytest.raises(CheckpointError, match=message):
        dict(open_checkpoint(path).tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer.wte.weight.factors"), r"wte\.weight\.factors is missing"),
        (lambda t: t.pop("transformer.wte.weight"), r"wte\.weight\.(factors|scales) belongs to no matrix"),
        (lambda t: t["transformer.wte.weight.factors"].fill(16), r"factors has numbers beyond -15 … 15"),
        (lambda t: t["transformer.wte.weight.factors"].fill(-128), r"factors has numbers beyond -15 … 15"),
        (lambda t: as_matrix(t, "wte.weight", np.int8), r"wte\.weight has dtype I8, not U8"),
        (
            lambda t: t.update({"transformer.wte.weight.factors": np.ones((23, 9), np.int8)}),
            r"factors has shape \[23, 9\], not \[23, 10\]",
        ),
    ],
)
def test_tensors_of_int4_that_do_not_fit_are_refused(folder, change, message):
    path = folder(change, "int4")
    with pytest.raises(CheckpointError, match=message):
        dict(open_checkpoint(path).tensors)


def test_int4_of_an_odd_number_of_inputs_is_refused(tmp_path, make_checkpoint):
    with pytest.raises(CheckpointError, match=r"wte\.weight has 3 inputs, but int4 needs an even number"):
        convert(make_checkpoint(replace(WIDE, n_embd=3, n_head=1)), tmp_path / "m", precision="int4")


def test_a_precision_that_this_version_does_not_know_is_refused(folder):
    with pytest.raises(CheckpointError, match="gpt2lab_precision is 'int2'; only int8, int4 are supported"):
        open_checkpoint(folder(gpt2lab_precision="int2"))


def test_int8_in_a_folder_that_does_not_say_so_is_refused(folder):
    path = folder(model_type="gpt2")
    (path / FILE).rename(path / "model.safetensors")
    with pytest.raises(CheckpointError, match="has dtype I8, which is not one of"):
        open_checkpoint(path)


def test_values_that_are_not_finite_are_refused(tmp_path, make_checkpoint):
    made = make_checkpoint()
    made.tensors["h.0.mlp.c_fc.weight"][2, 3] = np.inf
    with pytest.raises(CheckpointError, match=r"c_fc\.weight cannot be stored: int8 is for finite values"):
        convert(made, tmp_path / "m", precision="int8")
    assert not (tmp_path / "m").exists()


def test_the_largest_values_are_stored(tmp_path, make_checkpoint):
    made = make_checkpoint()
    made.tensors["h.0.mlp.c_fc.weight"][2, 3] = np.finfo(np.float32).max
    convert(made, tmp_path / "m", precision="int8")
    values = open_checkpoint(tmp_path / "m").tensors["h.0.mlp.c_fc.weight"]
    assert values[2, 3] == pytest.approx(np.finfo(np.float32).max, rel=2**-16)


@pytest.mark.parametrize(("old", "new"), [("int8", "float32"), ("float32", "int8"), ("int8", "int4")])
def test_a_folder_never_holds_weights_of_two_models(tmp_path, make_checkpoint, old, new):
    convert(make_checkpoint(), tmp_path / "m", precision=old)
    with pytest.raises(CheckpointError, match=r"m holds .*\.safetensors, which would stay beside .*"):
        convert(make_checkpoint(seed=1), tmp_path / "m", precision=new, overwrite=True)


@pytest.mark.parametrize("loader", ["AutoModelForCausalLM", "GPT2LMHeadModel"])
def test_transformers_refuses_the_folder(folder, loader):
    transformers = needs.package("transformers")
    needs.package("torch")
    path = folder()
    with pytest.raises((ValueError, OSError), match=r"gpt2lab|no file named model\.safetensors"):
        getattr(transformers, loader).from_pretrained(path, local_files_only=True)
