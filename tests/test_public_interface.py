"""The public interface is what docs/python.md lists: every name that the docs use, and only names that exist."""

from __future__ import annotations

import ast
import json
import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

import gpt2lab

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.ipynb"))]


def listed() -> dict[str, set[str]]:
    """Return module → names, from the table of docs/python.md."""
    section = (ROOT / "docs" / "python.md").read_text(encoding="utf-8").partition("## The public interface")[2]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", section, re.M)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page, or the cells of a notebook without the lines for a shell."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        code = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [re.sub(r"^( *)!.*", r"\1pass", cell, flags=re.M) for cell in code]
    return [dedent(code) for _, code in re.findall(r"^( *)```python\n(.*?)^\1```$", text, re.M | re.S)]


def imported(page: Path) -> set[tuple[str, str]]:
    """Return what the Python blocks of a page import from the package: module and name."""
    nodes = [node for code in blocks(page) for node in ast.walk(ast.parse(code))]
    return {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gpt2lab")
        for alias in node.names
    }


def test_the_page_lists_all_that_the_package_exports():
    assert listed()["gpt2lab"] == set(gpt2lab.__all__)


@pytest.mark.parametrize("module", sorted(listed()))
def test_every_listed_name_is_there(module):
    assert [name for name in listed()[module] if not hasattr(import_module(module), name)] == []


@pytest.mark.parametrize("module", sorted(listed()))
def test_what_a_listed_module_exports_is_listed(module):
    exported = set(getattr(import_module(module), "__all__", listed()[module]))
    assert exported == listed()[module]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_import_only_what_is_listed(page):
    names = listed()
    assert {(module, name) for module, name in imported(page) if name not in names.get(module, ())} == set()


def test_every_error_is_public():
    errors = import_module("gpt2lab.errors")
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == listed()["gpt2lab.errors"]
