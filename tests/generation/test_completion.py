"""Text appears as tokens arrive: no text is taken back, wherever the cuts between tokens are."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.generation.completion import Transcript
from gpt2lab.tokenizer import Tokenizer


class PieceDecoder:
    """A tokenizer whose ids index a list of texts."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def feed(self, id: int) -> str:
        return self.pieces[id]

    def flush(self) -> str:
        return ""


class PieceTokenizer:
    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def incremental_decoder(self, after: Sequence[int] = ()) -> PieceDecoder:
        return PieceDecoder(self.pieces)


def feed(pieces: list[str], stop: tuple[str, ...]) -> tuple[list[str], Transcript]:
    """Return the text that each piece adds, and the text at the end."""
    transcript = Transcript(PieceTokenizer(pieces), stop=stop)
    shown = []
    for id in range(len(pieces)):
        shown.append(transcript.push(id, -1.0))
        if transcript.stopped:
            break
    else:
        shown.append(transcript.finish())
    return shown, transcript


def cut_by_hand(text: str, stop: tuple[str, ...]) -> str:
    """Read character by character: the first stop string that is complete ends the text; the longest of several."""
    for end in range(len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_text_ends_before_the_first_stop_string_wherever_tokens_are_cut(
    pieces: list[str], stop: tuple[str, ...]
) -> None:
    shown, transcript = feed(pieces, stop)
    assert "".join(shown) == transcript.text == cut_by_hand("".join(pieces), stop)
    assert transcript.stopped == any(s in "".join(pieces) for s in stop)


def test_a_stop_string_across_tokens_is_never_shown_in_part() -> None:
    shown, transcript = feed(["The e", "n", "d of E", "ND", "!"], ("END",))
    assert shown == ["The e", "n", "d of ", ""]
    assert transcript.stopped


def test_text_held_back_for_a_stop_string_that_does_not_come_is_shown() -> None:
    shown, _ = feed(["a", "aa", "c", "aa"], ("aab",))
    assert shown == ["", "a", "aac", "", "aa"]


def test_of_stop_strings_complete_at_once_the_longest_counts() -> None:
    assert feed(["x\n\n"], ("\n", "\n\n"))[0] == ["x"]
    assert feed(["x-a", "b-y"], ("b", "ab"))[0] == ["x-", ""]


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer)
    shown = [transcript.push(id, -1.0) for id in tokenizer.encode("é😀x")]
    assert "".join(shown) == "é😀x"
    assert not any("�" in piece for piece in shown)


def test_a_character_left_unfinished_is_shown_as_replacement() -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer)
    transcript.push(tokenizer.encode("😀")[0], -1.0)
    assert "�" in transcript.finish()


@given(st.text(max_size=30))
def test_pieces_together_are_the_decoded_tokens(text: str) -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer)
    ids = tokenizer.encode(text)
    pieces = [transcript.push(id, -1.0) for id in ids] + [transcript.finish()]
    assert "".join(pieces) == transcript.text == text == tokenizer.decode(ids)


def test_the_last_token_brings_what_was_held_back() -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer, stop=("!!",))
    (id,) = tokenizer.encode("!")
    assert (transcript.push(id, -1.0, last=True), transcript.text, transcript.stopped) == ("!", "!", False)


def test_a_stop_string_that_the_last_token_completes_is_left_out() -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer, stop=("!",))
    (id,) = tokenizer.encode("!")
    assert (transcript.push(id, -1.0, last=True), transcript.text, transcript.stopped) == ("", "", True)


def test_end_of_text_stops_and_is_neither_text_nor_token() -> None:
    tokenizer = Tokenizer.gpt2()
    transcript = Transcript(tokenizer, tokenizer.eos)
    transcript.push(15496, -0.5)
    assert transcript.push(50256, -0.1) == ""
    assert transcript.stopped
    assert (transcript.text, transcript.tokens, transcript.logprobs) == ("Hello", [15496], [-0.5])


def test_without_a_tokenizer_there_are_tokens_and_no_text() -> None:
    transcript = Transcript(None)
    assert transcript.push(5, -1.0) == transcript.finish() == transcript.text == ""
    assert transcript.tokens == [5]
