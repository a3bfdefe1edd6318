"""Cut books of plain text into stories, one file each, to train ``tales`` on.

    python tools/tales/stories.py BOOKS_FOLDER OUT_FOLDER

Reads every ``*.txt`` below BOOKS_FOLDER (Project Gutenberg texts, one paragraph per line, blank lines between) and
writes ``OUT_FOLDER/<book>-<number>.txt``, one story per file, paragraphs separated by a blank line. Leaves out title
pages, contents, prefaces, notes, headings and picture captions. Spells quotation marks and dashes in ASCII, because
users type them so in prompts and GPT-2's vocabulary encodes them in fewer tokens. This module knows nothing of tokens
or training.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

MIN_STORY = 1500  # characters; shorter texts are lists, dedications or stray captions
ASCII = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "...", "\u00a0": " "})
APPARATUS = re.compile(
    r"(pre|inter)?(face|lude)$|preface|introduct|contents|list of|to my reader|to the .*reader|author'?s? note"
    r"|prologue|footnote|dedicat|preparer|transcrib|notice|illustrations|glossary|index|advertis"
    r"|bibliograph|a note|note$",
    re.IGNORECASE,
)
BACK_MATTER = re.compile(
    r"notes?( and references)?\.?$|footnotes?:?$|transcriber|appendix|glossary|index$", re.IGNORECASE
)
CHAPTER = re.compile(r"(chapter|part|book|scene)\b|[ivxlc]+(\.|$| )|\d+(\.|$| )", re.IGNORECASE)
NOISE = re.compile(r"\[(illustration|picture|footnote|frontispiece)[^\]]*\]|\[\d+\]|\[[a-z*]\]", re.IGNORECASE)


def clean(paragraph: str) -> str:
    """Return a paragraph on one line, with ASCII punctuation, without italics marks, pictures and footnote numbers."""
    text = NOISE.sub("", paragraph.translate(ASCII)).replace("_", "").replace("|", "")
    return re.sub(r"\s+", " ", text).strip()


def is_heading(paragraph: str) -> bool:
    """Return whether this looks like a title: short, and either in capitals, a chapter number, or not a sentence."""
    if len(paragraph) > 90:
        return False
    if not re.search("[a-z]", paragraph) or CHAPTER.match(paragraph):
        return '"' not in paragraph
    words = re.findall(r"[A-Za-z']+", paragraph)
    titled = sum(word[0].isupper() for word in words) >= 0.5 * len(words)
    return titled and paragraph[-1] not in ".!?\"',;:-"


def is_noise(paragraph: str) -> bool:
    """Return whether this is neither text nor a title: a row of stars, a source in brackets, a rights or etext line."""
    if not re.search("[A-Za-z]{2}", paragraph):
        return True
    if re.match(r"[\[(].*[\])]\.?$", paragraph) and len(paragraph) < 120:
        return True
    return bool(re.search(r"gutenberg|e-?text|http:|copyright|all rights reserved", paragraph, re.IGNORECASE))


def stories(text: str) -> Iterator[str]:
    """Yield the stories of one book in order. A title starts a new story; a chapter heading is just left out."""
    story: list[str] = []
    skipping = True  # until the first title: the title page
    position = 0
    for raw in re.split(r"\n\s*\n", text):
        position += len(raw) + 2
        paragraph = clean(raw)
        if is_noise(paragraph):
            continue
        if not is_heading(paragraph):
            if not skipping:
                story.append(paragraph)
            continue
        if BACK_MATTER.match(paragraph) and position > 0.6 * len(text):
            break
        if CHAPTER.match(paragraph) and not skipping:
            continue
        yield "\n\n".join(story)
        story, skipping = [], bool(APPARATUS.match(paragraph))
    yield "\n\n".join(story)


def main(books: Path, out: Path) -> None:
    """Write every story of every book and print their number."""
    out.mkdir(parents=True, exist_ok=True)
    count = characters = 0
    for book in sorted(books.rglob("*.txt")):
        kept = [story for story in stories(book.read_text(encoding="utf-8")) if len(story) >= MIN_STORY]
        for number, story in enumerate(kept, 1):
            (out / f"{book.stem}-{number:03}.txt").write_text(story + "\n", encoding="utf-8")
        count += len(kept)
        characters += sum(map(len, kept))
        print(f"{book.stem}: {len(kept)} stories")
    print(f"{count} stories, {characters:,} characters in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
