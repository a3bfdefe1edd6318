"""Read the import graph of the package, and draw it with the package's layers.

    python tools/import_graph.py docs/images/architecture.svg

Every import counts: at the top of a module, inside a function, and for types alone. ``tests/test_layers.py`` checks the
package against :data:`LAYERS`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

LAYERS = (  # lowest first
    ("version", "errors", "system", "markup", "_native"),
    ("config", "bpe", "tokenizer", "package_tokenizer", "sampling", "reference"),
    ("weights", "data"),
    ("engines", "contract"),
    ("generation", "scoring", "distribution"),
    ("inside",),
    ("model",),
    ("training", "evaluating", "exploring", "jobs", "serving", "benchmarking"),
    ("verifying",),
    ("cli",),
    ("__main__", "__init__"),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
SOURCE = Path(__file__).parents[1] / "src" / "gpt2lab"

Graph = Mapping[str, frozenset[str]]

BOX, GAP, ROW, MARGIN = (112, 32), 16, 76, 12  # a box's width and height; space between boxes, layers, around all


def modules(source: Path = SOURCE) -> Graph:
    """Return module → the modules it imports, each by its dotted name within the package."""
    files = {_name(path, source): path for path in source.rglob("*.py")}
    known = {*files, "_native"}
    return {name: frozenset(imported(path, known)) for name, path in files.items()}


def parts(graph: Graph) -> Graph:
    """Return the same graph for the top-level parts that modules belong to."""
    found: dict[str, set[str]] = {part_of(module): set() for module in graph}
    for module, others in graph.items():
        found[part_of(module)] |= {part_of(other) for other in others} - {part_of(module)}
    return {part: frozenset(others) for part, others in found.items()}


def part_of(module: str) -> str:
    """Return the top-level module or package that ``module`` is or belongs to."""
    return module.partition(".")[0]


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the ``known`` modules of the package that a file imports."""
    for name in names_imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("."):
            raise ValueError(f"{path} imports relatively, {name}: name the whole module")
        package, _, rest = name.partition(".")
        if package == "gpt2lab":
            yield _module(rest, known)


def names_imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that ``tree`` imports; a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) == "import_module":
            yield from (each.value.lstrip(".") for each in ast.walk(node) if isinstance(each, ast.Constant))


def _called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def _name(path: Path, source: Path) -> str:
    names = path.relative_to(source).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)


def _module(name: str, known: set[str]) -> str:
    """Return the module that ``name`` is, or that defines it."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or "__init__"


def direct(graph: Graph) -> Graph:
    """Return the imports of ``graph`` without those that others imply."""
    return {
        part: frozenset(other for other in others if not any(other in _below(graph, third) for third in others))
        for part, others in graph.items()
    }


def _below(graph: Graph, part: str) -> set[str]:
    """Return all that ``part`` imports, directly or through others."""
    found: set[str] = set()
    todo = list(graph.get(part, ()))
    while todo:
        if (other := todo.pop()) not in found:
            found.add(other)
            todo += graph.get(other, ())
    return found


def drawing(graph: Graph) -> str:
    """Draw the parts in their layers, the highest on top, with an arrow for each import that no other import implies.

    Leaves out the entry points, and arrows to ``version`` and ``errors``, which every part may import.
    """
    layers = LAYERS[-2::-1]
    width = 2 * MARGIN + max(map(len, layers)) * (BOX[0] + GAP) - GAP
    places = {}
    for row, layer in enumerate(layers):
        left = (width - len(layer) * (BOX[0] + GAP) + GAP) / 2
        for column, part in enumerate(layer):
            places[part] = (left + column * (BOX[0] + GAP), MARGIN + row * ROW)
    height = 2 * MARGIN + (len(layers) - 1) * ROW + BOX[1]
    arrows = direct({part: others - {"version", "errors"} for part, others in parts(graph).items()})
    lines = [_arrow(places[a], places[b]) for a in places for b in sorted(arrows.get(a, ()))]
    boxes = [_box(part, *place) for part, place in places.items()]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
        "<title>The parts of gpt2lab in their layers; an arrow leads from a part to one that it imports</title>",
        "<style>text{font:13px sans-serif;text-anchor:middle;fill:#222}"
        "line{stroke:#99a;stroke-width:1.2;marker-end:url(#tip)}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#99a"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        *lines,
        *boxes,
        "</svg>\n",
    ])  # fmt: skip


def _box(part: str, x: float, y: float) -> str:
    name = "native/ (C++)" if part == "_native" else part
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef2f8" stroke="#557"/>'
        f'<text x="{x + BOX[0] / 2:g}" y="{y + BOX[1] / 2 + 5:g}">{escape(name)}</text>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Draw a line from one box's lower edge to the other's upper edge, or sideways between boxes of one row."""
    if start[1] == end[1]:
        right = end[0] > start[0]
        y = start[1] + BOX[1] / 2
        x1, x2 = (start[0] + BOX[0], end[0]) if right else (start[0], end[0] + BOX[0])
        return f'<line x1="{x1:g}" y1="{y:g}" x2="{x2:g}" y2="{y:g}"/>'
    middle = BOX[0] / 2
    return f'<line x1="{start[0] + middle:g}" y1="{start[1] + BOX[1]:g}" x2="{end[0] + middle:g}" y2="{end[1]:g}"/>'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing(modules()), encoding="utf-8")
