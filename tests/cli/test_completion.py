"""Tab in real shells: each sources the printed script and completes words of the command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needs

SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Provide an environment whose path has a ``gpt2lab`` that runs this package."""
    program = tmp_path / "bin" / "gpt2lab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpt2lab "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_is_printed_even_where_the_shell_is_not(gpt2lab, shell):
    done = gpt2lab("completion", shell)
    assert f"_GPT2LAB_COMPLETE={shell}_complete" in done.output


def test_another_shell_is_refused(gpt2lab):
    done = gpt2lab("completion", "csh")
    assert done.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in done.output


@needs.mark("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gen"], ["generate"]),
        (["generate", "--top_"], ["--top_k", "--top_p"]),
        (["generate", "--precision", "int"], ["int4", "int8"]),
    ],
)
def test_bash_completes(environment, words, expected):
    script = f"""eval "$(gpt2lab completion bash)"
        COMP_WORDS=(gpt2lab {" ".join(words)}) COMP_CWORD={len(words)}
        _gpt2lab_completion gpt2lab
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == expected


@needs.mark("fish")
def test_fish_completes(environment):
    script = "gpt2lab completion fish | source; complete --do-complete 'gpt2lab generate --top_'"
    done = subprocess.run(["fish", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == ["--top_k", "--top_p"]


@needs.mark("zsh")
def test_zsh_completes(environment, tmp_path):
    """zsh completes only in a terminal."""
    import pty

    typist, terminal = pty.openpty()
    zsh = subprocess.Popen(["zsh", "-f", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    try:
        setup = "autoload -U compinit; compinit -u -D; eval \"$(gpt2lab completion zsh)\"; PS1='ready''> '\n"
        os.write(typist, setup.encode())
        read_until(typist, b"ready> ")
        os.write(typist, b"gpt2lab genera\t")
        read_until(typist, b"generate")
    finally:
        zsh.kill()
        zsh.wait()
        os.close(typist)


def read_until(terminal: int, expected: bytes, seconds: float = 60) -> None:
    """Read a terminal until it has printed ``expected``."""
    os.set_blocking(terminal, False)
    printed, deadline = b"", time.monotonic() + seconds
    while expected not in printed:
        assert time.monotonic() < deadline, printed
        try:
            printed += os.read(terminal, 4096)
        except BlockingIOError:
            time.sleep(0.05)
