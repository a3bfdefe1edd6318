import pytest
from limit_shares import arithmetic_limit, most_tokens_s, prefill_operations, step_operations

from gpt2lab.benchmarking import bytes_per_step
from gpt2lab.config import RELEASED_SIZES

SMALL = RELEASED_SIZES["124M"]
NEVER = 1e30  # a limit that does not bind


def test_a_prompt_is_limited_by_arithmetic():
    most = most_tokens_s(SMALL, "float32", batch=1, prompt=512, new=1, bandwidth=1.0, operations=1e12)
    assert most == pytest.approx(512 * 1e12 / prefill_operations(SMALL, 512))


def test_decoding_is_limited_by_the_bytes_of_a_step():
    most = most_tokens_s(SMALL, "int8", batch=1, prompt=16, new=256, bandwidth=1e10, operations=1.0)
    assert most == pytest.approx(1e10 / bytes_per_step(SMALL, "int8", 16 + 128))


@pytest.mark.parametrize(("bandwidth", "operations"), [(1e10, NEVER), (NEVER, 1e12)])
def test_a_batch_is_limited_by_the_slower_of_the_two(bandwidth, operations):
    most = most_tokens_s(SMALL, "int8", 8, 16, 128, bandwidth=bandwidth, operations=operations)
    step = bytes_per_step(SMALL, "int8", 80, 8) / bandwidth + 8 * step_operations(SMALL, 80) / operations
    first = prefill_operations(SMALL, 16) / operations
    assert most == pytest.approx(8 * 128 / (8 * first + 127 * step), rel=1e-6)


def test_a_machine_without_tiles_has_the_limit_of_its_dot_products():
    assert arithmetic_limit("int4", {"float32_gflop_s": 1.0, "int8_gop_s": 2.0}) == "int8_gop_s"
    assert arithmetic_limit("bfloat16", {"float32_gflop_s": 1.0, "int8_gop_s": 2.0}) == "float32_gflop_s"
