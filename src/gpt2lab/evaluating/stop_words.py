"""English words that rarely end a sentence, which the stop-word filter of LAMBADA leaves out.

The paper does not give its list. These are NLTK's words, which reproductions use, grouped by kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt2lab.tokenizer import Tokenizer

_PRONOUNS = """i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those"""
_VERBS = "am is are was were be been being have has had having do does did doing will can should"
_ARTICLES_AND_CONJUNCTIONS = "a an the and but if or because as until while nor so than"
_PREPOSITIONS = """of at by for with about against between into through during before after above below to from up down
in out on off over under"""
_ADVERBS = """again further then once here there when where why how all any both each few more most other some such no
not only own same too very just now"""
_FRAGMENTS = "s t don"

STOP_WORDS = frozenset(
    " ".join((_PRONOUNS, _VERBS, _ARTICLES_AND_CONJUNCTIONS, _PREPOSITIONS, _ADVERBS, _FRAGMENTS)).split()
)


def stop_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that spell a stop word in lower case, ignoring spaces at their ends."""
    words = {word.encode() for word in STOP_WORDS}
    return [id for id in range(tokenizer.n_vocab) if tokenizer.token_bytes(id).strip() in words]
