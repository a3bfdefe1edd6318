from __future__ import annotations

from pathlib import Path

import pytest

from gpt2lab import LanguageModel, load

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """Provide a model with GPT-2's vocabulary and a context of 64."""
    return load(GOLDEN / "tiny", threads=1)


@pytest.fixture(scope="session", params=["float32", "bfloat16", "int8", "int4"])
def each(request) -> LanguageModel:
    """Provide the same model in each precision."""
    return load(GOLDEN / "tiny", precision=request.param, threads=2)
