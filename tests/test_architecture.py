"""docs/architecture.md describes the source as it is: its parts, its layers, its files, its drawing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from import_graph import HEIGHT, drawing, modules

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TO_BE_WRITTEN = {"weights/FORMAT.py", "cli/NAME.py", "engines/NAME.py"}  # in recipes
FOLDERS = [ROOT, ROOT / "src" / "gpt2lab"]


def described() -> list[str]:
    """Return the parts in the order of the table."""
    table = PAGE.partition("## What each part does")[2].partition("\n## ")[0]
    return ["_native" if part == "native" else part for part in re.findall(r"^\| `(\w+)(?:/|\.py)` \|", table, re.M)]


def test_every_part_is_described():
    assert set(described()) == set(HEIGHT) - {"__main__", "__init__"}


def test_parts_are_described_from_the_top_layer_down():
    heights = [HEIGHT[part] for part in described()]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./]+/[\w./]*)`", PAGE)) - TO_BE_WRITTEN))
def test_every_path_is_there(path):
    assert any((folder / path).exists() for folder in FOLDERS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\*\*`(\w+)`\*\*", PAGE))))
def test_every_carrier_is_a_class(name):
    sources = (ROOT / "src" / "gpt2lab").rglob("*.py")
    assert any(re.search(rf"^class {name}\b", path.read_text(encoding="utf-8"), re.M) for path in sources)


def test_the_drawing_is_of_this_source():
    assert (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8") == drawing(modules())
