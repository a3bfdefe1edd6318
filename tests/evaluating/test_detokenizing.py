"""De-tokenisers: readable text, and nothing lost but spaces and marks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.evaluating.detokenizing import treebank, wikitext

WIKITEXT = {
    " = = Building = = \n": "= = Building = =\n",
    " \n": "\n",
    ' A 1 @,@ 240 metre , half @-@ finished bridge ( " the heron " ) .\n': (
        'A 1,240 metre, half-finished bridge ("the heron").\n'
    ),
    " It didn 't last 1 @.@ 5 years : the town 's people , all the boys ' too , said so ; 5 % .\n": (
        "It didn't last 1.5 years: the town's people, all the boys' too, said so; 5%.\n"
    ),
    " costs $ 5 [ sic ] ! \n": "costs $5 [sic]!\n",
}
TREEBANK = {
    "`` I ca n't , '' said he -LRB- softly -RRB- .": '"I can\'t," said he (softly).',
    "`` You 're ` a fox ' , is n't it ? ''": "\"You're 'a fox', isn't it?\"",
    "The dogs ' dinner ; the cat 's .": "The dogs' dinner; the cat's.",
}


@pytest.mark.parametrize("line", WIKITEXT)
def test_wikitext_reads_as_it_was_written(line):
    assert wikitext(line) == WIKITEXT[line]


@pytest.mark.parametrize("text", TREEBANK)
def test_treebank_reads_as_it_was_written(text):
    assert treebank(text) == TREEBANK[text]


WORDS = st.lists(
    st.sampled_from(["fox", "5", ",", ".", "(", ")", '"', "'", "'s", "n't", "$", "%", "@-@", "@,@", "@.@", "=", "s"])
)


@given(WORDS)
def test_wikitext_loses_nothing_but_spaces_and_marks(words):
    text = " ".join(words)
    plain = re.sub(" ", "", text).replace("@", "")
    assert re.sub(" ", "", wikitext(text)).replace("@", "") == plain


@given(WORDS)
def test_treebank_loses_nothing_but_spaces(words):
    assert treebank(" ".join(words)).replace(" ", "") == "".join(words)
