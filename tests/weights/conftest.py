import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.config import ModelConfig
from gpt2lab.weights import Checkpoint, tensor_shapes

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests

from hub_server import Hub, point_hub_at

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def golden():
    return GOLDEN


@pytest.fixture
def make_checkpoint(tmp_path):
    def make(config=None, *, tokenizer_files=None, seed=0):
        config = config or ModelConfig(n_vocab=23, n_ctx=7, n_embd=64, n_head=4, n_layer=2)
        random = np.random.default_rng(seed)
        tensors = {
            name: random.standard_normal(shape, dtype=np.float32) for name, shape in tensor_shapes(config).items()
        }
        return Checkpoint(config, tensors, tokenizer_files, "test", "float32", tmp_path / "made")

    return make


@pytest.fixture
def same():
    """Compare two checkpoints: shape and every tensor's bits."""

    def compare(left, right):
        assert left.config == right.config
        assert left.tokenizer_files == right.tokenizer_files
        assert list(left.tensors) == list(right.tensors)
        for name, tensor in left.tensors.items():
            assert tensor.flags.c_contiguous and tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, right.tensors[name], err_msg=name)

    return compare


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Provide a hub without any repository, in place of the real one, and an empty cache, in an empty folder."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    running = Hub()
    point_hub_at(monkeypatch, running.url, tmp_path / "cache")
    yield running
    running.close()
