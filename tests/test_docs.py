"""Runs every command and every line of Python in README.md, CONTRIBUTING.md and docs/, and follows every link.

The blocks of a page run in order, in one empty folder: shell blocks with bash, which stops at the first error, Python
blocks in one namespace. A block is left out if the line before it says why: ``<!-- test: skip (network) -->``.

A block of ``text`` is what the shell block above it prints to standard output, if nothing stands between the two or the
line before it says ``<!-- test: output -->``. The two are compared: every run of white space counts as one space, so a
page may wrap lines, and ``…`` stands for whatever is left out. Any other block of ``text`` says why it is skipped.
Blocks that show a generated text run under every instruction set of the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import needs
from gpt2lab._native import instruction_sets
from gpt2lab.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("bash", "sh", "shell", "console")
FENCE = re.compile(
    r"(?P<marker>^ *<!-- test: (?P<test>skip|output)(?: \([^\n]+\))? -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    skipped: bool
    output: str | None = None
    """The output of a shell block that the page shows."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that name a language, in order."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        block = block_of(page, text, match)
        above = [i for i, before in enumerate(blocks) if before.language in SHELLS]
        directly = above[-1:] == [len(blocks) - 1] and not text[end : match.start()].strip()
        tied = block.language == "text" and not block.skipped and (directly or match["test"] == "output")
        if tied and above and not blocks[above[-1]].skipped:
            blocks[above[-1]] = replace(blocks[above[-1]], output=block.code)
            block = replace(block, skipped=True)
        blocks.append(block)
        end = match.end()
    return blocks


def block_of(page: Path, text: str, match: re.Match[str]) -> Block:
    """Return the block that a match of ``FENCE`` found."""
    line = text.count("\n", 0, match.start("code")) + 1
    return Block(page, line, match["language"], dedent(match["code"]), skipped=match["test"] == "skip")


def shows(shown: str, printed: str) -> bool:
    """Return whether a page shows what was printed, except for white space and what ``…`` stands for."""
    parts = [re.escape(" ".join(part.split())) for part in shown.split("…")]
    return re.fullmatch(r"\s?.*\s?".join(parts), " ".join(printed.split())) is not None


BLOCKS = [block for page in PAGES for block in blocks_of(page) if not block.skipped]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, dict[str, Any]]]:
    """Provide a page's folder and Python namespace, the same for all of its blocks."""
    made: dict[Path, tuple[Path, dict[str, Any]]] = {}

    def of(page: Path) -> tuple[Path, dict[str, Any]]:
        if page not in made:
            made[page] = tmp_path_factory.mktemp(page.stem), {"__name__": "__docs__"}
        return made[page]

    return of


def run_block(block: Block, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell block in ``folder``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block.code],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in SHELLS], ids=str)
def test_shell_commands_work(block, workspace):
    folder, _ = workspace(block.page)
    run = run_block(block, folder)
    errors = run.stderr + "".join(log.read_text() for log in folder.glob("*.log"))  # of servers in the background
    if run.returncode:
        skip_if_an_extra_is_missing(errors)
    assert run.returncode == 0, f"{block}\n{block.code}\n{run.stdout}{run.stderr}"
    if block.output is not None:
        assert shows(block.output, run.stdout), f"{block}\n{block.output}\nis not what it prints:\n{run.stdout}"


def shows_a_generated_text(block: Block) -> bool:
    """Return whether a shell block generates a text that the page shows in full."""
    return bool(re.search(r"gpt2lab generate\b", block.code)) and block.output is not None and "…" not in block.output


@pytest.mark.slow
@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("block", [block for block in BLOCKS if shows_a_generated_text(block)], ids=str)
def test_a_generated_text_is_the_same_under_every_instruction_set(block, isa, tmp_path):
    run = run_block(block, tmp_path, GPT2LAB_ISA=isa)
    assert shows(block.output, run.stdout), f"{block}\n{block.output}\nis not what it prints:\n{run.stdout}{run.stderr}"


def test_pages_show_generated_texts():
    assert any(map(shows_a_generated_text, BLOCKS))


def test_text_is_the_output_of_a_command_that_is_run_or_says_why_not():
    assert [str(block) for block in BLOCKS if block.language == "text"] == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a wrapped\n  line", "a wrapped line\n", True),
        ("{…}\nthe end", "{1, 2}\nthe end", True),
        ("once upon …", "once upon a time", True),
        ("once upon …", "twice upon a time", False),
        ("one line", "one line\nand another", False),
        ("one … three", "one two four", False),
        ("a.c", "abc", False),
    ],
)
def test_output_is_compared_but_for_white_space_and_what_is_left_out(shown, printed, same):
    assert shows(shown, printed) is same


def test_a_page_ties_output_to_the_command_above_it(tmp_path):
    page = tmp_path / "page.md"
    fence = "```"
    page.write_text(
        f"{fence}bash\necho 1\n{fence}\n\n{fence}text\n1\n{fence}\n\nProse.\n\n"
        f"{fence}bash\necho 2\n{fence}\n\nprints\n\n<!-- test: output -->\n{fence}text\n2\n{fence}\n\n"
        f"{fence}bash\necho 3\n{fence}\n\nProse.\n\n{fence}text\nuntied\n{fence}\n\n"
        f"<!-- test: skip (network) -->\n{fence}bash\necho 4\n{fence}\n\n{fence}text\nnot run\n{fence}\n",
        encoding="utf-8",
    )
    blocks = blocks_of(page)
    assert [block.output for block in blocks if block.language == "bash"] == ["1\n", "2\n", None, None]
    assert [block.code for block in blocks if block.language == "text" and not block.skipped] == [
        "untied\n",
        "not run\n",
    ]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_works(block, workspace, monkeypatch):
    folder, namespace = workspace(block.page)
    monkeypatch.chdir(folder)
    padding = "\n" * (block.line - 1)  # for line numbers in tracebacks
    try:
        exec(compile(padding + block.code, str(block.page), "exec"), namespace)
    except UsageError as error:
        skip_if_an_extra_is_missing(str(error))
        raise


def skip_if_an_extra_is_missing(errors: str) -> None:
    """Skip the test if gpt2lab named a package that it needs, and this environment does not have it."""
    if lacking := re.search(r"needs (\w+): pip install 'gpt2lab\[", errors):
        needs.check(lacking[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_name_a_language(page):
    fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.M)
    assert len(fences) % 2 == 0, "a block is not closed"
    languages = set(fences[::2])
    assert languages <= {*SHELLS, "python", "text", "json", "yaml", "cpp"}, languages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = [target for target in targets if not leads_somewhere(page, target)]
    assert not broken


def leads_somewhere(page: Path, target: str) -> bool:
    """Return whether a link's file, and the heading that it names, exist; links to other sites are not followed."""
    if re.match(r"(https?|mailto):", target):
        return True
    name, _, anchor = target.partition("#")
    file = (page.parent / name) if name else page
    if not file.exists():
        return False
    return not anchor or file.suffix != ".md" or anchor in anchors_of(file)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in ("README.md", *linked(index))]
    assert not missing


def linked(text: str) -> set[str]:
    """Return the targets of a text's links, without anchors."""
    return {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
