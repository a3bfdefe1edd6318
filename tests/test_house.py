"""Everything that runs outside pytest names only things that exist: make's targets, scripts, extras, marks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import needs

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
PARTS_OF_LINT = {"lint-python", "lint-page", "lint-native", "lint-native-style", "lint-native-warnings"}
CALLERS = [*ROOT.glob(".ci/*"), *ROOT.glob(".github/workflows/*"), ROOT / ".pre-commit-config.yaml"]


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: path.name)
def test_targets_of_make_that_are_called_exist(path):
    text = path.read_text(encoding="utf-8")
    called = re.findall(r"^[^#\n]*?\b(?:make|\$wheel) ([a-z][a-z-]*)", text, re.MULTILINE)
    assert set(called) <= TARGETS


def test_every_target_is_helped_with_or_part_of_one():
    helped = set(re.findall(r'@echo "make ([a-z-]+) ', MAKEFILE))
    assert helped <= TARGETS
    assert TARGETS - helped - {"help", "always"} <= PARTS_OF_LINT


def test_hooks_call_parts_of_lint_and_fetch_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        assert all(hook["entry"].startswith("make lint-") for hook in repository["hooks"])


def test_extras_that_are_installed_exist():
    (default,) = re.findall(r"^EXTRAS = (.*)$", MAKEFILE, re.MULTILINE)
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["ci"]["strategy"]["matrix"]
    lists = [default, *matrix["extras"], *(row["extras"] for row in matrix["include"])]
    assert {extra for each in lists for extra in each.split(",")} <= needs.EXTRAS.keys()
    assert any("browser" in row["extras"] for row in matrix["include"])


def sourced(command: str) -> str:
    """Return what bash prints with the functions of .ci/steps."""
    script = f". '{ROOT}/.ci/steps'; {command}"
    return subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("extras", ["test,browser,ray", "browser,test,ray", "test,ray,browser"])
def test_without_a_chromium_the_browsers_extra_is_not_asked_for(extras):
    assert sourced(f"without browser {extras}") == "test,ray\n"
    assert sourced("without browser browser") == "\n"


@pytest.mark.parametrize("programs, user, expected", [("dnf", 0, "yes"), ("dnf", 1000, "no"), ("brew", 0, "no")])
def test_packages_are_installed_as_root_by_a_known_manager(tmp_path, programs, user, expected):
    (tmp_path / programs).write_text("#!/bin/sh\n")
    (tmp_path / programs).chmod(0o755)
    fake = f"PATH='{tmp_path}'; id() {{ echo {user}; }}; "
    assert sourced(fake + "can_install && echo yes || echo no") == f"{expected}\n"


@pytest.mark.parametrize("name", ["run", "slow", "steps"])
def test_scripts_are_sound_bash(name):
    subprocess.run(["bash", "-n", ROOT / ".ci" / name], check=True)
