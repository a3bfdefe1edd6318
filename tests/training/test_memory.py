import os
import subprocess
import sys

import pytest

import needs
from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.training.memory import estimate
from gpt2lab.training.settings import Settings

SMALL = RELEASED_SIZES["124M"]


def total(**settings):
    return estimate(SMALL, Settings(**{"batch_size": 1, "accumulate_gradients": 1, **settings})).total


def test_what_saves_memory_is_estimated_to():
    assert total(memory_saving_gradients=True) < total() < total(batch_size=4) < total(batch_size=4, dropout=0.1)
    assert total(lora=8) < 0.6 * total()
    assert total(optimizer="sgd") < total(optimizer="muon") < total()
    assert total(accumulate_gradients=2) > total()


def test_weights_gradients_and_moments_are_counted_exactly():
    counted = estimate(SMALL, Settings())
    assert counted.weights == counted.gradients == counted.optimizer // 2 == 4 * SMALL.n_params
    assert "at the peak" in str(counted)


def test_fsdp_spreads_them():
    assert estimate(SMALL, Settings(parallel="fsdp"), 4).optimizer == estimate(SMALL, Settings()).optimizer // 4


# the peak from /proc: getrusage counts what the parent had when it forked
TRAIN = """
from gpt2lab.training.memory import prepare_process
prepare_process(2)
import torch
from gpt2lab.config import ModelConfig
from gpt2lab.training.module import GPT2
from gpt2lab.training.optimizers import choose_trainable, make_optimizers
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.pool import Pool
from gpt2lab.training.settings import Settings
settings = Settings(**{settings})
recompute = "layers" if settings.memory_saving_gradients else "cheap"
model = GPT2(ModelConfig(**{shape}), compute=Compute(recompute=recompute, pool=Pool(4 << 30)))
choose_trainable(model, settings)
optimizers = make_optimizers(model, settings)
for _ in range(3):
    tokens = torch.randint(50257, (settings.batch_size, 512))
    model(tokens, tokens).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # kB
"""


@pytest.mark.slow
@needs.mark("Linux")
@pytest.mark.parametrize("extra", [{}, {"memory_saving_gradients": True}, {"lora": 8}])
def test_the_estimate_is_near_the_measured_peak(extra):
    shape = {"n_ctx": 512, "n_embd": 512, "n_head": 8, "n_layer": 8}
    settings = {"batch_size": 4, "accumulate_gradients": 1, "block_size": 512, **extra}
    code = TRAIN.replace("{settings}", repr(settings)).replace("{shape}", repr(shape))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    expected = estimate(ModelConfig(**shape), Settings(**settings)).total
    assert expected == pytest.approx(1024 * int(run.stdout), rel=0.2)
