"""Print the requirements in pyproject.toml, one per line, for ``pip install -r``.

    python tools/requirements.py lint             everything that gpt2lab and its extra `lint` need
    python tools/requirements.py --lowest test    the same for `test`, in the oldest versions
    python tools/requirements.py --build          everything that a build needs

``--lowest`` turns ``>=`` into ``==`` and changes nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, whose pip includes a copy
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Read the command line and print the requirements."""
    parser = argparse.ArgumentParser(description="Print what pyproject.toml requires.")
    parser.add_argument("--lowest", action="store_true", help="the oldest versions")
    parser.add_argument("--build", action="store_true", help="of a build, not of the package")
    parser.add_argument("extras", nargs="*", help="of the package, beside its base")
    options = parser.parse_args()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if options.build:
        required = declared["build-system"]["requires"]
    else:
        required = list(declared["project"]["dependencies"])
        for extra in options.extras:
            required += declared["project"]["optional-dependencies"][extra]
    for line in required:
        print(lowest(line) if options.lowest else line)


def lowest(requirement: str) -> str:
    """Turn ``numpy>=1.23; python_version < '3.11'`` into ``numpy==1.23; python_version < '3.11'``."""
    package, semicolon, marker = requirement.partition(";")
    return package.replace(">=", "==") + semicolon + marker


if __name__ == "__main__":
    main()
