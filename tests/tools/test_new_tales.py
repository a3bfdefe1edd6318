import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import needs

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import new_tales  # noqa: E402


@pytest.fixture(scope="module")
def docs():
    return new_tales.module(ROOT / "tests" / "test_docs.py")


def test_the_pages_state_the_facts_of_the_shipped_file(docs):
    known = new_tales.facts()
    for page in docs.PAGES:
        text = page.read_text(encoding="utf-8")
        assert new_tales.with_facts(text, known) == text, page


def test_every_fact_on_a_page_is_one_that_the_tool_knows(docs):
    named = {found[2] for page in docs.PAGES for found in new_tales.FACT.finditer(page.read_text(encoding="utf-8"))}
    assert named == {*new_tales.facts(), "held_out"}


def test_facts_of_another_model_replace_those_of_this_one():
    page = "It has <!-- tales: context -->512 tokens<!-- end --> and <!-- tales: size -->much<!-- end -->."
    known = {"context": "1024 tokens"}
    assert new_tales.with_facts(page, known) == page.replace("512", "1024")


def test_outputs_that_differ_are_rewritten_unless_a_part_is_left_out(docs, tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    fence = "```"
    shown = ["old\n", "3 files\n", "… seconds\n"]
    commands = ["echo new", "echo '3   files'", "echo none"]
    blocks = [
        f"{fence}bash\n{command}\n{fence}\n\n{fence}text\n{output}{fence}\n\n"
        for command, output in zip(commands, shown, strict=True)
    ]
    page.write_text("".join(blocks), encoding="utf-8")
    left = new_tales.rewrite_outputs(page, docs)
    assert page.read_text(encoding="utf-8") == "".join(blocks).replace("old", "new")
    assert len(left) == 1 and left[0].startswith("page.md:18")


def test_the_table_of_temperatures_is_found():
    page = (ROOT / "docs" / "temperature.md").read_text(encoding="utf-8")
    (found,) = new_tales.ROWS.finditer(page)
    assert len(re.findall(r"^\| [\d.]+ \|", found[0], re.M)) == 8


def test_hashes_are_those_of_the_model(docs):
    old, new = next(new_tales.hashes(ROOT))
    assert old == new and len(old) == len(hashlib.sha256().hexdigest())


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_an_unchanged_model_changes_nothing(tmp_path):
    needs.check("matplotlib")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "checkpoint", "samples"))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    subprocess.run([sys.executable, copy / "tools" / "new_tales.py"], check=True, cwd=copy)
    assert [str(path) for path, old in before.items() if path.read_bytes() != old and path.suffix != ".pyc"] == []
