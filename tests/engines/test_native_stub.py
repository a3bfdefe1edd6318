"""The stub of the C++ core agrees with the built module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab import _native

STUB = ast.parse((Path(gpt2lab.__file__).parent / "_native.pyi").read_text(encoding="utf-8"))
CLASSES = [node.name for node in STUB.body if isinstance(node, ast.ClassDef)]


def stubbed_names(node: ast.Module | ast.ClassDef) -> set[str]:
    assigned = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    return assigned | {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.ClassDef))}


def public_names(built: object) -> set[str]:
    return {name for name in vars(built) if not name.startswith("_")}


def functions() -> list[tuple[str, ast.FunctionDef]]:
    """Return every function and method of the stub except properties, by its dotted name."""
    found = [(node.name, node) for node in STUB.body if isinstance(node, ast.FunctionDef)]
    for owner in STUB.body:
        if isinstance(owner, ast.ClassDef):
            methods = [node for node in owner.body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
            found += [(f"{owner.name}.{node.name}", node) for node in methods]
    return found


def stubbed_parameters(function: ast.FunctionDef) -> list[str]:
    """Return their names; ``""`` for a positional-only one."""
    arguments = function.args
    by_position = ["" for argument in arguments.posonlyargs if argument.arg != "self"]
    return by_position + [argument.arg for argument in arguments.args if argument.arg != "self"]


def built_parameters(name: str) -> list[str]:
    function: object = _native
    for part in name.split("."):
        function = getattr(function, part)
    ((signature, *_),) = function.__nb_signature__
    return ["" if re.fullmatch(r"arg\d*", name) else name for name in re.findall(r"\b(\w+): ", signature)]


def test_the_module_has_the_names_of_its_stub():
    assert public_names(_native) == stubbed_names(STUB)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_names_of_its_stub(name):
    node = next(node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name)
    assert public_names(getattr(_native, name)) == stubbed_names(node) - {"__init__"}


@pytest.mark.parametrize(("name", "function"), functions(), ids=[name for name, _ in functions()])
def test_a_function_takes_the_parameters_of_its_stub(name, function):
    assert built_parameters(name) == stubbed_parameters(function)
