"""What runs outside of pytest names what there is: make's targets, scripts, extras, marks."""

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
CALLERS = [*ROOT.glob(".ci/*"), *ROOT.glob(".github/workflows/*"), ROOT / ".pre-commit-config.yaml"]


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: path.name)
def test_targets_of_make_that_are_called_exist(path):
    text = path.read_text(encoding="utf-8")
    called = re.findall(r"^[^#\n]*?\b(?:make|\$wheel) ([a-z][a-z-]*)", text, re.MULTILINE)
    assert set(called) <= TARGETS


def test_every_target_is_helped_with_or_part_of_one():
    helped = set(re.findall(r'@echo "make ([a-z-]+) ', MAKEFILE))
    assert helped <= TARGETS
    assert TARGETS - helped - {"help", "always"} <= {"lint-python", "lint-page", "lint-native"}


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


@pytest.mark.parametrize("name", ["run", "slow", "steps"])
def test_scripts_are_sound_bash(name):
    subprocess.run(["bash", "-n", ROOT / ".ci" / name], check=True)
