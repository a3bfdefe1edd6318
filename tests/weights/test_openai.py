import json
import shutil

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.reference import forward
from gpt2lab.weights import open_checkpoint
from tf_bundle import write_bundle


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_reads_what_the_original_saved(golden, name):
    checkpoint = open_checkpoint(golden / name)
    assert checkpoint.config.to_hparams() == json.loads((golden / name / "hparams.json").read_text())
    assert (checkpoint.format, checkpoint.precision, checkpoint.tokenizer_files) == ("openai", "float32", None)


def test_weights_give_the_originals_logits(golden):
    checkpoint = open_checkpoint(golden / "odd")
    numbers = np.load(golden / "odd" / "golden.npz")
    logits = forward(dict(checkpoint.tensors), checkpoint.config, numbers["full_tokens"][0])
    logits = logits[0] if isinstance(logits, tuple) else logits
    np.testing.assert_allclose(logits, numbers["full_logits"][0], atol=1e-4)


@pytest.mark.parametrize(("n_shards", "compress"), [(1, True), (3, False)])
def test_partitioned_data_and_compressed_index(tmp_path, make_checkpoint, same, n_shards, compress):
    made = make_checkpoint()
    folder = write_bundle(tmp_path / "m", made, n_shards=n_shards, compress=compress)
    same(open_checkpoint(folder), made)


def test_a_fine_tuning_run_folder_opens_at_its_newest_and_by_prefix(tmp_path, make_checkpoint, same):
    first, second = make_checkpoint(seed=1), make_checkpoint(seed=2)
    write_bundle(tmp_path / "run1", first, prefix="model-100")
    write_bundle(tmp_path / "run1", second, prefix="model-200")
    same(open_checkpoint(tmp_path / "run1"), second)
    same(open_checkpoint(tmp_path / "run1" / "model-100"), first)
    same(open_checkpoint(tmp_path / "run1" / "model-100.index"), first)


def test_a_checkpoint_file_with_a_path_from_another_machine_means_its_last_part(tmp_path, make_checkpoint, same):
    made = make_checkpoint()
    folder = write_bundle(tmp_path / "m", made, prefix="model-7")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/content/checkpoint/run1/model-7"\n')
    same(open_checkpoint(folder), made)


def test_optimiser_state_is_ignored(tmp_path, make_checkpoint, same):
    made = make_checkpoint()
    extra = [("model/wte/Adam", np.ones(3, np.float32)), ("beta1_power", np.ones((), np.float32))]
    same(open_checkpoint(write_bundle(tmp_path / "m", made, extra=extra)), made)


def test_own_vocabulary_is_read(tmp_path, make_checkpoint):
    folder = write_bundle(tmp_path / "m", make_checkpoint())
    (folder / "encoder.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (folder / "vocab.bpe").write_text("#version: 0.2\na b\n")
    files = open_checkpoint(folder).tokenizer_files
    assert (files.encoder, files.merges) == ({"a": 0, "b": 1, "ab": 2}, ["a b"])


def test_without_hparams_a_released_shape_is_recognised(tmp_path, make_checkpoint, monkeypatch):
    made = make_checkpoint()
    monkeypatch.setattr("gpt2lab.weights.openai.RELEASED_SIZES", {"x": made.config})
    assert open_checkpoint(write_bundle(tmp_path / "m", made, hparams=False)).config == made.config


def test_without_hparams_another_shape_is_refused(tmp_path, make_checkpoint):
    folder = write_bundle(tmp_path / "m", make_checkpoint(), hparams=False)
    with pytest.raises(CheckpointError, match=r"hparams.json is missing"):
        open_checkpoint(folder)


def test_a_flipped_bit_in_the_data_is_found_when_the_tensor_is_read(tmp_path, golden):
    folder = tmp_path / "m"
    shutil.copytree(golden / "odd", folder)
    data = folder / "model.ckpt.data-00000-of-00001"
    data.chmod(0o644)
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.unlink()
    data.write_bytes(content)
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="checksum"):
        [checkpoint.tensors[name] for name in checkpoint.tensors]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": 2}, "not one whole float32"),
        ({"size": 8}, "has 8 bytes"),
        ({"offset": 1 << 50}, "cut short or corrupt"),
        ({"offset": 64}, "share the bytes"),
    ],
)
def test_lying_entries_are_refused(tmp_path, make_checkpoint, change, message):
    folder = write_bundle(tmp_path / "m", make_checkpoint(), change={"model/wpe": change})
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_a_shard_that_is_not_there_is_named(tmp_path, make_checkpoint):
    folder = write_bundle(tmp_path / "m", make_checkpoint(), n_shards=2)
    (folder / "model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(CheckpointError, match="data-00001-of-00002"):
        open_checkpoint(folder)


def test_hparams_that_claim_a_billion_layers_cost_nothing(tmp_path, make_checkpoint):
    folder = write_bundle(tmp_path / "m", make_checkpoint())
    (folder / "hparams.json").write_text(json.dumps({**ModelConfig().to_hparams(), "n_layer": 10**9}))
    with pytest.raises(CheckpointError, match="too few"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "", "a\0b"])
def test_a_checkpoint_file_that_leads_elsewhere_stays_in_the_folder(tmp_path, make_checkpoint, name):
    folder = write_bundle(tmp_path / "m", make_checkpoint())
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)
