"""A context manager that lends a sequence of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine


@contextmanager
def new_sequence(engine: Engine) -> Iterator[int]:
    """Provide an empty sequence, and free it afterwards."""
    sequence = engine.new_sequence()
    try:
        yield sequence
    finally:
        engine.free_sequence(sequence)
