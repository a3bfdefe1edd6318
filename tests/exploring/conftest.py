from __future__ import annotations

from pathlib import Path

import pytest

from gpt2lab import LanguageModel, load

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """Provide a model with GPT-2's vocabulary and a context of 64."""
    return load(GOLDEN / "tiny")


@pytest.fixture(scope="session")
def exact() -> LanguageModel:
    """Provide the same model, with text generated in float32 too."""
    return load(GOLDEN / "tiny", precision="float32")
