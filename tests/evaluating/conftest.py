"""A small random model with GPT-2's vocabulary, on the native engine and in transformers, and a local server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import needs
from gpt2lab import Tokenizer
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.evaluating import Run
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))  # for its HTTP server

DATA = Path(__file__).parent / "data"
CONFIG = ModelConfig(n_vocab=50257, n_ctx=64, n_embd=32, n_head=2, n_layer=2)


@pytest.fixture(scope="session")
def twins():
    """Provide (native engine, transformers' model) with the same weights, large enough to prefer some tokens."""
    torch = needs.package("torch")
    transformers = needs.package("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=CONFIG.n_ctx, n_embd=CONFIG.n_embd, n_head=CONFIG.n_head, n_layer=2)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = model.transformer.state_dict()
    tensors = {name: state[name].numpy() for name in tensor_shapes(CONFIG)}
    return NativeEngine(Checkpoint(CONFIG, tensors, None, "random", "float32", Path("random")), threads=1), model


@pytest.fixture(scope="session")
def engine(twins):
    return twins[0]


@pytest.fixture(scope="session")
def hf_logprobs(twins):
    """Provide ``hf_logprobs(ids)``: transformers' log-probabilities of every id at every place, [len(ids), n_vocab]."""
    import torch

    def compute(ids):
        with torch.no_grad():
            return torch.log_softmax(twins[1](torch.tensor([ids])).logits[0].double(), -1).numpy()

    return compute


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.gpt2()


@pytest.fixture
def run(engine, tokenizer):
    yield Run(engine, tokenizer)
    assert engine.kv_cache_bytes == 0, "a sequence was left behind"


@pytest.fixture
def server(monkeypatch, tmp_path):
    from http_server import Server

    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path / "cache"))
    running = Server()
    yield running
    running.close()


@pytest.fixture
def data():
    """Provide the folder of the miniature data sets."""
    return DATA
