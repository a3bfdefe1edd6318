"""The command as a whole: help, versions, imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2lab as package
from gpt2lab.cli.main import COMMANDS, SCRIPTS

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command_without_importing_one(gpt2lab) -> None:
    result = gpt2lab("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)
    code = "from gpt2lab.cli.main import main; main(['--help'])"
    check = "import sys, atexit; atexit.register(lambda: print('numpy' in sys.modules)); "
    done = subprocess.run([sys.executable, "-c", check + code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("name", ["generate", "interactive", "tokens", "next", "score"])
def test_help_of_each_command_fits_the_screen_and_shows_an_example(gpt2lab, name: str) -> None:
    result = gpt2lab(name, "--help")
    assert result.exit_code == 0
    assert f"gpt2lab {name}" in result.stdout.split("Example")[1]
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_help_of_generate_groups_its_options(gpt2lab) -> None:
    lines = gpt2lab("generate", "--help").stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    jobs = ["Many prompts into a file:", "Cluster:"]
    assert headings == ["Prompts:", "Reading:", "Samples:", "Sampling:", "Output:", "Model:", *jobs, "Other:"]


@pytest.mark.parametrize("name", ["generate", "interactive", "score", "next"])
def test_help_of_precision_says_which_is_exact(gpt2lab, name: str) -> None:
    words = " ".join(gpt2lab(name, "--help").stdout.split())
    assert "float32 rounds nothing: the likeliest tokens are those of the original" in words


def test_without_a_command_it_shows_the_help(gpt2lab) -> None:
    assert (gpt2lab().exit_code, gpt2lab().stdout) == (0, gpt2lab("--help").stdout)


def test_version(gpt2lab) -> None:
    assert gpt2lab("--version").stdout == f"gpt2lab, version {package.__version__}\n"


def test_an_unknown_command_is_a_mistake(gpt2lab) -> None:
    result = gpt2lab("genrate")
    assert result.exit_code == 2
    assert result.stderr.startswith("gpt2lab: error: No such command 'genrate'.")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_of_the_original_is_answered_with_the_command_to_use(gpt2lab, script: str) -> None:
    result = gpt2lab(f"{script}.py", "--model_name=345M", "--temperature=0")
    command, difference = SCRIPTS[script]
    use = f"use 'gpt2lab {command}', {difference} (see gpt2lab {command} --help)"
    assert result.exit_code == 2
    assert result.stderr == f"gpt2lab: error: {script}.py is a script of the original: {use}\n"


SPELLINGS = ["train-horovod", "train_horovod", "./train-horovod.py", "src/train_horovod.py", "src\\train-horovod.py"]


@pytest.mark.parametrize("typed", SPELLINGS)
def test_a_script_of_the_original_is_recognised_however_it_is_spelled(gpt2lab, typed: str) -> None:
    assert gpt2lab(typed).stderr.startswith(f"gpt2lab: error: {typed} is a script of the original: ")


def test_a_command_with_the_name_of_a_script_is_a_command(gpt2lab) -> None:
    assert all(gpt2lab(name, "--help").exit_code == 0 for name in SCRIPTS.keys() & COMMANDS.keys())


def test_the_hints_for_scripts_name_flags_that_exist(gpt2lab) -> None:
    for command, difference in SCRIPTS.values():
        named = {*re.findall(r"--[a-z_]+(?![a-z_-])", difference)} - {"--models_dir"}
        assert named <= {*re.findall(r"--[a-z_]+", gpt2lab(command, "--help").stdout)}


COMPLETING = {
    "bash": ("plain,{}", {"COMP_CWORD": "3"}),
    "zsh": ("plain\n{}\n_", {"COMP_CWORD": "3"}),
    "fish": ("plain,{}", {"COMP_CWORD": ""}),
}
"""Shell → the form of its answer with a choice, and the variables with the word to complete."""


@pytest.mark.parametrize("shell", COMPLETING)
def test_a_shell_completes_the_choices_of_an_option(shell: str) -> None:
    answer, word = COMPLETING[shell]
    asked = {"_GPT2LAB_COMPLETE": f"{shell}_complete", "COMP_WORDS": "gpt2lab generate --precision ", **word}
    code = "from gpt2lab.cli.main import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout == "".join(
        answer.format(name) + "\n" for name in ("float32", "bfloat16", "int8", "int4", "float16")
    )


MOST_MODULES = 63
"""The most modules of our own that a start may import: each costs time. Import a new one where it is used."""

SLOW_MODULES = {"numpy", "tiktoken", "regex", "concurrent.futures", "logging", "ctypes"}
"""Modules that take long to import, NumPy longer than all else together, and that need not be there to write text."""


@pytest.mark.parametrize("model", ["tests/golden/tiny", "tales"])
def test_generating_imports_neither_torch_nor_anything_else_that_it_does_not_need(model: str) -> None:
    code = (
        "import sys\nfrom gpt2lab.cli.main import cli\n"
        f"try: cli(['generate', '--length', '1', '--model', {model!r}])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "others = {'torch', 'matplotlib', 'huggingface_hub', 'rich', 'importlib.metadata', 'transformers', 'zipfile',"
        " 'difflib', 'numpy.typing', 'gpt2lab.data', 'gpt2lab.jobs', 'gpt2lab.cli.jobs', 'gpt2lab.cli.prompt_files',"
        " 'gpt2lab.generation.custom_draws', 'gpt2lab.sampling.custom', 'gpt2lab.sampling.rules',"
        " 'gpt2lab.weights.hub', 'gpt2lab.weights.writing'}\n"
        "print(others & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()"


COMMAND = """from gpt2lab.cli.main import cli
try: cli(['generate', 'Once', '--length', '1'])
except SystemExit as end: assert end.code == 0, end.code
"""
PYTHON = "import gpt2lab\ngpt2lab.load('tales').generate('Once', length=1)\n"


@pytest.mark.parametrize("start", [COMMAND, PYTHON], ids=["command", "python"])
def test_a_start_with_cached_weights_imports_little(tmp_path: Path, start: str) -> None:
    code = start + "import sys\nprint(*sys.modules)"
    loaded: set[str] = set()
    for _ in range(2):  # the first start writes the cache
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "GPT2LAB_CACHE": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & SLOW_MODULES == set()
    imported = {name for name in loaded if name.partition(".")[0] == "gpt2lab"}
    assert imported & {"gpt2lab.engines.packed_entries", "gpt2lab.system.atomic", "gpt2lab.weights.vocabulary"} == set()
    assert "gpt2lab.engines.packed_cache" in imported
    assert len(imported) <= MOST_MODULES, sorted(imported)
