"""A copy of the package with one more stage of sampling, written as docs/architecture.md says, for the tests that look
for the stage in every interface. The stage, ``floor``, drops tokens that are less likely than its parameter.

The C++ core is not built for it, so engines draw with ``device="reference"``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpt2lab
from gpt2lab import _native

PACKAGE = Path(gpt2lab.__file__).parent
EDITS = {
    "sampling/declaration.py": [
        ('    "min_p": "min-p",\n', '    "min_p": "min-p",\n    "floor": "the floor",\n'),
        (
            "    repetition_penalty: float = _number(",
            """    floor: float = _number(
        0.0,
        stage="floor",
        low=0,
        high=1,
        allowed="between 0 (off) and 1",
        help="Drop tokens below this probability.",
        title="Floor",
        hint="drop what is below",
        slider=(0, 0.1, 1),
    )
    repetition_penalty: float = _number(""",
        ),
    ],
    "sampling/rules.py": [
        (
            "_RULES: dict",
            """def _floor(stage: Stage, params: SamplingParams, history: Sequence[int]) -> Floats:
    return np.where(stage.probabilities >= params.floor, stage.logits, -np.inf)


_RULES: dict""",
        ),
        ('    "min_p": _min_p,\n', '    "min_p": _min_p,\n    "floor": _floor,\n'),
    ],
    "serving/page/sampling.js": [
        ("  min_p: minP,\n", "  min_p: minP,\n  floor: aboveFloor,\n"),
        (
            "function minP(",
            """function aboveFloor({ logits, probabilities }, { floor }) {
  return each(logits, (logit, id) => (probabilities[id] >= floor ? logit : -Infinity));
}

function minP(""",
        ),
    ],
}
"""Everything written by hand for it, except C++: file → replacements, each made once."""


FROM_PATH = "import sys; sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]\n"
"""Code that lets Python import from the path alone, whatever an editable install has set up."""


def copy_with_new_stage(folder: Path) -> dict[str, str]:
    """Make the copy in ``folder``; return the environment in which Python imports it."""
    copied = folder / "gpt2lab"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__", "assets", "_native*"))
    for path in (PACKAGE / "assets", Path(_native.__file__)):  # an editable install has its core elsewhere
        (copied / path.name).symlink_to(path)
    for name, replacements in EDITS.items():
        text = (copied / name).read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (copied / name).write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}


def python(code: str, environment: dict[str, str], cwd: Path) -> str:
    """Return what a separate Python prints that has the copy."""
    command = [sys.executable, "-c", FROM_PATH + code]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return run.stdout
