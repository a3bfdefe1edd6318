"""The native engine against the original code's numbers, and its promise that a row depends on its sequence alone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.errors import ContextError, UsageError
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes
from gpt2lab.weights.openai import read_openai

GOLDEN = Path(__file__).parents[1] / "golden"
ISAS = _native.instruction_sets()


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    monkeypatch.setenv("GPT2LAB_ISA", request.param)
    return request.param


@pytest.fixture(params=["tiny", "odd"])
def golden(request):
    return read_openai(GOLDEN / request.param), np.load(GOLDEN / request.param / "golden.npz")


def random_checkpoint(config: ModelConfig, seed: int = 0, scale: float = 0.1) -> Checkpoint:
    rng = np.random.default_rng(seed)
    tensors = {
        name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in tensor_shapes(config).items()
    }
    return Checkpoint(config, tensors, None, "openai", "float32", Path("random"))


def run(engine: NativeEngine, tokens, outputs="all"):
    sequence = engine.new_sequence()
    try:
        return engine.forward([sequence], [tokens], outputs)
    finally:
        engine.free_sequence(sequence)


def test_logits_equal_the_original_codes(golden, isa):
    checkpoint, numbers = golden
    engine = NativeEngine(checkpoint, threads=2)
    logits = np.stack([run(engine, row) for row in numbers["full_tokens"]])
    if "full_logits" in numbers:
        np.testing.assert_allclose(logits, numbers["full_logits"], atol=1e-4, rtol=0)
    else:
        np.testing.assert_allclose(logits[:, -1], numbers["full_logits_last"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(logits[..., :64], numbers["full_logits_slice"], atol=1e-4, rtol=0)


def test_greedy_tokens_equal_the_original_codes_to_the_end_of_the_context(golden, isa):
    checkpoint, numbers = golden
    engine = NativeEngine(checkpoint, threads=1)
    expected = numbers["greedy_tokens"][0]
    sequence = engine.new_sequence()
    tokens = list(numbers["greedy_prompt"][0])
    logits = engine.forward([sequence], [tokens])
    while len(tokens) < len(expected):
        ids, _ = engine.sample(logits, [SamplingParams(temperature=0)], [0], [0], [len(tokens)], [tokens])
        tokens.append(int(ids[0]))
        if len(tokens) < len(expected):
            logits = engine.forward([sequence], [[tokens[-1]]])
    np.testing.assert_array_equal(tokens, expected)


SHAPE = ModelConfig(n_vocab=77, n_ctx=150, n_embd=48, n_head=3, n_layer=2)


@pytest.fixture(scope="module")
def engines():
    checkpoint = random_checkpoint(SHAPE)
    return {threads: NativeEngine(checkpoint, threads=threads) for threads in (1, 2, 3)}


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_depend_on_neighbours_chunks_or_threads(engines, data):
    lengths = data.draw(st.lists(st.integers(1, SHAPE.n_ctx), min_size=1, max_size=6))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    prompts = [rng.integers(0, SHAPE.n_vocab, n).astype(np.int32) for n in lengths]
    alone = [run(engines[1], prompt)[-1] for prompt in prompts]

    engine = engines[data.draw(st.sampled_from([1, 2, 3]))]
    sequences = [engine.new_sequence() for _ in prompts]
    done = [0] * len(prompts)
    last: list = [None] * len(prompts)
    while any(d < len(p) for d, p in zip(done, prompts, strict=True)):
        chosen = [i for i, p in enumerate(prompts) if done[i] < len(p)]
        chunks = [data.draw(st.integers(1, len(prompts[i]) - done[i])) for i in chosen]
        fed = [prompts[i][done[i] : done[i] + n] for i, n in zip(chosen, chunks, strict=True)]
        logits = engine.forward([sequences[i] for i in chosen], fed)
        for row, i, n in zip(logits, chosen, chunks, strict=True):
            done[i] += n
            last[i] = row
    for sequence in sequences:
        engine.free_sequence(sequence)
    for a, b in zip(alone, last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_wide_products_do_not_depend_on_the_number_of_rows(isa):
    checkpoint = random_checkpoint(ModelConfig(n_vocab=50, n_ctx=40, n_embd=832, n_head=13, n_layer=1), scale=0.02)
    engine = NativeEngine(checkpoint, threads=2)
    tokens = np.arange(40, dtype=np.int32)
    together = run(engine, tokens)
    sequence = engine.new_sequence()
    one_by_one = np.concatenate([engine.forward([sequence], [[t]]) for t in tokens])
    np.testing.assert_array_equal(together, one_by_one)


def test_more_rows_than_one_pass_holds():
    engine = NativeEngine(random_checkpoint(ModelConfig(n_vocab=40, n_ctx=1300, n_embd=16, n_head=2, n_layer=2)))
    tokens = np.arange(1300, dtype=np.int32) % 40
    whole = run(engine, tokens)
    sequence = engine.new_sequence()
    parts = np.concatenate([engine.forward([sequence], [tokens[i : i + 100]], "all") for i in range(0, 1300, 100)])
    np.testing.assert_array_equal(whole, parts)


def test_a_fork_shares_memory_and_then_goes_its_own_way(engines):
    engine = engines[2]
    prompt = list(range(40))
    at_first = engine.kv_cache_bytes
    sequence = engine.new_sequence()
    engine.forward([sequence], [prompt], "none")
    before = engine.kv_cache_bytes
    fork = engine.fork_sequence(sequence)
    assert engine.kv_cache_bytes == before
    both = engine.forward([sequence, fork], [[5], [6]])
    assert engine.kv_cache_bytes > before
    for row, token in zip(both, (5, 6), strict=True):
        np.testing.assert_array_equal(row, run(engine, [*prompt, token], "last")[0])
    engine.free_sequence(sequence)
    after = engine.forward([fork], [[7]])
    np.testing.assert_array_equal(after, run(engine, [*prompt, 6, 7], "last"))
    engine.free_sequence(fork)
    assert engine.kv_cache_bytes == at_first


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 33, 60])
def test_a_truncated_sequence_goes_on_as_if_the_rest_had_never_been(engines, keep):
    engine = engines[2]
    tokens = [i % 70 for i in range(60)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [tokens], "none")
    engine.truncate_sequence(sequence, keep)
    np.testing.assert_array_equal(
        engine.forward([sequence], [[1, 2, 3]]), run(engine, [*tokens[:keep], 1, 2, 3], "last")
    )
    engine.free_sequence(sequence)


def test_a_sequence_cannot_grow_over_the_context(engines):
    engine = engines[1]
    sequence = engine.new_sequence()
    engine.forward([sequence], [[0] * SHAPE.n_ctx], "none")
    with pytest.raises(ContextError, match="150"):
        engine.forward([sequence], [[0]])
    engine.free_sequence(sequence)


@pytest.mark.parametrize("token", [-1, SHAPE.n_vocab])
def test_ids_outside_the_vocabulary_are_refused(engines, token):
    with pytest.raises(UsageError, match=str(token)):
        run(engines[1], [0, token])


def test_an_unknown_sequence_is_refused(engines):
    with pytest.raises(UsageError, match="12345"):
        engines[1].forward([12345], [[0]])


def test_a_site_is_recorded_only_once(engines):
    sequence = engines[2].new_sequence()
    with pytest.raises(ValueError, match="twice"):
        engines[2].record(sequence, [1, 2], ["z", "z"])
    assert engines[2].forward([sequence], [[1] * SHAPE.n_ctx]).shape == (1, SHAPE.n_vocab)  # it is still empty
    engines[2].free_sequence(sequence)


def test_more_tokens_than_the_context_holds_are_not_recorded(engines):
    sequence = engines[2].new_sequence()
    with pytest.raises(ContextError):
        engines[2].record(sequence, [1] * (SHAPE.n_ctx + 1), ["z"])
    engines[2].free_sequence(sequence)


def test_an_unknown_sequence_is_not_recorded(engines):
    with pytest.raises(UsageError, match="12345"):
        engines[2].record(12345, [1], ["z"])


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_impossible_thread_counts_are_refused(threads):
    with pytest.raises(UsageError, match=str(threads)):
        NativeEngine(random_checkpoint(SHAPE), threads=threads)


def test_an_instruction_set_that_the_cpu_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("GPT2LAB_ISA", "mmx")
    with pytest.raises(UsageError, match=r"GPT2LAB_ISA.*mmx.*baseline"):
        NativeEngine(random_checkpoint(SHAPE))


PERMISSIONS = """
import ctypes, os
from test_native import SHAPE, _native, random_checkpoint
from gpt2lab.engines.native import NativeEngine
granted = ctypes.c_uint64()
for name in (None, "baseline", "amx"):
    if name is None:
        _native.instruction_sets()
    else:
        os.environ["GPT2LAB_ISA"] = name
        NativeEngine(random_checkpoint(SHAPE), threads=1)
    ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(granted))  # arch_prctl, ARCH_GET_XCOMP_PERM
    print(granted.value >> 18 & 1)
"""


@needs.mark("a CPU with AMX")
def test_the_matrix_units_registers_are_asked_for_when_it_is_chosen():
    """A process that has them needs larger signal stacks, so it must not request them earlier."""
    result = in_a_process(PERMISSIONS)
    assert result.stdout.split() == ["0", "0", "1"]


def test_weights_of_a_wrong_shape_are_refused():
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors["h.1.mlp.c_fc.weight"] = np.zeros((48, 48), np.float32)
    with pytest.raises(ValueError, match=r"mlp.c_fc"):
        NativeEngine(checkpoint)


def test_several_python_threads_can_share_an_engine(engines):
    engine = engines[3]
    expected = run(engine, list(range(70)), "last")
    results = []

    def work():
        for _ in range(10):
            results.append(np.array_equal(run(engine, list(range(70)), "last"), expected))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 40


def _in_child(engine, expected, queue):
    queue.put(np.array_equal(run(engine, [1, 2, 3]), expected))


@needs.mark("POSIX")
def test_a_forked_process_can_go_on_with_an_engine(engines):
    engine = engines[2]
    expected = run(engine, [1, 2, 3])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(engine, expected, queue))
    child.start()
    assert queue.get(timeout=30)
    child.join()


def test_memory_of_freed_sequences_is_returned_on_request_and_used_memory_stays():
    engine = NativeEngine(random_checkpoint(SHAPE), threads=1)
    kept, freed = engine.new_sequence(), engine.new_sequence()
    expected = engine.forward([kept, freed], [[1, 2, 3], [5] * 140])[0]
    engine.free_sequence(freed)
    held = engine._core.kv_bytes_held
    engine.release_memory()
    assert engine.kv_cache_bytes <= engine._core.kv_bytes_held < held
    engine.truncate_sequence(kept, 2)
    np.testing.assert_array_equal(engine.forward([kept], [[3]])[0], expected)
    engine.free_sequence(kept)
    engine.release_memory()
    assert engine._core.kv_bytes_held == 0
    again = engine.new_sequence()
    np.testing.assert_array_equal(engine.forward([again], [[1, 2, 3]])[0], expected)


def test_much_memory_is_returned_with_the_last_sequence():
    config = ModelConfig(n_vocab=50, n_ctx=1024, n_embd=256, n_head=4, n_layer=4)
    engine = NativeEngine(random_checkpoint(config), threads=1)
    sequences = [engine.new_sequence() for _ in range(12)]
    for sequence in sequences:
        engine.forward([sequence], [[1] * 1024], "none")
    assert engine._core.kv_bytes_held > 64 << 20
    for sequence in sequences:
        engine.free_sequence(sequence)
    assert engine._core.kv_bytes_held == 0


def test_default_threads_are_the_physical_cores(monkeypatch):
    monkeypatch.setattr("gpt2lab.engines.native.physical_cores", lambda: 3)
    assert NativeEngine(random_checkpoint(SHAPE)).threads == 3


# ---- what has gone wrong before --------------------------------------------------------------------------------------


def test_overflow_in_one_token_reaches_no_earlier_token_and_no_other_sequence(isa):
    checkpoint = random_checkpoint(SHAPE)
    clean = run(NativeEngine(checkpoint, threads=2), [3] * 60)
    checkpoint.tensors["wpe.weight"][40] = np.inf
    engine = NativeEngine(checkpoint, threads=2)
    for _ in range(2):  # the second time in memory with the first time's contents
        rows = run(engine, [3] * 60)
        np.testing.assert_array_equal(rows[:40], clean[:40])
        assert np.isnan(rows[40:]).all()
    np.testing.assert_array_equal(run(engine, [3] * 5), clean[:5])


@pytest.mark.parametrize("tokens", [[1.7], np.array([2**32 + 5]), [2**40], [-(2**40)]])
def test_ids_that_are_no_int32_are_refused(engines, tokens):
    with pytest.raises(UsageError, match="whole numbers"):
        run(engines[1], tokens)


def core_of(config: ModelConfig, threads: int) -> _native.Engine:
    return _native.Engine(
        **config.to_hparams(), threads=threads, instruction_set="", precision="float32", kv_precision="float32"
    )


@pytest.mark.parametrize("threads", [0, -1, 2000])
def test_the_core_refuses_impossible_thread_counts(threads):
    with pytest.raises(ValueError, match="threads"):
        core_of(SHAPE, threads)


def test_the_core_refuses_to_run_without_all_weights():
    core = core_of(SHAPE, threads=1)
    core.set_tensor("wte.weight", np.zeros((77, 48), np.float32))
    sequence = core.new_sequence()
    with pytest.raises(ValueError, match="weights"):
        core.forward([sequence], [0], [1], 0)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own, after imports and with an engine."""
    setup = """
import sys, threading, time, resource
import numpy as np
from test_native import *
engine = NativeEngine(random_checkpoint(SHAPE), threads=2)
"""
    return in_a_process(setup + code)


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own that can import the tests' modules."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_the_interpreter_may_end_while_a_thread_computes():
    result = python("""
def work():
    while True:
        run(engine, list(range(70)) * 2, "last")
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""")
    assert (result.returncode, result.stderr) == (0, "")


def test_the_interpreter_may_end_while_threads_read_keys_and_values():
    result = python("""
sequence = engine.new_sequence()
engine.forward([sequence], [[1] * 40], "none")
def work():
    while True:
        engine.free_sequence(engine.write_sequence(engine.read_sequence(sequence)))
for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_finaliser_may_free_a_sequence_whenever_it_runs():
    result = python("""
import gc
class Holder:
    def __init__(self):
        self.sequence, self.cycle = engine.new_sequence(), self
    def __del__(self):
        engine.free_sequence(self.sequence)
gc.set_threshold(1)
logits = np.zeros((2, SHAPE.n_vocab), np.float32)
for i in range(300):
    Holder()
    engine.sample(logits, [SamplingParams()] * 2, [0, 0], [0, 1], [i, i], [(), ()])
    run(engine, [1, 2, 3])
print("done")
""")
    assert result.stdout == "done\n", result.stderr


@needs.mark("Linux")
def test_threads_that_cannot_be_started_get_one_line():
    result = python("""
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
for _ in range(2):
    try:
        NativeEngine(random_checkpoint(SHAPE), threads=1000)
    except (UsageError, MemoryError) as error:
        print(type(error).__name__)
""")
    assert result.stdout in ("UsageError\nUsageError\n", "MemoryError\nMemoryError\n"), result.stderr
