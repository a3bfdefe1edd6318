"""Every skip is declared, and with ``--installed`` a needless one fails, in one process and in several."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
import skips

TESTS = Path(__file__).parent
WAYS_TO_SKIP = {"skip", "skipif", "importorskip", "skipUnless", "skipIf", "collect_ignore", "collect_ignore_glob"}


def test_every_package_that_a_test_may_miss_comes_with_an_extra():
    without = [module for module, listed in needs.PACKAGES.items() if not needs.extras_with(listed, everywhere=True)]
    assert not without


def test_tests_skip_through_needs_alone():
    ours = {Path(__file__), *TESTS.glob("helpers/*.py")}
    found = {
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in set(TESTS.rglob("*.py")) - ours
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if getattr(node, "attr", getattr(node, "id", None)) in WAYS_TO_SKIP
    }
    assert not found


COLLECT_WITHOUT = """
import sys
from importlib.machinery import PathFinder

import pytest

find_spec, hidden = PathFinder.find_spec, sys.argv[1:]
PathFinder.find_spec = lambda name, *more: None if name in hidden else find_spec(name, *more)
sys.exit(pytest.main(["--collect-only", "-qq", "-p", "pytest_timeout", "-p", "no:cacheprovider", "tests"]))
"""


@pytest.mark.slow
def test_every_test_can_be_collected_without_the_packages_that_it_may_miss():
    hidden = [*needs.PACKAGES, "prometheus_client", "pydantic", "starlette"]
    command = [sys.executable, "-c", COLLECT_WITHOUT, *hidden]
    variables = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # some are of these packages
    ended = subprocess.run(command, env=variables, cwd=TESTS.parent, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_package_is_imported_or_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(needs.NEEDS, "json", needs.Need(lambda: True))
    assert needs.package("json.decoder") is json.decoder
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match=r"needs torch: pip install 'gpt2lab\[\w+\]'"):
        needs.package("torch")


def test_what_is_not_declared_is_an_error_and_no_skip():
    with pytest.raises(KeyError):
        needs.check("a unicorn")


def test_kernels_that_the_build_lacks_are_no_property_of_the_cpu(monkeypatch):
    monkeypatch.setattr(needs, "_cpu_has_amx", lambda: True)
    assert needs.NEEDS["a CPU with AMX"].is_due(frozenset())
    monkeypatch.setattr(needs, "_cpu_has_amx", lambda: False)
    assert not needs.NEEDS["a CPU with AMX"].is_due(frozenset({"test", "train"}))


def test_chromium_is_found_by_any_of_its_names(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "google-chrome" else None)
    assert needs.chromium() == "/bin/google-chrome"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert needs.chromium() is None


# ---- the plugin -----------------------------------------------------------------------------------------------------

CONFTEST = """
import needs
from dataclasses import replace
from skips import Skips

for name in ("torch", "ray", "Chromium", "Linux"):
    needs.NEEDS[name] = replace(needs.NEEDS[name], is_met=lambda: False)

def pytest_addoption(parser):
    parser.addoption("--installed")

def pytest_configure(config):
    extras = config.getoption("--installed")
    config.pluginmanager.register(Skips(None if extras is None else frozenset(extras.split(","))))
"""

DECLARED = """
import needs
import pytest

@needs.mark("torch")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_torch(number):
    pass

def test_torch_too():
    needs.package("torch")

@needs.mark("Chromium")
def test_browser():
    pass

@needs.mark("Linux", "ray")
def test_linux():
    pass

@pytest.mark.xfail
def test_bug():
    assert False

def test_that_passes():
    pass
"""

MODULE = "import needs\nneeds.check('torch')\ndef test_never(): pass\n"
UNDECLARED = "import pytest\ndef test_mine(): pytest.skip('not today')\n"


@pytest.fixture(scope="module")
def run_pytest(tmp_path_factory) -> Callable[..., tuple[int, str]]:
    """Provide ``run_pytest(*flags, files=…)``: the exit status and output of pytest where no need is met."""

    def run(*flags: str, files: tuple[str, ...] = (DECLARED, MODULE)) -> tuple[int, str]:
        folder = tmp_path_factory.mktemp("tests")
        (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        for number, text in enumerate(files):
            (folder / f"test_{number}.py").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", folder]
        paths = ["-o", f"pythonpath={TESTS / 'helpers'}", folder, *flags]
        ended = subprocess.run([*command, *paths], capture_output=True, text=True, cwd=folder)
        return ended.returncode, ended.stdout + ended.stderr

    return run


@pytest.fixture(scope="module", params=["0", "2"], ids=["one process", "two workers"])
def strict(request, run_pytest) -> tuple[int, str]:
    """Report all skips where train and browser were installed, and the missing things come with them."""
    return run_pytest("--installed=test,train,browser", "-n", request.param, files=(DECLARED, MODULE, UNDECLARED))


def test_skips_for_want_of_what_was_installed_fail(strict):
    status, said = strict
    assert status == 1
    torch = needs.reason_of("torch")
    assert f"    5  {torch} -- FAILED: should be here\n" in said  # three, one in its body, and a module
    assert "    1  needs Chromium -- FAILED: should be here\n" in said


def test_skips_that_nothing_could_prevent_are_counted_alone(strict):
    assert "    1  needs Linux\n" in strict[1]


def test_reasons_of_ones_own_fail(strict):
    assert "    1  not today -- FAILED: tests/helpers/needs.py does not declare this reason\n" in strict[1]


def test_expected_failures_are_no_skips(strict):
    assert "8 skipped, by reason" in strict[1]


@pytest.mark.parametrize("flags", [["--installed=test,serve"], []], ids=["not asked for", "not strict"])
def test_skips_for_want_of_what_was_not_asked_for_fail_nothing(run_pytest, flags):
    status, said = run_pytest(*flags)
    assert status == 0
    assert "7 skipped, by reason" in said
    assert "FAILED" not in said


def test_a_need_that_few_tests_may_miss_does_not_excuse_many(monkeypatch):
    monkeypatch.setitem(needs.NEEDS, "luck", needs.Need(lambda: False, at_most=2))
    monkeypatch.setitem(needs.NAME_OF, "needs luck", "luck")
    assert skips.verdict("needs luck", 2, frozenset()) is None
    assert skips.verdict("needs luck", 3, frozenset()) == "no more than 2 tests may be"
