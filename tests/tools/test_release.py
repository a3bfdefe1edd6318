"""A tag becomes a release only if every file names its version."""

from pathlib import Path

import pytest
from release import VERSIONS, entry, faults

from gpt2lab.version import __version__

CHANGELOG = "# Changelog\n\n## 1.2.0 (2026-12-01)\n\nText.\n\n* One.\n\n## 1.1.0 (2026-11-01)\n\n* Old.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lines = {"pyproject.toml": 'version = "1.2.0"', "CITATION.cff": "version: 1.2.0"}
    for name in VERSIONS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(lines.get(name, '__version__ = "1.2.0"') + "\n", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    return tmp_path


def test_a_complete_release_has_no_fault(root):
    assert faults("v1.2.0", root) == []


def test_its_changes_end_where_the_next_entry_begins():
    assert entry("1.2.0", CHANGELOG) == ("1.2.0 (2026-12-01)", "Text.\n\n* One.")
    assert entry("1.1.0", CHANGELOG) == ("1.1.0 (2026-11-01)", "* Old.")


@pytest.mark.parametrize("name", VERSIONS)
def test_a_file_with_another_version_is_reported(root, name):
    text = (root / name).read_text(encoding="utf-8")
    (root / name).write_text(text.replace("1.2.0", "1.1.0"), encoding="utf-8")
    assert faults("v1.2.0", root) == [f"{name} has version 1.1.0, the tag 1.2.0"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## 1.2.0 (2026-12-01)", "## 1.2.1", "has no entry"),
        ("2026-12-01", "unreleased", "says that 1.2.0 is unreleased"),
        ("Text.\n\n* One.\n", "", "lists no changes"),
    ],
)
def test_a_changelog_without_the_version_is_reported(root, old, new, fault):
    (root / "CHANGELOG.md").write_text(CHANGELOG.replace(old, new), encoding="utf-8")
    assert [fault in each for each in faults("v1.2.0", root)] == [True]


def test_the_tag_has_a_v(root):
    assert faults("1.2.0", root) == ["the tag is 1.2.0, not v1.2.0"]


def test_this_repository_names_one_version():
    assert [fault for fault in faults(f"v{__version__}") if "CHANGELOG" not in fault] == []
