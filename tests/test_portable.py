"""Outside ``system/`` the package assumes nothing that Windows lacks. What is simulated here runs there in CI."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import windows
from gpt2lab.system import atomic

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "gpt2lab"
NAMES = {name for names in windows.MISSING_NAMES.values() for name in names}
RENAMES = {("os", "rename"), ("os", "replace"), ("shutil", "move")}
LINKS = {"symlink_to", "hardlink_to", "lchmod", "chmod"}
TEXT_METHODS = {"read_text": {"encoding"}, "write_text": {"encoding", "newline"}}


def attribute(node: ast.AST) -> tuple[str, str] | None:
    """Return the two names of ``a.b``."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    return None


def without_docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield all nodes but strings that nothing uses."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return (node for node in ast.walk(tree) if not (isinstance(node, ast.Constant) and id(node) in texts))


def assumptions(text: str) -> list[str]:
    """Return what a module's source assumes of the system."""
    found = []
    for node in without_docstrings(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [f"imports {name}" for name in names if name in windows.MISSING_MODULES]
            found += [f"imports {name}" for name in names[1:] if names[0] in windows.MISSING_NAMES and name in NAMES]
        elif (pair := attribute(node)) is not None:
            module, name = pair
            if name in windows.MISSING_NAMES.get(module, ()) or pair in {("sys", "platform"), ("os", "name")} | RENAMES:
                found.append(f"uses {module}.{name}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"/(dev|proc|sys|tmp|etc|usr|var|home)(/|$)", node.value):
                found.append(f"names {node.value}")
        elif isinstance(node, ast.Call):
            found += assumptions_of_call(node)
    return found


def assumptions_of_call(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if name in ("getattr", "hasattr"):
        yield from (f"asks for {value}" for value in constants if value in NAMES)
    elif isinstance(call.func, ast.Attribute) and name in LINKS:
        yield f"calls {name}"
    elif isinstance(call.func, ast.Attribute) and name in ("rename", "replace"):
        if len(call.args) == 1 and not given:  # a string's has two, a dataclass's has names
            yield f"calls {name} of a path"
    elif name in ("mkdir", "touch") and "mode" in given:
        yield f"gives {name} a mode"
    elif isinstance(call.func, ast.Attribute) and name in TEXT_METHODS and (lacking := TEXT_METHODS[name] - given):
        yield f"calls {name} without {', '.join(sorted(lacking))}"
    elif name == "open" and "force_zip64" not in given:  # of a member of an archive, always binary
        modes = [value for value in constants if isinstance(value, str) and re.fullmatch(r"[rwxa]\+?t?", value)]
        if modes and (lacking := ({"encoding"} if modes[0][0] == "r" else {"encoding", "newline"}) - given):
            yield f"opens text without {', '.join(sorted(lacking))}"


def test_only_system_knows_which_system_it_is():
    modules = [path for path in sorted(SOURCE.rglob("*.py")) if "system" not in path.relative_to(SOURCE).parts]
    found = {path.relative_to(SOURCE).as_posix(): assumptions(path.read_text(encoding="utf-8")) for path in modules}
    assert {name: here for name, here in found.items() if here} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n    import fcntl", ["imports fcntl"]),
        ("from resource import getrlimit", ["imports resource"]),
        ("from os import fork", ["imports fork"]),
        ("os.fork()", ["uses os.fork"]),
        ("signal.signal(signal.SIGHUP, f)", ["uses signal.SIGHUP"]),
        ("if hasattr(signal, 'SIGHUP'): pass", ["asks for SIGHUP"]),
        ("if sys.platform == 'linux': pass", ["uses sys.platform"]),
        ("Path('/dev/shm')", ["names /dev/shm"]),
        ("path.chmod(0o600)", ["calls chmod"]),
        ("path.mkdir(mode=0o700)", ["gives mkdir a mode"]),
        ("path.symlink_to(other)", ["calls symlink_to"]),
        ("path.replace(other)", ["calls replace of a path"]),
        ("os.replace(path, other)", ["uses os.replace"]),
        ("path.read_text()", ["calls read_text without encoding"]),
        ("path.write_text(text, encoding='utf-8')", ["calls write_text without newline"]),
        ("path.open('a', encoding='utf-8')", ["opens text without newline"]),
        ("open(path, 'r')", ["opens text without encoding"]),
        ("text.replace('a', 'b')\nreplace(settings, a=1)\npath.open('rb')\n'''/dev/full'''", []),
    ],
)
def test_an_assumption_is_found(text, found):
    assert assumptions(text) == found


# ---- what can be simulated -------------------------------------------------------------------------------------------


def as_on_windows(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, windows.__file__, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8"
    )


def assert_run_as_on_windows(folder: Path, *commands: str) -> None:
    result = as_on_windows(folder, "run", *" , ".join(commands).split())
    assert result.returncode == 0, result.stderr


@needs.mark("Linux")
def test_every_module_can_be_imported_without_posix(tmp_path):
    result = as_on_windows(tmp_path, "import")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 150


@needs.mark("Linux")
def test_the_simulation_refuses_to_replace_an_open_file(tmp_path):
    program = "import windows, os; windows.become_windows(); file = open('a', 'w'); open('b', 'w').close(); "
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "helpers"), *sys.path])}
    for last, expected in (("os.replace('b', 'a')", 1), ("file.close(); os.replace('b', 'a')", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program + last], cwd=tmp_path, capture_output=True, env=environment
        )
        assert (done.returncode, b"PermissionError" in done.stderr) == (expected, bool(expected))


@needs.mark("Linux")
def test_a_model_is_converted_over_an_older_one_without_posix(tmp_path):
    steps = [f"convert tales {target}{more}" for target in ("folder", "file.gguf") for more in ("", " --overwrite")]
    assert_run_as_on_windows(tmp_path, *steps)


@needs.mark("Linux")
def test_a_dataset_is_encoded_over_an_older_one_without_posix(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n" * 50, encoding="utf-8")
    assert_run_as_on_windows(tmp_path, "encode a.txt data", "encode a.txt data --overwrite")


@needs.mark("Linux", "torch")
@pytest.mark.slow
def test_training_resumes_starts_over_and_continues_its_own_model_without_posix(tmp_path):
    """The last run replaces the model that it started from."""
    (tmp_path / "a.txt").write_text("Once upon a time there was a fox. " * 100, encoding="utf-8")
    new = "--from_scratch --n_embd 8 --n_head 1 --n_layer 1 --n_ctx 16"
    often = "--dataset a.txt --batch_size 1 --save_every 1 --val_every 1 --sample_every 0 --keep 1"
    own = "--model_name checkpoint/run1 --restore_from checkpoint/run1"
    runs = (f"{new} --steps 2", f"{new} --steps 3", f"{new} --steps 1 --restore_from fresh", f"{own} --steps 2")
    assert_run_as_on_windows(tmp_path, *(f"train {often} {more}" for more in runs))


# ---- renames that Windows refuses ------------------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, times: int, number: int = windows.IN_USE) -> None:
    """Make the first renames fail as on Windows, without a pause between attempts."""
    replace, left = Path.replace, [times]

    def refused(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise windows.windows_error(number, "The file is being used by another process", target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(atomic, "_PAUSE", 0)


def test_a_file_that_a_virus_scanner_holds_for_a_moment_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    refusing(monkeypatch, 3)
    atomic.write_file(tmp_path / "a", b"new", sync=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_a_file_that_stays_open_elsewhere_is_an_error_and_stays(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    refusing(monkeypatch, 1 << 30)
    monkeypatch.setattr(atomic, "_PATIENCE", 0)
    with pytest.raises(PermissionError, match="used by another process"):
        atomic.write_file(tmp_path / "a", b"new", sync=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_an_empty_folder_gives_way_to_a_new_one_where_renames_replace_no_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    refusing(monkeypatch, 1, windows.DENIED)
    with atomic.new_folder(tmp_path / "a", sync=False) as folder:
        (folder / "b").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


# ---- code pages and newlines -----------------------------------------------------------------------------------------

LEGACY = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


def test_pipes_carry_utf8_whatever_the_code_page():
    command = [sys.executable, "-m", "gpt2lab", "generate", "-", "--length", "1", "--seed", "1"]
    done = subprocess.run(command, input="naïve 日本 🦊".encode(), capture_output=True, env={**os.environ, **LEGACY})
    assert done.returncode == 0, done.stderr
    assert "日本" in done.stdout.decode()
    assert b"\r" not in done.stdout


def test_files_are_written_in_utf8_whatever_the_code_page(tmp_path):
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-m", "gpt2lab"]
    arguments = ["generate", "日本", "--length", "1", "--seed", "1", "--out", str(tmp_path / "out.jsonl"), "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, env={**os.environ, **LEGACY})
    assert done.returncode == 0, done.stderr
    assert '"日本"' in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
