"""The layers of the package: no module imports from a higher one, and no imports form a cycle."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from import_graph import HEIGHT, Graph, direct, drawing, imported, modules, part_of, parts

import gpt2lab

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return modules(Path(gpt2lab.__file__).parent)


def cycle(graph: Graph) -> list[str]:
    """Return a cycle of ``graph``, empty if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_part_has_a_layer(graph):
    assert {part_of(module) for module in graph} | {"_native"} == set(HEIGHT)


def test_no_module_imports_from_a_higher_layer(graph):
    upward = {
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if HEIGHT[part_of(other)] > HEIGHT[part_of(module)]
    }
    assert upward == set()


def test_modules_form_no_cycle(graph):
    assert cycle(graph) == []


def test_parts_form_no_cycle(graph):
    assert cycle(parts(graph)) == []


def test_an_import_inside_a_function_and_one_for_types_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "if TYPE_CHECKING:\n    from gpt2lab.cli.main import main\ndef f():\n    import gpt2lab.model as m\n"
    )
    assert set(imported(path, {"cli.main", "model"})) == {"cli.main", "model"}


def test_an_import_by_name_is_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('import_module("gpt2lab.model")\nimportlib.import_module(f"gpt2lab.cli.{name}")\n')
    assert set(imported(path, {"cli", "model"})) == {"cli", "model"}


def test_a_relative_import_is_refused(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("from ..cli import main\n")
    with pytest.raises(ValueError, match="imports relatively"):
        list(imported(path, set()))


def test_a_cycle_is_found():
    assert set(cycle({"a": frozenset({"b"}), "b": frozenset({"a"})})) == {"a", "b"}


def test_an_import_that_others_imply_is_not_direct():
    graph = {"a": frozenset({"b", "c"}), "b": frozenset({"c"}), "c": frozenset()}
    assert direct(graph) == {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset()}


def test_the_drawing_has_a_box_for_every_part_but_the_entry_points(graph):
    texts = {element.text for element in ElementTree.fromstring(drawing(graph)).iter() if element.tag.endswith("text")}
    assert texts >= set(HEIGHT) - {"__main__", "__init__", "_native"}
