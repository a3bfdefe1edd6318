"""Cut a book of plain text into documents to train on: its stories, or its chapters.

A heading starts a document and is left out. Left out as well are front and back matter, notes, captions, sources,
advertisements and verse; a paragraph that was cut off in the middle of a sentence loses that sentence. Everything left
out is counted by its reason. This module knows nothing of other books.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from stories import clean

MIN_DOCUMENT = 300  # characters; a fable is that short, and what is shorter is a list or a caption
NUMBER = r"([IVXLC]+|\d+|[Oo]ne|[Tt]wo|[Tt]hree|[Ff]our|[Ff]ive|[Ss]ix|[Ss]even|[Ee]ight|[Nn]ine|[Tt]en|[A-Z][a-z]*teen\
|[Ee]leven|[Tt]welve|[Tt]wenty|[Tt]hirty|[A-Z][a-z]*(st|nd|rd|th))\b"
ROMAN = r"[IVXLC]+(\.|:|\s*--|$)"
NUMBERED = re.compile(
    rf"(?i:chapter|part|book|story|tale|scene|act|adventure|volume|night|canto)\s+((?i:the)\s+)?{NUMBER}|"
    rf"{ROMAN}|\d+\.?\s*$|\d+\.\s+[A-Z]"
)
DATED = re.compile(r"(JANUARY|FEBRUARY|MARCH|APRIL|MAY|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER) \d+: ")
APPARATUS = re.compile(
    r"(the )?(preface|introduct|contents|table of|list of|foreword|to (my|the) .*readers?|author'?s? note|footnote|"
    r"dedicat|preparer|transcriber|illustrations|glossary|index\b|advertis|bibliograph|notes?\W*$|notes? (on|and|to)\b|"
    r"appendix|pronunc|publisher|the end of the project|books? by\b|.*\bseries\W*$)",
    re.IGNORECASE,
)
END = re.compile(r"(the )?end\W*$|finis\W*$", re.IGNORECASE)
NOTE = re.compile(r"(foot)?notes?( \d+)?\s*[:.]|\*\s*\w|\[\d+\]|\(?see (page|no\.|also)", re.IGNORECASE)
SOURCE = re.compile(r"(by|from|adapted|translated|retold|told by|after|selected)\b.{0,90}$", re.IGNORECASE)
LEGAL = re.compile(r"gutenberg|\be-?text|https?:|copyright, |all rights reserved|\b12mo\b|illustrated by|price,? \$")
_STARTS = """And But The To Of In With For That As When Or So His Her My On From At Then If Who Where A An Till Nor By
While Is Are Was Not Yet Though Than Their Our Your He She They We It Which What How All No Upon Through Into"""
LINE_STARTS = frozenset(_STARTS.split())
"""Words that begin a line of verse in capitals where prose has them in small letters."""


@dataclass
class Cut:
    """The documents of a book, each a list of paragraphs, and the characters left out by reason."""

    documents: list[list[str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_heading(paragraph: str) -> bool:
    """Return whether this is a title or a chapter's number: short, and in capitals, numbered, or titled."""
    if len(paragraph) > 120 or paragraph[0] in '"([':
        return False
    if DATED.match(paragraph):
        return True
    if not re.search("[a-z]", paragraph):
        return bool(re.search("[A-Z0-9]", paragraph)) and '"' not in paragraph.strip('"')
    if NUMBERED.match(paragraph):
        return paragraph[-1] not in ",;"
    words = re.findall(r"[A-Za-z']+", paragraph)
    titled = sum(word[0].isupper() for word in words) >= 0.6 * len(words)
    return titled and len(paragraph) <= 90 and paragraph[-1] not in ".!?\"',;:-"


def is_verse(paragraph: str) -> bool:
    """Return whether lines of verse were joined into this: capitals inside sentences show where they began."""
    words = paragraph.split(" ")
    pairs = pairwise(words)
    starts = sum(bool(re.search(r"[a-z,;]$", a)) and b.strip("\"'") in LINE_STARTS for a, b in pairs)
    return starts >= 2 and starts > 0.05 * len(words)


def noise(paragraph: str) -> str | None:
    """Return why a paragraph that is no heading is left out, or None to keep it."""
    if not re.search("[A-Za-z]{2}", paragraph):
        return "marks"
    if re.match(r"\[.*\]\.?$", paragraph):
        return "captions and brackets"
    if NOTE.match(paragraph):
        return "notes"
    if len(paragraph) < 100 and (re.match(r"\(.*\)\.?$", paragraph) or _is_source(paragraph)):
        return "sources"
    if LEGAL.search(paragraph.lower()):
        return "rights and advertisements"
    return "verse" if is_verse(paragraph) else None


def _is_source(paragraph: str) -> bool:
    words = re.findall(r"[A-Za-z']+", paragraph)
    return bool(SOURCE.match(paragraph)) and sum(word[0].isupper() for word in words) >= 0.5 * len(words)


def whole(paragraph: str) -> str:
    """Return a paragraph up to the end of its last whole sentence; empty if it has none."""
    if re.search(r"[.!?:;,\"')\-]$", paragraph):  # a comma comes before speech
        return paragraph
    if re.search(r"[!?,][\"'] [\w ]{3,60}$", paragraph):  # only the full stop is missing: "Come!" he called
        return paragraph + "."
    found = re.match(r".*[.!?][\"']?(?=\s)", paragraph)
    return found[0] if found else ""


def without_capitals(paragraph: str) -> str:
    """Return the first paragraph of a chapter with small letters where print has "ONCE UPON a time"."""
    found = re.match(r"(([A-Z]{2,}|A|I)\W+)+(?=[a-z])", paragraph)
    if not found or not re.match(r"\W*[A-Z]{2}", paragraph):
        return paragraph

    def small(word: re.Match[str]) -> str:
        is_name = re.search(rf"[a-z,] {word[0].title()}\b", paragraph)
        return word[0].title() if word.start() == 0 or is_name or word[0] == "I" else word[0].lower()

    return re.sub(r"[A-Z]+", small, found[0]) + paragraph[found.end() :]


def without_verse_lines(paragraphs: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each paragraph, with "verse" if it is one of several short ones that go on from line to line."""
    short = [len(each) < 65 for each in paragraphs]
    is_open = [bool(re.search(r"[a-z,;]['\"]?$", each)) and each[-1] not in "\"'" for each in paragraphs]
    at = 0
    while at < len(paragraphs):
        end = at
        while end < len(paragraphs) and short[end]:
            end += 1
        goes_on = [line for line in range(at, end) if is_open[line]]
        verse = range(goes_on[0], goes_on[-1] + 2) if len(goes_on) >= 2 else range(0)
        for line in range(at, end):
            yield paragraphs[line], "verse" if line in verse else None
        if end < len(paragraphs):
            yield paragraphs[end], None
        at = end + 1


def cut(text: str) -> Cut:
    """Return the documents of a book."""
    made, section = Cut(), list[str]()
    skipping = False
    paragraphs = [clean(raw) for raw in re.split(r"\n\s*\n", text)]
    for number, paragraph in enumerate(paragraphs):
        if not paragraph:
            continue
        if END.match(paragraph) and len(paragraph) < 20 and number > 0.93 * len(paragraphs):
            made.left_out["after the end"] += sum(map(len, paragraphs[number:]))
            break
        if is_heading(paragraph):
            made.left_out["headings"] += len(paragraph)
            _close(made, section)
            section, skipping = [], bool(APPARATUS.match(paragraph)) or (skipping and bool(re.match(ROMAN, paragraph)))
        elif skipping:
            made.left_out["front and back matter"] += len(paragraph)
        else:
            section.append(paragraph)
    _close(made, section)
    return made


def _close(made: Cut, section: list[str]) -> None:
    """Add what is kept of a section to the documents."""
    document = []
    for paragraph, reason in without_verse_lines(section):
        reason = reason or noise(paragraph)
        kept = "" if reason else whole(paragraph)
        if not reason and len(kept) < len(paragraph):
            made.left_out["broken sentences"] += len(paragraph) - len(kept)
        if reason:
            made.left_out[reason] += len(paragraph)
        elif kept:
            document.append(kept)
    if document:
        document[0] = without_capitals(document[0])
    size = sum(map(len, document))
    if size >= MIN_DOCUMENT:
        made.documents.append(document)
    elif size:
        made.left_out["too short"] += size
