"""Detokenizers for benchmark texts: they remove the spaces that tokenizers put around punctuation.

GPT-2 was trained on text as people write it. Its paper removes such artefacts with "invertible de-tokenizers", so that
the probability of the original can still be computed. The ones here remove spaces, and the marks ``@`` around hyphens
and in numbers; quotes and brackets that were spelled out get their usual shape. No word, number or punctuation mark is
lost. The paper's authors have not published their detokenizers, so figures may differ a little.
"""

from __future__ import annotations

import re

_SUFFIXES = r"(?:n't|'s|'m|'d|'re|'ve|'ll|'t|'S|'M|'D|'RE|'VE|'LL|N'T)"
_BEFORE_SUFFIX = re.compile(rf" (?={_SUFFIXES}(?![\w']))")
_POSSESSIVE = re.compile(r"(?<=s) '(?= )")
_BEFORE_CLOSING = re.compile(r" +(?=[.,;:!?%)\]}](?: |[.,;:!?'\")\]}]|$))")
_AFTER_OPENING = re.compile(r"(?<=[(\[{$£€#]) +")
_NUMBER_MARKS = re.compile(r" @([-,.])@ ")
_DOUBLE_QUOTES = re.compile(r'" ([^"]*?) "')
_SINGLE_QUOTES = re.compile(r"(?<![^ \"(])` ([^`]*?) '(?= |$|\")")
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def wikitext(line: str) -> str:
    """Detokenize a line of WikiText: ``5 @,@ 000 @-@ year " old " tree 's`` → ``5,000-year "old" tree's``.

    The line's end stays.
    """
    body = line.rstrip("\n")
    text = _NUMBER_MARKS.sub(r"\1", body.strip(" "))
    return _close_up(_DOUBLE_QUOTES.sub(r'"\1"', text)) + line[len(body) :]


def treebank(text: str) -> str:
    """Detokenize Penn Treebank text, such as CBT's: ``\\`\\` I ca n't , '' said he .`` → ``"I can't," said he.``"""
    words = [_BRACKETS.get(word, word) for word in text.split(" ")]
    text = " ".join(words)
    text = re.sub(r"`` ?", '"', text)
    text = re.sub(r" ?''", '"', text)
    text = _SINGLE_QUOTES.sub(r"'\1'", text)
    return _close_up(text)


def _close_up(text: str) -> str:
    text = _BEFORE_CLOSING.sub("", text)
    text = _AFTER_OPENING.sub("", text)
    return _POSSESSIVE.sub("'", _BEFORE_SUFFIX.sub("", text))
