import io
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.data import npz
from gpt2lab.data.encoding import collect, encode_pieces
from gpt2lab.data.npz import read_npz, write_npz
from gpt2lab.data.pieces import Piece
from gpt2lab.errors import UsageError

MARK = 50256
SPELLED = [27, 91, 437, 1659, 5239, 91, 29]

parts = st.lists(st.one_of(st.just([MARK]), st.just(SPELLED), st.just(SPELLED[:4]), st.just([5]), st.just([27])))


def documents_of(path, tokenizer):
    found = collect(read_npz(path, tokenizer), tokenizer.n_vocab)
    return [found[index].tolist() for index in range(len(found))]


def split(ids):
    """Split a row of ids into documents in the simplest way."""
    text = " ".join(map(str, ids)).replace(" ".join(map(str, SPELLED)), str(MARK))
    documents = [[]]
    for id in map(int, text.split()):
        documents.append([]) if id == MARK else documents[-1].append(id)
    return [document for document in documents if document]


@given(st.lists(parts.map(lambda lists: [*chain(*lists)]), max_size=3), st.sampled_from([1, 3, 8, 100]))
def test_documents_end_at_the_id_at_the_spelled_marker_and_with_the_array(tmp_path_factory, gpt2, arrays, block):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, *[np.asarray(ids, dtype=np.int64) for ids in arrays])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "_BLOCK", block)
        assert documents_of(path, gpt2) == [document for ids in arrays for document in split(ids)]


def test_arrays_come_in_the_order_of_their_numbers(tmp_path, gpt2):
    np.savez(tmp_path / "a.npz", *[np.asarray([number]) for number in range(12)])
    assert documents_of(tmp_path / "a.npz", gpt2) == [[number] for number in range(12)]


def test_characters_and_bytes_are_those_of_the_tokens(tmp_path, gpt2):
    text = "é日 and 😀"
    np.savez(tmp_path / "a.npz", np.asarray(gpt2.encode(text)))
    encoded = list(read_npz(tmp_path / "a.npz", gpt2))
    assert sum(part.n_bytes.sum() for part in encoded) == len(text.encode())
    assert collect(encoded, gpt2.n_vocab).characters.tolist() == [len(text)]


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: path.write_bytes(b"no zip"), "a.npz is not an .npz file of token ids"),
        (lambda path: np.savez(path, np.asarray([1.5])), r"arr_0.npy is an array of float64 \[1\], not a row of token"),
        (lambda path: np.savez(path, np.asarray([[1]])), "not a row of token ids"),
        (lambda path: np.savez(path, np.asarray([3, 50257])), r"token 50257 is outside the vocabulary \(0 to 50256\)"),
        (lambda path: np.savez(path, np.asarray([-1])), "token -1 is outside"),
        (lambda path: np.savez(path, np.asarray([{}], dtype=object)), "not a row of token ids"),
    ],
)
def test_what_is_no_array_of_ids_is_named(tmp_path, gpt2, save, message):
    save(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=message):
        documents_of(tmp_path / "a.npz", gpt2)


@given(st.lists(st.sampled_from(["one", "two words", "", "a much longer document"]), max_size=8), st.integers(1, 40))
def test_chunks_are_written_as_the_original_combined_them(tmp_path_factory, gpt2, texts, combine):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    stream = list(encode_pieces([Piece(text, True) for text in texts], gpt2))
    out = io.BytesIO()
    total = write_npz(out, stream, MARK, combine)
    path.write_bytes(out.getvalue())
    with np.load(path) as arrays:
        chunks = [arrays[name].tolist() for name in arrays.files]
    expected, together = [], ""
    for text in filter(None, texts):
        together += (MARK_TEXT if together else "") + text
        if len(together.replace(MARK_TEXT, "")) >= combine:
            expected.append(together)
            together = ""
    expected += [together] if together else []
    assert chunks == [gpt2.encode(text, special=True) for text in expected]
    assert total == sum(map(len, chunks))
    assert documents_of(path, gpt2) == [gpt2.encode(text) for text in texts if text]


MARK_TEXT = "<|endoftext|>"
