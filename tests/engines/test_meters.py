"""The meters of the parts of a forward pass."""

from __future__ import annotations

import numpy as np
import pytest
from test_native import SHAPE, random_checkpoint

from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import PRECISIONS


@pytest.fixture(params=PRECISIONS)
def engine(request: pytest.FixtureRequest) -> NativeEngine:
    return NativeEngine(random_checkpoint(SHAPE), threads=2, precision=request.param)


def measured(engine: NativeEngine) -> dict[str, list[float]]:
    engine.start_meters()
    sequence = engine.new_sequence()
    engine.forward([sequence], [[1, 2, 3, 4, 5]])
    engine.forward([sequence], [[6]])
    return engine.stop_meters()


def test_every_thread_spends_time_in_products_attention_and_the_head(engine: NativeEngine) -> None:
    parts = measured(engine)
    assert all(seconds > 0 for part in ("products", "attention", "head") for seconds in parts[part])


def test_there_is_a_figure_of_every_part_for_every_thread(engine: NativeEngine) -> None:
    assert {len(seconds) for seconds in measured(engine).values()} == {engine.threads}


def test_measuring_changes_no_logit(engine: NativeEngine) -> None:
    sequence = engine.new_sequence()
    logits = engine.forward([sequence], [[1, 2, 3]])
    engine.start_meters()
    again = engine.forward([engine.new_sequence()], [[1, 2, 3]])
    engine.stop_meters()
    assert np.array_equal(logits, again)


def test_nothing_is_measured_after_the_end(engine: NativeEngine) -> None:
    measured(engine)
    engine.start_meters()
    assert engine.stop_meters()["products"] == [0.0, 0.0]


def test_the_head_counts_as_no_other_product(engine: NativeEngine) -> None:
    engine.start_meters()
    engine.unembed(np.ones((20, SHAPE.n_embd), np.float32))
    parts = engine.stop_meters()
    assert parts["products"] == [0.0, 0.0]
    assert all(seconds > 0 for seconds in parts["head"])


def test_meters_that_were_not_started_have_no_figures(engine: NativeEngine) -> None:
    assert not any(engine.stop_meters().values())
