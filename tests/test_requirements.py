"""Every package that the source and the tests import is declared in pyproject.toml, where it is needed.

The other lists of packages are exact: ``.ci/slow`` checks that pip can install them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from import_graph import names_imported
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import needs

ROOT = Path(__file__).parents[1]
EXTRAS = {  # of each part of the source, beside the base
    "cli/train.py": ("train",),
    "data/files.py": ("train",),  # zstandard
    "data/records.py": ("parquet",),
    "engines/pytorch.py": ("gpu",),
    "engines/pytorch_blocks.py": ("gpu",),
    "engines/pytorch_graphs.py": ("gpu",),
    "engines/pytorch_model.py": ("gpu",),
    "engines/pytorch_sampler.py": ("gpu",),
    "engines/torch_devices.py": ("gpu",),
    "exploring/plots.py": ("explore",),
    "jobs/cluster.py": ("ray",),
    "package_tokenizer.py": ("tokenizers",),
    "serving": ("serve",),
    "training": ("train",),
    "verifying/llm_c.py": ("train",),
    "weights/dequantization.py": ("gguf",),
    "weights/nanogpt.py": ("train",),
    "weights/torch_file.py": ("train",),
}
EXTRAS_OF_TESTS = {"": ("test",), "serving": ("serve",)}  # beside the packages that helpers/needs.py checks for
NAMES = {"llama_cpp": "llama-cpp-python", "yaml": "PyYAML"}  # import → distribution, where these differ
OLD_NAMES = {"compression"}  # in the standard library of a newer Python
OURS = {"gpt2lab", "checkpoint_cases"}
OWN_FILES = [path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
OURS |= {name for path in OWN_FILES for name in (path.stem, path.parent.name)}  # modules, and folders of modules


class AtRunTime(ast.NodeTransformer):
    """Removes what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def packages(path: Path) -> set[str]:
    """Return the packages that a file imports, without the standard library's and this repository's."""
    tree = AtRunTime().visit(ast.parse(path.read_text(encoding="utf-8")))
    found = {name.partition(".")[0] for name in names_imported(tree)} - {""}  # relative
    return found - sys.stdlib_module_names - OLD_NAMES - OURS


def declared(*extras: str) -> set[str]:
    """Return the distributions of the base and of ``extras``."""
    listed = [*needs.PROJECT["dependencies"], *(line for extra in extras for line in needs.EXTRAS[extra])]
    return {canonicalize_name(Requirement(line).name) for line in listed}


def undeclared(folder: Path, extras: dict[str, tuple[str, ...]], others: set[str]) -> Iterator[str]:
    """Yield the imports below ``folder`` that are in neither the base, nor ``extras`` of their part, nor ``others``."""
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        parts = {"", place.parts[0], place.as_posix()}
        here = declared(*(extra for part in parts & extras.keys() for extra in extras[part]))
        for package in packages(path) - others:
            if canonicalize_name(NAMES.get(package, package)) not in here:
                yield f"{place} imports {package}"


def test_the_source_imports_only_what_is_declared_for_its_part():
    assert list(undeclared(ROOT / "src" / "gpt2lab", EXTRAS, set())) == []


def test_tests_import_only_what_is_declared_for_them():
    assert list(undeclared(ROOT / "tests", EXTRAS_OF_TESTS, set(needs.PACKAGES))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n    import yaml.nodes", ["data/a.py imports yaml"]),
        ("from importlib import import_module\nimport_module('yaml')", ["data/a.py imports yaml"]),
        ("import numpy, json\nimport gpt2lab.model", []),
        ("if TYPE_CHECKING:\n    import yaml", []),
        ("if TYPE_CHECKING:\n    import yaml\nelse:\n    import torch", ["data/a.py imports torch"]),
    ],
)
def test_undeclared_imports_are_found_wherever_they_stand(tmp_path, text, found):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text(text)
    assert list(undeclared(tmp_path, {}, set())) == found


def test_an_extra_serves_its_own_part_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("import fastapi")
    assert list(undeclared(tmp_path, {"one.py": ("serve",)}, set())) == ["two.py imports fastapi"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "benchmarks" / "environments").glob("*.txt")), ids=lambda file: file.stem
)
def test_an_environment_of_the_benchmarks_pins_every_package_and_our_pytorch(file):
    assert (ROOT / "benchmarks" / "drivers" / f"{file.stem}_driver.py").exists()
    pins = requirements_of(file)
    assert {specifier.operator for pin in pins.values() for specifier in pin.specifier} == {"=="}
    if "torch" in pins:  # another version may bring gigabytes
        assert pins["torch"] == requirements_of(ROOT / "constraints.txt")["torch"]


def requirements_of(file: Path) -> dict[str, Requirement]:
    """Return the requirements in a file for pip, by name."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {each.name: each for each in map(Requirement, filter(None, lines))}
