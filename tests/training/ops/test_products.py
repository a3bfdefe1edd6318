"""Products of the native core beside NumPy's in float64, and their use in training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training import memory
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops import attention, loss, norms, products
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.products import multiply, native_is_faster
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.settings import Settings

SIZES = st.integers(1, 70)
NATIVE = Compute(native=True)


def random(rng, rows, columns, transposed):
    return (
        rng.normal(size=(columns, rows)).astype("f4").T if transposed else rng.normal(size=(rows, columns)).astype("f4")
    )


@pytest.mark.parametrize("isa", _native.instruction_sets())
@given(
    m=SIZES,
    k=SIZES | st.sampled_from([769, 1540]),
    n=SIZES,
    turned=st.tuples(st.booleans(), st.booleans()),
    threads=st.integers(1, 3),
    begin=st.sampled_from(["nothing", "bias", "sums"]),
)
def test_products_are_those_of_numpy(isa, m, k, n, turned, threads, begin):
    rng = np.random.default_rng(m * k + n)
    a, b = random(rng, m, k, turned[0]), random(rng, k, n, turned[1])
    bias, out = rng.normal(size=n).astype("f4"), rng.normal(size=(m, n)).astype("f4")
    expected = a.astype("f8") @ b + {"nothing": 0, "bias": bias, "sums": out}[begin]
    bias_or_none = bias if begin == "bias" else None
    _native.TrainingCore(threads, isa).multiply(a, b, out, bias_or_none, begin == "sums")
    assert np.abs(out - expected).max() <= 1e-6 * k + 1e-5


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize(("turned", "begin"), [(False, "bias"), (True, "sums")])
def test_gelu_may_come_before_a_product(isa, turned, begin):
    rng = np.random.default_rng(2)
    a, b = 3 * random(rng, 61, 769, turned), random(rng, 769, 40, not turned)
    out, bias = np.ones((61, 40), "f4"), rng.normal(size=40).astype("f4")
    expected = gelu(a.astype("f8")) @ b + (bias if begin == "bias" else out)
    _native.TrainingCore(2, isa).multiply(a, b, out, bias if begin == "bias" else None, begin == "sums", True)
    assert np.abs(out - expected).max() <= 1e-3


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("isa", _native.instruction_sets())
@given(x=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), threads=st.integers(1, 3))
def test_the_gradient_of_gelu_is_that_of_pytorch(isa, x, threads):
    numbers = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.gelu(numbers, approximate="tanh").sum().backward()
    rows = np.tile(np.array(x, "f4"), (3, 1))
    _native.TrainingCore(threads, isa).gelu_gradient(rows, np.full_like(rows, 2), rows)
    assert np.abs(rows - 2 * numbers.grad.numpy()).max() <= 1e-5


def test_a_gradient_of_another_shape_is_refused():
    x, d, wide = np.zeros((3, 4), "f4"), np.zeros((3, 5), "f4"), np.zeros((3, 8), "f4")
    core = _native.TrainingCore(1, "")
    with pytest.raises(ValueError, match="the shape"):
        core.gelu_gradient(x, d, x)
    with pytest.raises(ValueError, match="lie together"):
        core.gelu_gradient(x, wide[:, ::2], x)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_the_number_of_threads_changes_no_bit(isa):
    rng = np.random.default_rng(1)
    a, b = random(rng, 200, 1600, False), random(rng, 1600, 333, True)
    results = [np.empty((200, 333), "f4") for _ in range(3)]
    for threads, out in enumerate(results, start=1):
        _native.TrainingCore(threads, isa).multiply(a, b, out)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_what_is_not_finite_stays_in_its_row_and_column(isa):
    a, b, out = np.ones((13, 40), "f4"), np.ones((40, 35), "f4"), np.empty((13, 35), "f4")
    a[12, 0], b[1, 34] = np.inf, np.nan
    _native.TrainingCore(1, isa).multiply(a, b, out)
    assert np.isfinite(out[:12, :34]).all()
    assert np.isinf(out[12, :34]).all()
    assert np.isnan(out[:, 34]).all()


@pytest.mark.parametrize(
    ("a", "b", "out", "bias", "add", "message"),
    [
        ((3, 4), (5, 6), (3, 6), None, False, "do not fit"),
        ((3, 4), (4, 6), (3, 5), None, False, "do not fit"),
        ((3, 4), (4, 6), (3, 6), 5, False, "do not fit"),
        ((3, 0), (0, 6), (3, 6), None, False, "rows and columns"),
        ((3, 4), (4, 6), (3, 6), 6, True, "no bias"),
    ],
)
def test_what_does_not_fit_is_refused(a, b, out, bias, add, message):
    matrices = [np.zeros(shape, "f4") for shape in (a, b, out)]
    with pytest.raises(ValueError, match=message):
        _native.TrainingCore(1, "").multiply(*matrices, None if bias is None else np.zeros(bias, "f4"), add)


def test_rows_that_are_not_whole_are_refused():
    a, b, wide = np.zeros((6, 8), "f4"), np.zeros((4, 5), "f4"), np.zeros((6, 10), "f4")
    core = _native.TrainingCore(1, "")
    with pytest.raises(ValueError, match="lie together"):
        core.multiply(a[::2, ::2], b, np.zeros((3, 5), "f4"))
    with pytest.raises(ValueError, match="lie together"):
        core.multiply(np.broadcast_to(np.float32(1), (6, 4)), b, np.zeros((6, 5), "f4"))
    with pytest.raises(ValueError, match="whole rows"):
        core.multiply(a[:, :4], b, wide[:, ::2])


def test_other_types_are_refused_and_not_converted():
    matrices = [np.ones((4, 4), "f4") for _ in range(3)]
    for place in range(3):
        others = [matrix.astype("f8") if i == place else matrix for i, matrix in enumerate(matrices)]
        with pytest.raises(TypeError):
            _native.TrainingCore(1, "").multiply(*others)


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_impossible_numbers_of_threads_are_refused(threads):
    with pytest.raises(ValueError, match="threads must be from 1 to 1024"):
        _native.TrainingCore(threads, "")


def test_what_the_native_core_cannot_multiply_is_left_to_pytorch():
    column = torch.arange(64.0)[:, None].expand(64, 64)  # its columns share their memory
    product = multiply(column, torch.ones(64, 64), torch.empty(64, 64), NATIVE)
    torch.testing.assert_close(product, column @ torch.ones(64, 64))
    turned = multiply(column, torch.ones(64, 64), torch.empty(64, 64).t(), NATIVE)
    torch.testing.assert_close(turned, product)
    every_second = torch.arange(128.0)[::2]
    biased = multiply(torch.ones(64, 64), torch.ones(64, 64), torch.empty(64, 64), NATIVE, bias=every_second)
    torch.testing.assert_close(biased, 64 + every_second.expand(64, 64))
    halves = torch.ones(64, 64, dtype=torch.bfloat16)
    assert multiply(halves, halves, torch.empty_like(halves), NATIVE)[0, 0] == 64


def gradients(native, monkeypatch, recompute="cheap", lora=0, share=0.8):
    monkeypatch.setattr(products, "LEAST", 1)
    monkeypatch.setattr(loss, "CHUNK_ROWS", 50)  # gradients of several chunks are added
    torch.manual_seed(1)
    config = ModelConfig(n_vocab=301, n_ctx=40, n_embd=24, n_head=3, n_layer=2)
    model = GPT2(config, compute=Compute(recompute=recompute, native=native))
    choose_trainable(model, Settings(lora=lora))
    tokens = torch.randint(0, 301, (3, 40))
    value = model(tokens, tokens.flip(0), torch.rand(3, 40) < share)
    value.backward()
    return {"loss": value.detach(), **{name: p.grad for name, p in model.named_parameters() if p.requires_grad}}


@pytest.mark.parametrize("setup", [{}, {"recompute": "layers"}, {"lora": 4}, {"share": 1.0}, {"share": 0.0}], ids=str)
def test_losses_and_gradients_are_those_of_pytorch(setup, monkeypatch):
    ours, theirs = gradients(True, monkeypatch, **setup), gradients(False, monkeypatch, **setup)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_the_native_core_is_what_multiplies(monkeypatch):
    class Counting:
        calls = gelus = 0

        def multiply(self, *arguments):
            Counting.calls += 1
            native.multiply(*arguments)

        def gelu_gradient(self, *arguments):
            Counting.gelus += 1
            native.gelu_gradient(*arguments)

    native = _native.TrainingCore(1, "")
    monkeypatch.setattr(products, "_core", lambda threads: Counting())
    for module in (attention, norms):
        monkeypatch.setattr(module, "core", lambda: native)
    gradients(True, monkeypatch)
    assert Counting.calls == 2 * 4 * 3 + 2 * 3  # each matrix of each layer, and each of two chunks of logits
    assert Counting.gelus == 2


@pytest.mark.parametrize(
    ("asked", "vendor", "native"),
    [
        ("", "AuthenticAMD", True),
        ("avx2", "AuthenticAMD", True),
        ("baseline", "AuthenticAMD", False),
        ("", "GenuineIntel", False),
    ],
)
def test_the_native_core_is_asked_in_float32_where_it_is_faster(monkeypatch, asked, vendor, native):
    monkeypatch.setenv("GPT2LAB_ISA", asked)
    monkeypatch.setattr(_native, "instruction_sets", lambda: ["avx512", "avx2", "baseline"])
    monkeypatch.setattr(_native, "cpu_vendor", lambda: vendor)
    assert native_is_faster("float32") is native


@pytest.mark.parametrize(
    ("asked", "found", "native"), [("", "amx", True), ("avx512", "amx", False), ("", "avx2", False)]
)
def test_the_native_core_is_asked_in_bfloat16_on_a_matrix_unit(monkeypatch, asked, found, native):
    monkeypatch.setenv("GPT2LAB_ISA", asked)
    monkeypatch.setattr(_native, "instruction_sets", lambda: list(dict.fromkeys((found, "avx512", "baseline"))))
    assert native_is_faster("bfloat16") is native


def test_an_instruction_set_that_is_not_there_is_a_users_error(monkeypatch):
    monkeypatch.setenv("GPT2LAB_ISA", "mmx")
    with pytest.raises(UsageError, match="GPT2LAB_ISA is 'mmx'"):
        native_is_faster("float32")


def test_the_interpreter_ends_while_matrices_are_multiplied():
    code = """
import threading, numpy as np
from gpt2lab import _native
a, out = np.ones((900, 900), "f4"), np.empty((900, 900), "f4")
core = _native.TrainingCore(2, "")
def work():
    while True: core.multiply(a, a, out)
threading.Thread(target=work, daemon=True).start()
core.multiply(a, a, out)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_estimate_of_memory_knows_the_rows_of_logits():
    assert (memory.LOSS_ROWS, memory.FROZEN_LOSS_ROWS) == (loss.CHUNK_ROWS, loss.FROZEN_CHUNK_ROWS)
