"""A fixture that runs the command in this process, and the paths of the small golden models."""

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
    """Return ``gpt2lab(*arguments, input=None)``, which runs the command."""
    from gpt2lab.cli.main import cli

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)

    return run
