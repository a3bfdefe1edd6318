"""Texts cut into pieces, tokens and windows; perplexities compared with transformers and with ``score``."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab import Tokenizer, scoring
from gpt2lab.errors import UsageError
from gpt2lab.evaluating import texts
from gpt2lab.evaluating.texts import Windows, decoded, encoded, protocol_windows, text_losses

TEXT = (
    "It was long ago, and nobody knows where. A miller's cat had learnt to count to seven; at eight she fell asleep. "
    "“Seven is enough,” said the miller — and so it was, for there were 7 days, 7 mice & 7 bowls of milk!\n\n"
) * 3


@given(st.text(alphabet=st.sampled_from("abé7 .,'\n_中。s\u00a0t"), max_size=300), st.integers(1, 40))
def test_text_in_pieces_has_the_ids_of_the_whole(text, size):
    previous, texts.PIECE = texts.PIECE, 16
    try:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        ids = [id for chunk in encoded(pieces, Tokenizer.gpt2()) for id in chunk]
    finally:
        texts.PIECE = previous
    assert ids == Tokenizer.gpt2().encode(text)


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9), st.integers(1, 7))
def test_windows_are_those_of_score(n, inputs, stride, size):
    stride = min(stride, inputs)
    ids = list(range(n + 1))
    chunks = [ids[at : at + size] for at in range(0, len(ids), size)]
    found = [(list(item.context), list(item.endings[0])) for item in Windows(inputs, stride).of(chunks)]
    wanted = [
        (ids[start : first + 1], ids[first + 1 : end + 1]) for start, first, end in scoring.windows(n, inputs, stride)
    ]
    assert found == wanted


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"")), st.integers(1, 5))
def test_the_first_byte_that_is_no_utf8_is_named(data, size):
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(UsageError, match=f"byte {error.start + 1} is 0x{data[error.start]:02x}"):
            list(decoded(chunks, "x"))
    else:
        assert "".join(decoded(chunks, "x")) == text


@pytest.mark.parametrize("size", [1, 3, 8192, 20_000])
def test_a_zero_near_the_beginning_is_no_text(size):
    def read(at):
        data = b"a" * at + b"\0" + b"a" * 9000
        return "".join(decoded([data[at : at + size] for at in range(0, len(data), size)], "x"))

    with pytest.raises(UsageError, match="x is a binary file, not UTF-8 text: byte 8,192 is 0x00"):
        read(8191)
    assert len(read(8192)) == 8193 + 9000


def hugging_face_perplexity(model, ids, n_ctx, stride):
    """Follow transformers' guide to perplexity, with each window weighted by its number of tokens that bear loss."""
    import torch

    nats, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + n_ctx, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        targets = inputs.clone()
        targets[:, : -(end - previous)] = -100
        n_scored = int((targets[:, 1:] != -100).sum())
        if n_scored:
            with torch.no_grad():
                nats += float(model(inputs, labels=targets).loss) * n_scored
            count += n_scored
        previous = end
        if end == len(ids):
            break
    return math.exp(nats / count), count


@pytest.mark.parametrize("stride", [64, 32, 7])
def test_perplexity_is_that_of_hugging_faces_recipe(twins, run, stride):
    ids = run.tokenizer.encode(TEXT)
    expected, count = hugging_face_perplexity(twins[1], ids, 64, stride)
    losses = text_losses(run.engine, run.tokenizer, [[TEXT]], Windows(63, stride), opened=False)
    (perplexity, _) = losses.figures("", 1)
    assert sum(losses.tokens) == count
    assert perplexity.value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stride", [64, 32, 7])
def test_perplexity_is_that_of_score(run, stride):
    ids = [50256, *run.tokenizer.encode(TEXT)]
    logprobs = scoring.token_logprobs(run.engine, ids, stride)
    losses = text_losses(run.engine, run.tokenizer, [[TEXT]], Windows(64, stride))
    n_bytes = len(TEXT.encode())
    perplexity, bits = losses.figures("", n_bytes)
    assert perplexity.value == pytest.approx(math.exp(-np.mean(logprobs)), rel=1e-6)
    assert bits.value == pytest.approx(-sum(logprobs) / math.log(2) / n_bytes, rel=1e-6)


def test_each_document_begins_anew(run):
    one = text_losses(run.engine, run.tokenizer, [["A miller had a cat."]], Windows(64, 64))
    two = text_losses(
        run.engine, run.tokenizer, [["A miller had a cat."], ["A miller ", "had a cat."]], Windows(64, 64)
    )
    np.testing.assert_allclose(two.nats, one.nats * 2)


def test_a_stride_out_of_range_is_refused():
    with pytest.raises(UsageError, match="stride must be from 1 to the model's context of 64, got 65"):
        protocol_windows(65, 64)


def test_protocols_name_their_strides():
    assert list(protocol_windows(None, 1024)) == ["non-overlapping, stride 1024", "strided, stride 512"]
    assert list(protocol_windows(100, 1024)) == ["strided, stride 100"]


class Uniform:
    """Return an engine for which two ids are equally likely, and a tokenizer of bytes."""

    config = type("Config", (), {"n_ctx": 64})
    end_of_text = start = 0

    def new_sequence(self):
        return 0

    def free_sequence(self, sequence):
        pass

    def forward(self, sequences, tokens, outputs):
        return np.zeros((sum(map(len, tokens)) if outputs == "all" else 0, 2), np.float32)

    def encode(self, text, add_special_tokens=True):
        return [0] * (len(text) // 64)


def test_memory_does_not_grow_with_the_text(monkeypatch):
    monkeypatch.setattr(texts, "PIECE", 1 << 14)

    def peak(n):
        tracemalloc.start()
        losses = text_losses(Uniform(), Uniform(), [("a " * 1000 for _ in range(n))], Windows(64, 64))
        bits = losses.figures("", 1)[1].value
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert bits == pytest.approx(sum(losses.tokens))
        return used

    assert peak(800) < 1.2 * peak(200) < 2e6
