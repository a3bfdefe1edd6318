"""Large answers are encoded beside the event loop, in pieces, and are the same as small ones."""

from __future__ import annotations

import json
import math
from threading import current_thread

import pytest

from gpt2lab.serving import answers, long_json
from gpt2lab.serving.long_json import PIECE, dumps

from .conftest import PROMPT

BODY = {"prompt": [PROMPT, "The king"], "n": 2, "max_tokens": 12, "seed": 1, "echo": True, "return_token_ids": True}
SCORED = {**BODY, "logprobs": 5}


@pytest.fixture
def threads(monkeypatch) -> set[str]:
    """Collect the names of the threads that encode choices."""
    names: set[str] = set()
    encode = answers._choice

    def noted(*given, **more):
        names.add(current_thread().name)
        return encode(*given, **more)

    monkeypatch.setattr(answers, "_choice", noted)
    return names


def text_of(api, body) -> list[dict]:
    answer = api.complete(**body)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    return answer.json()["choices"]


def without_times(events: list) -> list:
    return [event["choices"] for event in events]


@pytest.mark.parametrize("body", [BODY, SCORED], ids=["text and ids", "logprobs"])
def test_a_large_answer_is_encoded_in_another_thread_and_is_the_same(api, threads, monkeypatch, body):
    small = text_of(api, body)
    assert len(threads) == 1  # the event loop's
    monkeypatch.setattr(answers, "AT_ONCE", 10)
    assert text_of(api, body) == small
    assert len(threads) > 1


@pytest.mark.parametrize("body", [BODY, SCORED], ids=["text and ids", "logprobs"])
def test_a_large_part_of_a_stream_is_encoded_in_another_thread(api, threads, monkeypatch, body):
    assert api.events(**body) and len(threads) == 1
    monkeypatch.setattr(answers, "AT_ONCE", 3)
    pieces: dict[int, str] = {}
    for event in api.events(**body):
        for choice in event["choices"]:
            pieces[choice["index"]] = pieces.get(choice["index"], "") + choice["text"]
    assert [pieces[index] for index in range(4)] == [choice["text"] for choice in text_of(api, body)]
    assert len(threads) > 1


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE])
def test_a_list_in_pieces_is_the_same_json(length):
    value = {"ids": list(range(length)), "é\ud83e": [{"a": [1.5, None, "é"]}] * length, "b": {"c": [True] * length}}
    assert dumps(value) == json.dumps(value)
    assert dumps([value]) == json.dumps([value])


def test_no_call_of_the_encoder_is_long(monkeypatch):
    lengths = []

    class Recorded:
        @staticmethod
        def dumps(value, **more):
            lengths.append(len(value) if isinstance(value, list) else 1)
            return json.dumps(value, **more)

    monkeypatch.setattr(long_json, "json", Recorded)
    dumps({"tokens": list(range(1000)), "more": {"rows": [[1, 2]] * 1000}})
    assert max(lengths) == PIECE


def test_what_json_cannot_hold_is_no_answer():
    for value in (math.nan, [math.inf]):
        with pytest.raises(ValueError, match="JSON"):
            dumps({"x": value})
