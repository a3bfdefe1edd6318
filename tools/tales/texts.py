"""Write the table of the books in docs/tales-texts.md from their list.

    python tools/tales/texts.py BOOKS_FOLDER/LIST.tsv docs/tales-texts.md --hold_out SLUG ...

The list has a book in each line: slug, title, author, number at Project Gutenberg, characters. The table takes the
place of what stands between the marks in the page.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

TABLE = re.compile(r"(?<=<!-- books -->\n).*?(?=<!-- end -->)", re.S)
LONGEST = 70  # characters of a title


def rows(listed: str, held_out: set[str]) -> list[str]:
    """Return the table's lines for the text of the list; raise ValueError for a held-out book that is not in it."""
    books = list(csv.DictReader(listed.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    if unknown := held_out - {book["slug"] for book in books}:
        raise ValueError(f"not in the list: {', '.join(sorted(unknown))}")
    made = ["| book | authors, illustrators | number | characters | |\n", "|---|---|---|---|---|\n"]
    for book in sorted(books, key=lambda book: book["title"].lower()):
        title = shortened(book["title"])
        people = "; ".join(without_full_names(person) for person in book["author"].split("; "))
        kept = "held out" if book["slug"] in held_out else ""
        made.append(f"| {title} | {people} | {book['gutenberg']} | {int(book['characters']):,} | {kept} |\n")
    return made


def shortened(title: str) -> str:
    """Return a title without its subtitle, as one cell."""
    title = re.split(r"[:;]| \$b|, or,? ", title)[0].replace("|", "/").strip()
    return title if len(title) <= LONGEST else title[:LONGEST].rsplit(" ", 1)[0] + " …"


def without_full_names(person: str) -> str:
    """Return ``Burgess, Thornton W.`` for ``Burgess, Thornton W. (Thornton Waldo)``."""
    return re.sub(r" \([^)]*\)", "", person).strip()


def main() -> None:
    """Read the options and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--hold_out", action="append", default=[], metavar="SLUG")
    arguments = parser.parse_args()
    table = "".join(rows(arguments.list.read_text(encoding="utf-8"), set(arguments.hold_out)))
    text = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(TABLE.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main()
