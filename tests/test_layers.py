"""The layers of the package: no module imports from a higher one, and no imports form a cycle.

Every import counts: at the top of a module, inside a function, and for types alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import gpt2lab

SOURCE = Path(gpt2lab.__file__).parent
LAYERS = (  # lowest first
    ("version", "errors", "system", "_native"),
    ("config", "bpe", "tokenizer", "sampling", "reference"),
    ("weights", "data"),
    ("engines",),
    ("generation", "scoring", "distribution"),
    ("model",),
    ("training", "evaluating", "exploring", "jobs", "serving", "benchmarking"),
    ("cli",),
    ("__main__", "__init__"),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Module → the modules it imports, each by its dotted name within the package."""
    files = {_name(path): path for path in SOURCE.rglob("*.py")}
    known = {*files, "_native"}
    return {name: frozenset(_imported(path, known)) for name, path in files.items()}


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _imported(path: Path, known: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "gpt2lab":
                yield _module(rest, known)


def _module(name: str, known: set[str]) -> str:
    """The module that ``name`` is, or that it is a name in."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or "__init__"


def part(module: str) -> str:
    return module.partition(".")[0]


def cycle(graph: Mapping[str, frozenset[str]]) -> list[str]:
    """A cycle of ``graph``, empty if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_has_a_layer():
    assert {part(module) for module in imports()} - HEIGHT.keys() == set()


def test_no_module_imports_from_a_higher_layer():
    upward = {
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if HEIGHT[part(other)] > HEIGHT[part(module)]
    }
    assert upward == set()


def test_modules_form_no_cycle():
    assert cycle(imports()) == []


def test_parts_form_no_cycle():
    parts: dict[str, set[str]] = {}
    for module, others in imports().items():
        parts.setdefault(part(module), set()).update(part(other) for other in others if part(other) != part(module))
    assert cycle({name: frozenset(others) for name, others in parts.items()}) == []


def test_an_import_inside_a_function_and_one_for_types_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "if TYPE_CHECKING:\n    from gpt2lab.cli.main import main\ndef f():\n    import gpt2lab.model as m\n"
    )
    assert set(_imported(path, {"cli.main", "model"})) == {"cli.main", "model"}


def test_a_cycle_is_found():
    assert set(cycle({"a": frozenset({"b"}), "b": frozenset({"a"})})) == {"a", "b"}
