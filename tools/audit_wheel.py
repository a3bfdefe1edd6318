"""Check the contents of wheels, and that a Linux wheel asks for no newer C library than its name promises.

    python tools/audit_wheel.py dist/*.whl

Prints for each wheel the newest versions of libc's and libstdc++'s symbols that it needs, with the number of versions.
Exits with 1 and one line for each fault. It needs no package; auditwheel checks more.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

PARTS = ("__init__.py", "_native.pyi", "py.typed", "assets/tales.gguf", "assets/vocab.bpe", "serving/page/index.html")
LIBRARY = re.compile(r"gpt2lab/_native\.(?P<kind>abi3\.|cpython-\d+-|cp\d+-)?[\w-]*\.?(so|pyd)")
FAMILIES = ("GLIBC", "GLIBCXX", "CXXABI")

Version = tuple[int, ...]


def needed(library: bytes) -> dict[str, set[Version]]:
    """Return the versions of symbols that an ELF library needs, by family; they stand in it as text."""
    found: dict[str, set[Version]] = {family: set() for family in FAMILIES}
    for family, numbers in re.findall(rb"(?<=\0)(GLIBC|GLIBCXX|CXXABI)_([0-9]+(?:\.[0-9]+)+)(?=\0)", library):
        found[family.decode()].add(tuple(map(int, numbers.split(b"."))))
    return found


def faults(name: str, files: dict[str, bytes]) -> Iterator[str]:
    """Yield what is wrong with a wheel of this name and these contents."""
    yield from (f"gpt2lab/{part} is missing" for part in PARTS if f"gpt2lab/{part}" not in files)
    libraries = [file for file in files if LIBRARY.fullmatch(file)]
    if len(libraries) != 1:
        yield f"there is not one library gpt2lab/_native, but {len(libraries)}"
        return
    if ("-abi3-" in name) != (".abi3." in libraries[0] or libraries[0].endswith("_native.pyd")):
        yield f"{libraries[0]} does not fit the wheel's tag"
    if promised := re.search(r"manylinux_(\d+)_(\d+)_", name):
        limit = (int(promised[1]), int(promised[2]))
        newer = [version for version in needed(files[libraries[0]])["GLIBC"] if version > limit]
        yield from (f"needs GLIBC {_dotted(version)}, and promises {_dotted(limit)}" for version in sorted(newer))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def main() -> None:
    """Read the command line."""
    failed = False
    for path in map(Path, sys.argv[1:]):
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
        library = b"".join(content for name, content in files.items() if LIBRARY.fullmatch(name))
        versions_of = {family: versions for family, versions in needed(library).items() if versions}
        print(f"{path.name}: {len(files)} files, {path.stat().st_size / 1e6:.1f} MB")
        for family, versions in versions_of.items():
            print(f"  {family} up to {_dotted(max(versions))}, {len(versions)} versions")
        for fault in faults(path.name, files):
            print(f"  fault: {fault}")
            failed = True
    sys.exit(failed or len(sys.argv) < 2)


if __name__ == "__main__":
    main()
