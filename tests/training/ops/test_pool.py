"""Memory is lent again, but never while a tensor uses it."""

import gc
import mmap
import sys
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.config import ModelConfig
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops import pool as pools
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.pool import Pool
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.settings import Settings

FLOAT = torch.empty(0)
BYTE = torch.empty(0, dtype=torch.uint8)
PAGE = mmap.PAGESIZE
CAPACITY = 1 << 24  # bytes


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(pools, "LEAST", 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_is_an_ordinary_one(dtype, small):
    tensor = Pool(CAPACITY).empty(3, 5, like=torch.empty(0, dtype=dtype))
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((3, 5), dtype, True)
    tensor.fill_(2).add_(1)
    assert tensor.sum() == 45


def test_memory_is_lent_again_when_its_tensor_is_gone(small):
    pool = Pool(CAPACITY)
    first = pool.empty(4, 6, like=FLOAT)
    place = first.data_ptr()
    del first
    assert pool.empty(8, 3, like=FLOAT).data_ptr() == place


def test_memory_is_not_lent_while_anything_has_it(small):
    pool = Pool(CAPACITY)
    first = pool.empty(4, 6, like=FLOAT)
    place, part = first.data_ptr(), first[2:]
    del first
    second = pool.empty(4, 6, like=FLOAT)
    assert second.data_ptr() != place
    part.fill_(7)
    second.fill_(1)
    assert (part == 7).all()


def test_what_autograd_has_saved_is_not_lent(small):
    pool = Pool(CAPACITY)
    x = torch.ones(4, 6, requires_grad=True)
    saved = pool.empty(4, 6, like=FLOAT).fill_(3)
    y = (x * saved).sum()
    del saved
    pool.empty(4, 6, like=FLOAT).fill_(5)
    y.backward()
    assert (x.grad == 3).all()


def test_tensors_that_are_alive_share_nothing(small):
    pool = Pool(CAPACITY)
    for _ in range(3):
        tensors = [pool.empty(2, 3, like=FLOAT).fill_(i) for i in range(5)]
        assert [int(tensor.sum()) for tensor in tensors] == [0, 6, 12, 18, 24]


def test_small_tensors_and_other_devices_are_left_to_pytorch():
    pool = Pool(CAPACITY)
    assert pool.empty(2, 3, like=FLOAT).shape == (2, 3)
    assert pool.empty(1 << 20, like=torch.empty(0, device="meta")).device.type == "meta"
    assert pool._free == [(0, CAPACITY)]


def test_without_a_pool_it_is_a_plain_tensor():
    assert Compute().empty(2, 3, like=FLOAT).shape == (2, 3)


def test_memory_of_gone_tensors_fits_one_of_another_size(small):
    pool = Pool(2 * PAGE)
    two = [pool.empty(PAGE, like=BYTE) for _ in range(2)]
    place = two[0].data_ptr()
    two.clear()
    assert pool.empty(2 * PAGE, like=BYTE).data_ptr() == place


def test_a_tensor_gets_the_smallest_hole_that_it_fits_into(small):
    pool = Pool(CAPACITY)
    large, _, small_one, between = (pool.empty(size * PAGE, like=BYTE) for size in (3, 1, 2, 1))
    places = large.data_ptr(), small_one.data_ptr()
    del large, small_one
    lent = [pool.empty(size * PAGE - 1, like=BYTE) for size in (2, 2, 3)]
    assert [one.data_ptr() for one in lent] == [places[1], places[0], between.data_ptr() + PAGE]


def test_what_does_not_fit_is_left_to_pytorch(small):
    pool = Pool(2 * PAGE)
    first = pool.empty(PAGE, like=BYTE)
    place = first.data_ptr()
    second = pool.empty(PAGE + 1, like=BYTE).fill_(7)
    assert not place <= second.data_ptr() < place + 2 * PAGE
    assert (second == 7).all()


def test_without_address_space_all_is_left_to_pytorch(small):
    assert Pool(1 << 62).empty(3, like=FLOAT).fill_(2).sum() == 6


@given(st.lists(st.tuples(st.integers(1, 5 * PAGE), st.integers(0, 9)), max_size=60))
def test_tensors_of_any_sizes_in_any_order_keep_what_is_theirs(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "LEAST", 1)
        pool, alive = Pool(12 * PAGE), {}
        for size, name in steps:  # a new tensor replaces the last one of that name
            alive.pop(name, None)
            alive[name] = pool.empty(size, like=BYTE).fill_(name)
            for each, tensor in alive.items():
                assert (tensor == each).all()
        tensor = None
        alive.clear()
        assert pool.empty(12 * PAGE, like=BYTE).shape == (12 * PAGE,)
        assert pool._free == []


def test_an_update_like_the_one_before_takes_no_new_memory(small):
    pool, tokens = Pool(CAPACITY), torch.randint(0, 301, (3, 40))
    config = ModelConfig(n_vocab=301, n_ctx=40, n_embd=24, n_head=3, n_layer=2)
    model = GPT2(config, compute=Compute(native=True, pool=pool))
    places, start = [], pool._memory.ctypes.data
    for _ in range(3):
        model(tokens, tokens).backward()
        places.append([p.grad.data_ptr() - start for p in model.h.parameters() if p.dim() == 2])
        model.zero_grad()
    assert places[0] == places[1] == places[2]
    assert all(0 <= place < CAPACITY for place in places[0])


def test_what_nobody_has_may_be_given_back(small):
    pool = Pool(CAPACITY)
    kept, gone = (pool.empty(PAGE, like=BYTE).fill_(7) for _ in range(2))
    del gone
    pool.give_back()
    assert (kept == 7).all()
    assert (pool.empty(PAGE, like=BYTE) == 0).all() or sys.platform != "linux"  # a fresh page
    Pool(1 << 62).give_back()


def test_a_pool_that_is_gone_gives_its_memory_back(small):
    pool = Pool(CAPACITY)
    tensor = pool.empty(4, 6, like=FLOAT)
    memory = weakref.ref(pool._memory)
    del pool
    gc.collect()
    tensor.fill_(3)  # the memory stays as long as a tensor has a part of it
    del tensor
    gc.collect()
    assert memory() is None


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("recompute", ["cheap", "layers", "none"])
@pytest.mark.parametrize("lora", [0, 4])
def test_losses_and_gradients_are_those_without_a_pool(small, native, recompute, lora):
    results = []
    for pool in (None, Pool(CAPACITY)):
        torch.manual_seed(1)
        config = ModelConfig(n_vocab=301, n_ctx=40, n_embd=24, n_head=3, n_layer=2)
        model = GPT2(config, 0.1, Compute(recompute=recompute, native=native, pool=pool))
        choose_trainable(model, Settings(lora=lora, dropout=0.1))
        tokens = torch.randint(0, 301, (3, 40))
        for _ in range(2):  # the second time in the same memory
            value = model(tokens, tokens.flip(0))
            value.backward()
        results.append({"loss": value, **{name: p.grad for name, p in model.named_parameters() if p.requires_grad}})
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=0, atol=0, msg=name)


def test_two_forward_passes_before_a_backward_pass_do_not_meet(small):
    model = GPT2(ModelConfig(n_vocab=301, n_ctx=40, n_embd=24, n_head=3, n_layer=2))
    tokens = torch.randint(0, 301, (2, 3, 40))
    gradients = []
    for pool in (None, Pool(CAPACITY)):
        model.compute = Compute(native=True, pool=pool)
        model.zero_grad()
        (model(tokens[0], tokens[0]) + 2 * model(tokens[1], tokens[1])).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
