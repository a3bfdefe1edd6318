import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "with_progress.py"

PIP = """
Collecting numpy>=1.23 (from gpt2lab==0.1.0)
  Downloading numpy-2.4.6.whl (16.1 MB)
  [1/9] Building CXX object CMakeFiles/_native.dir/native/sampler.cpp.o
  [9/9] Linking CXX shared module _native.cpython-311-x86_64-linux-gnu.so
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True)


def test_packages_and_compiled_files_are_a_line_each():
    ended = run(f"print({PIP!r})")
    assert ended.returncode == 0
    assert ended.stderr.splitlines() == [
        "  package numpy",
        "  compiling 1 of 9: sampler.cpp",
        "  compiling 9 of 9: _native.cpython-311-x86_64-linux-gnu",
    ]


def test_what_fails_shows_all_that_it_printed_and_its_status():
    ended = run("import sys; print('no compiler'); sys.exit(7)")
    assert ended.returncode == 7
    assert "no compiler\n" in ended.stderr
