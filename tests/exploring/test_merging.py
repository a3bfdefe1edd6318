"""Merges, step by step, end at the tokenizer's ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab import Tokenizer
from gpt2lab.errors import UsageError
from gpt2lab.exploring.merging import merge_steps


@settings(max_examples=15)
@given(st.text(max_size=40).filter(lambda text: text.isprintable() or "\n" in text))
def test_the_ids_are_the_tokenizers(text):
    tokenizer = Tokenizer.gpt2()
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    pieces = merge_steps(text, tokenizer)
    assert [id for piece in pieces for id in piece.ids] == tokenizer.encode(text)
    assert "".join(piece.text for piece in pieces) == text


def test_a_merge_joins_the_pair_of_lowest_rank_wherever_it_stands():
    (piece,) = merge_steps("éé", Tokenizer.gpt2())
    assert piece.symbols == ["Ã", "©", "Ã", "©"] and piece.bytes == "c3 a9 c3 a9"
    assert piece.merges[0].symbols == ["Ã©", "Ã©"]
    ranks = [merge.rank for merge in merge_steps(" upon", Tokenizer.gpt2())[0].merges]
    assert ranks == sorted(ranks)


def test_the_step_by_step_way_is_for_short_pieces():
    with pytest.raises(UsageError, match="has 401 bytes"):
        merge_steps("a" * 401, Tokenizer.gpt2())
