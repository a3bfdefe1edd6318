import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SCRIPT = Path(__file__).parents[2] / "tools" / "requirements.py"


def printed(*arguments: str) -> dict[str, Requirement]:
    """Return the requirements that the script prints, by name."""
    run = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return {requirement.name: requirement for requirement in map(Requirement, run.stdout.splitlines())}


def test_the_base_and_the_extras_that_are_asked_for():
    assert {"numpy", "click", "ruff", "mypy"} <= printed("lint").keys()
    assert "ruff" not in printed()


def test_a_build_needs_what_a_build_needs():
    assert printed("--build").keys() == {"scikit-build-core", "nanobind"}


@pytest.mark.parametrize("extra", ["test", "train", "compare"])
def test_the_oldest_versions_are_exact_and_keep_their_conditions(extra):
    for name, requirement in printed("--lowest", extra).items():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="]
        allowed = printed(extra)[name]
        assert all(allowed.specifier.contains(specifier.version) for specifier in requirement.specifier)
        assert requirement.marker == allowed.marker
