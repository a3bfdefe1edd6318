"""Check that a tag may become a release, and print what changed in it.

    python tools/release.py v0.1.0

The version in pyproject.toml, CITATION.cff and the package must be the tag's, and CHANGELOG.md must have an entry of
that version that no longer says "unreleased". Exits with 1 and one line for each fault.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = {  # file → the pattern of its version
    "pyproject.toml": r'^version = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "src/gpt2lab/version.py": r'^__version__ = "(.+)"$',
}


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """Return what keeps ``tag`` from being released."""
    version = tag.removeprefix("v")
    found = [] if tag == f"v{version}" else [f"the tag is {tag}, not v{version}"]
    for name, pattern in VERSIONS.items():
        stated = re.findall(pattern, (root / name).read_text(encoding="utf-8"), re.M)
        if stated != [version]:
            found.append(f"{name} has version {', '.join(stated) or 'none'}, the tag {version}")
    heading, changes = entry(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if heading is None:
        found.append(f"CHANGELOG.md has no entry ## {version}")
    elif "unreleased" in heading.lower():
        found.append(f"CHANGELOG.md says that {version} is unreleased: replace this by the date")
    elif not changes:
        found.append(f"CHANGELOG.md lists no changes of {version}")
    return found


def entry(version: str, changelog: str) -> tuple[str | None, str]:
    """Return the heading of a version's entry, None if there is none, and its text."""
    match = re.search(rf"^## ({re.escape(version)}\b.*)\n((?:(?!## ).*(?:\n|\Z))*)", changelog, re.M)
    return (match[1], match[2].strip()) if match else (None, "")


def main() -> None:
    """Read the command line."""
    (tag,) = sys.argv[1:]
    if found := faults(tag):
        sys.exit("\n".join(found))
    print(entry(tag.removeprefix("v"), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1])


if __name__ == "__main__":
    main()
