"""The notebook in examples/: it runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import gpt2lab
import needs
from notebooks import Elements

ROOT = Path(__file__).parents[1]
PATH = ROOT / "examples" / "gpt2lab.ipynb"
QUICK = "LENGTH, TEMPERATURES, MINUTES = 8, (0, 1), 0.05\n"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return json.loads(PATH.read_text(encoding="utf-8"))["cells"]


def sources(cells: list[dict[str, Any]], kind: str) -> list[str]:
    """Return the text of each cell of a kind."""
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_it_is_kept_without_outputs(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def test_it_can_install_a_checkout_a_clone_and_what_is_published(cells):
    (cell,) = [cell for cell in sources(cells, "code") if "pip install" in cell]
    lines = re.findall(r'^ *(# )?!pip install -q "([^"]+)"$', cell, re.M)
    assert [target for _, target in lines] == ["./gpt2lab-clone[train]", "..[train]", "gpt2lab[train]"]
    assert [bool(comment) for comment, _ in lines] == [False, False, True]  # nothing is published yet
    assert Requirement(lines[2][1]).extras <= needs.EXTRAS.keys()
    assert (PATH.parent / ".." / "pyproject.toml").is_file()


def test_its_links_lead_somewhere(cells):
    links = [link for cell in sources(cells, "markdown") for link in re.findall(r"\]\(([^)]+)\)", cell)]
    assert len(links) > 3
    assert [link for link in links if not (PATH.parent / link).exists()] == []


def test_its_sentences_are_short(cells):
    words = re.sub(r"[`*#\[\]]|\([^)]*\)", "", " ".join(sources(cells, "markdown")))
    assert [each for each in re.split(r"[.:?!]\s", words) if len(each.split()) > 30] == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict[str, list[Any]]:
    """Run the notebook with small settings; return each cell's outputs by the cell's id."""
    nbformat, nbclient = needs.package("nbformat"), needs.package("nbclient")
    needs.check("ipykernel", "torch")
    notebook = nbformat.read(PATH, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    settings.source += "\n" + QUICK
    folder = tmp_path_factory.mktemp("notebook")
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": folder}}).execute()
    assert (folder / "checkpoint" / "notebook" / "model.safetensors").is_file()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["next", "colour", "sweep", "run", "compare", "attend", "patch"])
def test_a_result_shows_itself(executed, name):
    (output,) = executed[name]
    assert output.output_type == "execute_result"
    assert output.data["text/plain"].startswith("<")
    elements = Elements(output.data["text/html"])
    assert elements.open == [] and "script" not in elements.tags


@pytest.mark.nightly
def test_the_text_is_shown_as_it_arrives(executed):
    assert {output.name for output in executed["prompt"]} == {"stdout"}
    text = "".join(output.text for output in executed["prompt"])
    whole = gpt2lab.load("tales").generate("Once upon a time", length=8, temperature=0.8, top_k=40, seed=1)
    assert text == f"Once upon a time{whole.text}\n"


@pytest.mark.nightly
def test_training_shows_a_curve(executed):
    (curve,) = [output for output in executed["train"] if output.output_type == "display_data"]
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', curve.data["text/html"])[1]
    assert b"<polyline" in base64.b64decode(picture)
    assert "Training..." in "".join(output.text for output in executed["train"] if output.output_type == "stream")
