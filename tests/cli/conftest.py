"""The command run in this process, and the small golden models by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "tiny")
ODD = str(GOLDEN / "odd")


@pytest.fixture
def gpt2lab() -> Callable[..., Result]:
    """``gpt2lab(*arguments, input=None)``."""
    from gpt2lab.cli.main import cli

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)

    return run
