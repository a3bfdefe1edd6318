"""The native engine against Hugging Face transformers, an implementation that shares no code with ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

torch = needs.package("torch")
transformers = needs.package("transformers")

SMALL = ModelConfig(n_vocab=1000, n_ctx=128, n_embd=96, n_head=6, n_layer=3)
LARGE = [
    pytest.param(ModelConfig(), marks=pytest.mark.slow, id="124M"),
    pytest.param(ModelConfig(n_embd=1600, n_head=25, n_layer=4), marks=pytest.mark.slow, id="4 layers of 1558M"),
]


def build(config: ModelConfig) -> tuple[NativeEngine, torch.nn.Module]:
    """Give both the same random weights: transformers' own initialisation, widened so that biases count too."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.n_vocab,
            n_positions=config.n_ctx,
            n_embd=config.n_embd,
            n_head=config.n_head,
            n_layer=config.n_layer,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    state = model.transformer.state_dict()
    tensors = {name: state[name].numpy() for name in tensor_shapes(config)}
    return NativeEngine(Checkpoint(config, tensors, None, "random", "float32", Path("random"))), model


@pytest.fixture(scope="module", params=[pytest.param(SMALL, id="small"), *LARGE])
def pair(request):
    return build(request.param)


def test_logits_are_equal(pair):
    engine, model = pair
    config = engine.config
    tokens = np.random.default_rng(1).integers(0, config.n_vocab, 100).astype(np.int32)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
    logits = engine.forward([engine.new_sequence()], [tokens], "all")
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def test_greedy_continuations_are_equal(pair):
    engine, model = pair
    length = min(200, engine.config.n_ctx - 8)
    prompt = [11, 22, 33, 44, 55, 66, 77, 88]
    options = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=length, min_new_tokens=length, pad_token_id=0, eos_token_id=None
    )
    with torch.no_grad():
        expected = model.generate(torch.tensor([prompt]), generation_config=options)[0].tolist()
    sequence, tokens = engine.new_sequence(), list(prompt)
    logits = engine.forward([sequence], [tokens])
    for _ in range(length):
        ids, _ = engine.sample(logits, [SamplingParams(temperature=0)], [0], [0], [len(tokens)], [()])
        tokens.append(int(ids[0]))
        if len(tokens) < len(expected):
            logits = engine.forward([sequence], [tokens[-1:]])
    assert tokens == expected
