"""Packed weights are read at the next start, and only if the files have the same contents."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.engines import digests, loading, packed_entries
from gpt2lab.engines.loading import cached_precisions, load_weights
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import Checkpoint

CONFIG = ModelConfig(n_vocab=7, n_ctx=8, n_embd=4, n_head=2, n_layer=1)


class Core:
    """A core that packs a checkpoint's two tensors side by side and counts its calls."""

    def __init__(self, size: int = 200) -> None:
        self.packed = np.zeros(size, np.uint8)
        self.packed_size = size
        self.packings = 0
        self.loaded = False

    def set_tensor(self, name: str, values: np.ndarray) -> None:
        self.packings += 1
        self.packed[:100] = values[:100].astype(np.uint8)
        self.packed[100:] = 7
        self.loaded = name == "b"

    def mark_loaded(self) -> None:
        self.loaded = True


class Tensors(dict):
    """A mapping from each tensor to the first file's bytes at the moment of the access."""

    def __init__(self, path: Path) -> None:
        super().__init__(a=path, b=path)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.frombuffer(super().__getitem__(name).read_bytes(), np.uint8).astype(np.float32)


def checkpoint(path: Path, config: ModelConfig = CONFIG) -> Checkpoint:
    return Checkpoint(config, Tensors(path), None, "made", "float32", path, (path,))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(bytes(range(100)))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "LEAST_SIZE", 100)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    return tmp_path / "cache" / "packed"


def load(path: Path, precision: str = "int8", size: int = 200) -> Core:
    core = Core(size)
    load_weights(core, checkpoint(path), precision)
    assert core.loaded
    assert bytes(core.packed[:100]) == path.read_bytes()[:100]
    return core


def is_cached(path: Path, precision: str = "int8") -> bool:
    return load(path, precision).packings == 0


def test_the_second_start_packs_nothing(model: Path) -> None:
    assert load(model).packings == 2
    assert load(model).packings == 0


def test_the_second_start_does_not_read_the_checkpoint(model: Path, monkeypatch) -> None:
    load(model)
    monkeypatch.setattr(digests, "content_digest", None)
    assert is_cached(model)


def test_each_precision_is_packed_for_itself(model: Path) -> None:
    load(model)
    assert not is_cached(model, "int4")
    assert is_cached(model, "int4")
    assert cached_precisions(checkpoint(model)) == ["int8", "int4"]


@pytest.mark.parametrize(
    ("switch", "shared"),
    [
        ({"n_inner": 5}, False),
        ({"tie_word_embeddings": False}, False),
        ({"activation": "gelu", "scale_attn_weights": False, "layer_norm_epsilon": 1e-6}, True),
    ],
)
def test_models_share_an_entry_if_no_weight_lies_elsewhere(model: Path, cache: Path, switch, shared: bool) -> None:
    load(model)
    core = Core()
    load_weights(core, checkpoint(model, dataclasses.replace(CONFIG, **switch)), "int8")
    assert (core.packings == 0) == shared
    assert (
        len(packed_entries.entries(cache)) == 1
    )  # a model's older entry is replaced, and each has a name that is known
    packed_entries.clear(cache)
    assert not list(cache.iterdir())


def test_a_changed_checkpoint_is_packed_anew(model: Path) -> None:
    load(model)
    times = model.stat()
    model.write_bytes(bytes(range(100, 200)))
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cached_precisions(checkpoint(model)) == []
    assert not is_cached(model)
    assert is_cached(model)


def test_a_copy_finds_what_the_original_left(model: Path) -> None:
    load(model)
    copy = model.with_name("copy")
    shutil.copyfile(model, copy)
    assert is_cached(copy)
    model.unlink()
    assert is_cached(copy)


def test_a_touched_checkpoint_finds_what_it_left(model: Path) -> None:
    load(model)
    os.utime(model)
    assert is_cached(model)


def test_a_checkpoint_that_changes_while_it_is_packed_is_not_kept(model: Path, monkeypatch) -> None:
    class Busy(Core):
        def set_tensor(self, name: str, values: np.ndarray) -> None:
            super().set_tensor(name, values)
            model.write_bytes(bytes(range(50, 150)))

    core = Busy()
    load_weights(core, checkpoint(model), "int8")
    assert core.loaded
    assert not is_cached(model)


def test_a_checkpoint_that_changes_while_it_is_hashed_is_not_kept(model: Path, cache: Path, monkeypatch) -> None:
    digest = digests.content_digest

    def slow(files):
        result = digest(files)
        model.write_bytes(bytes(range(50, 150)))
        return result

    monkeypatch.setattr(digests, "content_digest", slow)
    load(model)
    assert list(cache.iterdir()) == []


def test_a_checkpoint_that_has_just_been_written_is_not_kept(model: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", 60.0)
    load(model)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\0", lambda data: b""])
def test_a_damaged_entry_is_made_again(model: Path, cache: Path, damage) -> None:
    load(model)
    (entry,) = cache.glob("*.packed")
    entry.write_bytes(damage(entry.read_bytes()))
    assert not is_cached(model)
    assert is_cached(model)


def test_clearing_leaves_a_loaded_model_alone(model: Path, cache: Path) -> None:
    load(model)
    core = load(model)
    packed_entries.clear(cache)
    assert bytes(core.packed[:100]) == model.read_bytes()
    assert not is_cached(model)


def test_float32_small_and_unnamed_models_are_not_kept(model: Path, cache: Path) -> None:
    load(model, "float32")
    loading.LEAST_SIZE = 1000
    load(model)
    made = Checkpoint(CONFIG, Tensors(model), None, "made", "float32", model)
    load_weights(Core(), made, "int8")
    assert not cache.exists()


def test_nothing_is_kept_with_the_cache_off(model: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("GPT2LAB_CACHE", "off")
    load(model)
    assert not is_cached(model)
    assert cached_precisions(checkpoint(model)) == []
    assert not cache.exists()


# ---- where nothing can be kept, the model loads all the same, with one line of warning -------------------------------


def test_a_folder_that_cannot_be_made_is_one_warning(model: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path / "file"))
    load(model)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"packed weights cannot be stored in {tmp_path / 'file' / 'packed'} (" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_folder_that_cannot_be_written_to_is_one_warning_and_no_digest(model, cache, monkeypatch, caplog) -> None:
    cache.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != cache)
    monkeypatch.setattr(digests, "content_digest", None)
    load(model)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_full_disk_is_one_warning_and_leaves_nothing(model: Path, cache: Path, monkeypatch, caplog) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    load(model)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "(No space left on device)" in caplog.text
    assert list(cache.iterdir()) == []


def test_a_cache_that_can_only_be_read_is_used(model: Path, monkeypatch, caplog) -> None:
    load(model)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    assert is_cached(model)
    assert caplog.records == []


# ---- what a precision cannot hold ------------------------------------------------------------------------------------


def test_values_that_a_precision_cannot_hold_are_one_line_that_names_the_tensor(tmp_path: Path) -> None:
    from gpt2lab.engines import open_engine
    from gpt2lab.weights.checkpoint import tensor_shapes

    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(CONFIG).items()}
    tensors["h.0.mlp.c_fc.weight"][0, 0] = np.inf
    made = Checkpoint(CONFIG, tensors, None, "made", "float32", tmp_path / "model")
    with pytest.raises(
        UsageError, match=r"model cannot be held in int8 \(h\.0\.mlp\.c_fc\.weight has values that are not"
    ):
        open_engine(made, precision="int8")
    open_engine(made, precision="float32")


def test_a_checkpoint_replaced_since_it_was_opened_neither_takes_nor_leaves_an_entry(model: Path) -> None:
    opened, core = checkpoint(model), Core()
    new = model.with_name("new")
    new.write_bytes(bytes(range(100, 200)))
    new.replace(model)
    load_weights(core, opened, "int8")
    assert core.packings == 2
    assert not is_cached(model)
    load_weights(core, opened, "int8")
    assert core.packings == 4
