"""Make the pictures in docs/images/ from the output of the running program.

    python docs/make_pictures.py [STORIES]

Needs gpt2lab installed, with its extra ``explore`` for the charts. The same model gives the same files. The charts of
temperature.md are left as they are unless STORIES is given: the folder of ``tales``' training text (tales.md).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
WIDTH = 78  # characters
PICTURES = {
    "next": 'gpt2lab next "The king said to the" --temperature 0.7 --top_k 40 --top 5',
    "temperatures": 'gpt2lab explore next "The king said to the" --temperatures 0.7 2 100 --seed 6 --top 6',
    "lens": 'gpt2lab explore attend "The king said to the queen"',
}
CHARTS = 'gpt2lab explore sweep "Once upon a time" --nsamples 8 --length 100 --seed 1'


def screen(command: str) -> str:
    """Return the output of the command on a terminal in colour."""
    arguments = [sys.executable, "-m", *shlex.split(command)]
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    run = subprocess.run(arguments, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    return "\n".join(line.rstrip() for line in run.stdout.splitlines())


def picture(name: str, command: str) -> str:
    """Return the command and its output as an SVG that needs no font from elsewhere."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text(f"$ {command}\n", style="bold"))
        console.print(Text.from_ansi(screen(command)))
    svg = console.export_svg(title="gpt2lab", theme=MONOKAI, unique_id=name)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code", "DejaVu Sans Mono, Menlo")
    return re.sub(r"[ \t]+$", "", svg, flags=re.M).rstrip() + "\n"


def badge(left: str, right: str) -> str:
    """Return two words on two grounds as an SVG, for a link at the top of the README."""
    middle, width = 14 + 7 * len(left), 28 + 7 * (len(left) + len(right))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{left}: {right}">'
        f'<rect width="{width}" height="20" rx="3" fill="#0b5cad"/>'
        f'<path d="M3 0h{middle - 3}v20h-{middle - 3}a3 3 0 0 1-3-3v-14a3 3 0 0 1 3-3z" fill="#444"/>'
        '<g fill="#fff" font-family="DejaVu Sans, Verdana, sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{middle / 2:g}" y="14">{left}</text>'
        f'<text x="{(middle + width) / 2:g}" y="14">{right}</text></g></svg>\n'
    )


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "notebook.svg").write_text(badge("notebook", "ten minutes"), encoding="utf-8")
    for name, command in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(picture(name, command), encoding="utf-8")
        print(IMAGES / f"{name}.svg")
    if len(sys.argv) > 1:
        screen(shlex.join([*shlex.split(CHARTS), "--against", sys.argv[1], "--svg", str(IMAGES / "temperature.svg")]))
        print(IMAGES / "temperature.svg")
