import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "tales" / "stories.py"

LONG = "Then the miller’s son went on, and on, until the wood was behind him. " * 30
BOOK = f"""THE GREY BOOK

By Nobody

CONTENTS

The Miller The Fox

PREFACE

{LONG}

THE MILLER

“Once,” said he—and _smiled_, [1] “there was   a mill.”

[Illustration: A mill]

* * * * *

CHAPTER II

{LONG}

The Fox in the Wood

{LONG}

A DEDICATION

To Anna.

NOTES

{LONG}
"""


def test_a_book_becomes_its_stories_in_plain_ascii(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "grey.txt").write_text(BOOK, encoding="utf-8")
    subprocess.run([sys.executable, TOOL, tmp_path / "books", tmp_path / "out"], check=True, capture_output=True)
    long = LONG.strip().replace("’", "'")
    assert {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "out").iterdir()} == {
        "grey-001.txt": f'"Once," said he--and smiled, "there was a mill."\n\n{long}\n',
        "grey-002.txt": f"{long}\n",
    }
