import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

TOOL = Path(__file__).parents[2] / "tools" / "plot_losses.py"

LOG = """Training...
[1 | 2.00] loss=10.80 avg=10.80
[2 | 4.00] loss=6.00 avg=6.50
[2 | 4.00] validation loss = 6.1000
Saving checkpoint/run1/state-0000002
[2 | 4.00] loss=6.00 avg=6.40
[3 | 6.00] loss=5.00 avg=5.70
[3 | 6.00] validation loss = 5.5000
"""


def test_a_log_becomes_a_picture(tmp_path):
    (tmp_path / "log").write_text(LOG)
    subprocess.run([sys.executable, TOOL, tmp_path / "log", tmp_path / "out.svg"], check=True)
    picture = ElementTree.parse(tmp_path / "out.svg").getroot()
    training, held_out = picture.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(training.get("points").split()) == 2
    assert len(held_out.get("points").split()) == 2
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == 2
