"""The environments of the peers: one for each, made from ``benchmarks/environments/NAME.txt`` when it is missing.

The peers need different versions of the same packages, so each lives in a virtual environment of its own. llama.cpp is
compiled, for an instruction set of its own where one is asked for. This module knows nothing of what the peers do.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

LISTS = Path(__file__).with_name("environments")
COMPILED = "llama_cpp"
"""The peer that is compiled here, so that an instruction set is chosen when it is installed."""
_PLAIN = "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
CMAKE_ARGS = {"": "", "avx2": _PLAIN, "avx512vnni": f"{_PLAIN} -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON"}
"""Instruction set → llama.cpp's options; "" is everything that the processor has."""
NO_DSE = "-DCMAKE_CXX_FLAGS=-fno-tree-dse"
"""gcc 12 removes stores that configure the tiles of AMX, and llama.cpp's 8-bit and 4-bit models crash."""
UNWANTED = {"openvino": ["torchvision"]}
"""Peer → packages to remove again. optimum-intel asks for torchvision, which text does not need, and transformers fails
if its build does not match PyTorch's, such as one for CUDA beside one for CPUs."""
_STAMP = "installed.json"


class Environments:
    """The peers' environments in ``folder``, for the instruction set ``isa``, or "" for all that the processor has."""

    def __init__(self, folder: Path, isa: str = "") -> None:
        self._folder, self._isa = folder.absolute(), isa

    def python(self, peer: str) -> Path:
        """Return the Python that runs a peer: this one for gpt2lab, and that of its environment for another."""
        if peer == "gpt2lab":
            return Path(sys.executable)
        scripts = "Scripts" if os.name == "nt" else "bin"
        return self._path(peer) / scripts / ("python.exe" if os.name == "nt" else "python")

    def set_up(self, peer: str) -> None:
        """Make a peer's environment, unless it is as its list asks. Raises OSError or CalledProcessError."""
        wanted = self._wanted(peer)
        stamp = self._path(peer) / _STAMP
        if peer == "gpt2lab" or (stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted):
            return
        python, log = self.python(peer), self._path(peer).with_suffix(".log")
        print(f"setting up {self._path(peer)} (progress: {log})", file=sys.stderr, flush=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as output:
            pip = [str(python), "-m", "pip"]
            if not python.exists():
                subprocess.run(
                    [sys.executable, "-m", "venv", str(self._path(peer))], check=True, stdout=output, stderr=output
                )
            install = [*pip, "install", *_from_source(peer), "-r", str(LISTS / f"{peer}.txt")]
            subprocess.run(install, check=True, stdout=output, stderr=output, env=_environment(wanted["cmake"]))
            if peer in UNWANTED:
                remove = [*pip, "uninstall", "--yes", *UNWANTED[peer]]
                subprocess.run(remove, check=True, stdout=output, stderr=output)
        stamp.write_text(json.dumps(wanted), encoding="utf-8")

    def versions(self, peer: str) -> dict[str, str]:
        """Return the installed version of each package that a peer's list names before its dependencies."""
        if peer == "gpt2lab":
            return {"gpt2lab": version("gpt2lab")}
        program = (
            "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        )
        names = named_packages(LISTS / f"{peer}.txt")
        found = subprocess.run([self.python(peer), "-c", program, *names], check=True, capture_output=True)
        versions: dict[str, str] = json.loads(found.stdout)
        return versions

    def _path(self, peer: str) -> Path:
        return self._folder / (f"{peer}_{self._isa}" if peer == COMPILED and self._isa else peer)

    def _wanted(self, peer: str) -> dict[str, str]:
        if peer == "gpt2lab":
            return {}
        cmake = cmake_args(self._isa, has_tiles()) if peer == COMPILED else ""
        return {"packages": (LISTS / f"{peer}.txt").read_text(encoding="utf-8"), "cmake": cmake}


def named_packages(list: Path) -> list[str]:
    """Return the packages in the first paragraph of a list, without the dependencies that follow."""
    first = list.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line.partition("#")[0].partition("==")[0].partition("[")[0].strip() for line in first.splitlines()]
    return [line for line in lines if line]


def cmake_args(isa: str, tiles: bool) -> str:
    """Return the options that compile llama.cpp for ``isa`` on a processor with or without ``tiles``."""
    return CMAKE_ARGS[isa] or (NO_DSE if tiles else "")


def has_tiles() -> bool:
    """Return whether Linux reports AMX."""
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False


def restrictable() -> bool:
    """Return whether the peers can be restricted on this machine, which must be an x86."""
    return platform.machine().lower() in ("x86_64", "amd64")


def _from_source(peer: str) -> list[str]:
    """Return the flags that keep pip from installing what it compiled before, perhaps for another instruction set."""
    return ["--no-cache-dir", "--no-binary", "llama-cpp-python"] if peer == COMPILED else []


def _environment(cmake: str) -> dict[str, str]:
    """Return this process's environment without constraints: they pin versions of gpt2lab's own packages."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_CONSTRAINT")}
    return {**kept, "CMAKE_ARGS": cmake} if cmake else kept
