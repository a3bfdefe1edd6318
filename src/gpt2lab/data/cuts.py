"""Where a text may be cut so that its parts, encoded one by one, have the tokens of the whole."""

from __future__ import annotations

import re

# No piece of the pattern that texts are split with (see gpt2lab.bpe) reaches across, nor looks back, from before
# whitespace to what follows it, nor from a letter or digit to a sign. Signs are listed, as newer versions of Unicode
# know letters that Python does not. No | among them: <|endoftext|> stays whole.
_CUT = re.compile(r"\S[ \n\t]|[^\W_][!-&(-/:-@\[-`{}~。，、；：！？…—·《》〈〉「」『』【】（）“”]")
_FIRST = 1 << 12  # characters that are searched first


def last_cut(text: str, start: int = 0) -> int:
    """The last place above ``start`` in ``text`` where it may be cut whatever follows; 0 if there is none."""
    window = _FIRST
    while True:
        first = max(start, len(text) - window)
        end = 0
        for match in _CUT.finditer(text, first):
            end = match.end() - 1
        if end or first == start:
            return end
        window *= 4
