"""Hooks of mkdocs: an API reference, and links that a site can follow.

The pages of docs/ are written for readers of the repository. A link to a file outside docs/ leads to the repository if
its address is known, and is plain text otherwise. The page ``api.md`` has the docstrings of all names in the table of
docs/python.md. This module does not import the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)\s]+)\)")
ROW = re.compile(r"^\| `(gpt2lab[\w.]*)` \| (`[^|]+`) \|$", re.M)


def public() -> dict[str, list[str]]:
    """Return the public names of each public module."""
    rows = ROW.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    return {module: [name for name in re.findall(r"`(\w+)`", names) if name[0] != "_"] for module, names in rows}


def reference() -> str:
    """Return the page of the API."""
    parts = ["# Python API\n\n[Use gpt2lab in a Python program](python.md) introduces these with examples.\n"]
    for module, names in public().items():
        parts.append(f"## {module}\n")
        parts += [f"::: {module}.{name}\n    options:\n      heading_level: 3\n" for name in names]
    return "\n".join(parts)


def linked(markdown: str, repository: str) -> str:
    """Return ``markdown`` with links to files outside docs/ leading to ``repository``; without them if it is empty."""
    return OUTSIDE.sub(rf"[\1]({repository}/blob/main/\2)" if repository else r"\1", markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the page of the API."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "api.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Change the links of a page."""
    return linked(markdown, (config.repo_url or "").rstrip("/"))
