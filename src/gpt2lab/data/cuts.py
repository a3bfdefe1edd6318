"""Find places to cut a text so that its parts, encoded one by one, give the tokens of the whole."""

from __future__ import annotations

import re

# Cuts are before whitespace, or between a letter or digit and a sign: no match of the pattern that splits texts (see
# gpt2lab.bpe) spans such a place or looks back across it. Signs are listed, because newer versions of Unicode have
# letters that Python does not know. | is not among them, so <|endoftext|> stays whole.
_CUT = re.compile(r"\S[ \n\t]|[^\W_][!-&(-/:-@\[-`{}~。，、；：！？…—·《》〈〉「」『』【】（）“”]")
_FIRST = 1 << 12  # characters searched first


def last_cut(text: str, start: int = 0) -> int:
    """Return the last place after ``start`` where ``text`` can be cut, whatever follows; 0 if there is none."""
    window = _FIRST
    while True:
        first = max(start, len(text) - window)
        end = 0
        for match in _CUT.finditer(text, first):
            end = match.end() - 1
        if end or first == start:
            return end
        window *= 4
