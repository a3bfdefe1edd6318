"""``/v1/embeddings``: OpenAI's shape, the model's numbers, and refusals."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from gpt2lab.inside.embedding import embed
from gpt2lab.serving.settings import Settings

TEXTS = ["Once upon a time", "The fox ran."]


def ask(api, **body):
    return api.http.post("/v1/embeddings", json=body)


def expected(tales, text, pooling="mean"):
    return embed(tales.engine, tales.checkpoint, tales.tokenizer.encode(text), pooling)


def test_the_answer_has_openais_shape_and_the_models_numbers(api, tales):
    answer = ask(api, input=TEXTS, model="tales").json()
    assert (answer["object"], answer["model"]) == ("list", "tales")
    assert [(each["object"], each["index"]) for each in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    n = sum(len(tales.tokenizer.encode(text)) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": n, "total_tokens": n}
    for text, each in zip(TEXTS, answer["data"], strict=True):
        np.testing.assert_array_equal(np.array(each["embedding"], np.float32), expected(tales, text))


def test_base64_holds_the_same_numbers(api, tales):
    (each,) = ask(api, input=TEXTS[0], encoding_format="base64", pooling="last").json()["data"]
    row = np.frombuffer(base64.b64decode(each["embedding"]), "<f4")
    np.testing.assert_array_equal(row, expected(tales, TEXTS[0], "last"))


def test_texts_may_be_ids(api, tales):
    ids = tales.tokenizer.encode(TEXTS[0])
    by_text, by_ids, by_list = (ask(api, input=each).json()["data"][0] for each in (TEXTS[0], ids, [ids]))
    assert by_text == by_ids == by_list


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "input is missing"),
        ({"input": ""}, "input", "must not be empty"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": ["a", ""]}, "input", "input[1] is empty"),
        ({"input": ["a"] * 2049}, "input", "at most 2048 texts"),
        ({"input": [262] * 5000}, "input", "tokens: input has 5000"),
        ({"input": [99999]}, "input", "99999"),
        ({"input": "a", "dimensions": 3}, "dimensions", "cannot be changed to 3"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "encoding_format"),
        ({"input": "a", "inputs": "b"}, "inputs", "did you mean 'input'?"),
    ],
)
def test_what_has_no_embedding_is_refused(api, body, param, words):
    answer = ask(api, **body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and words in error["message"]


def test_an_unknown_model_is_a_404(api):
    assert ask(api, input="a", model="other").status_code == 404


def test_embeddings_need_the_key_and_are_refused_while_draining(start):
    api = start(Settings(api_keys=("secret",)))
    assert ask(api, input="a").status_code == 401
    key = {"Authorization": "Bearer secret"}
    assert api.http.post("/v1/embeddings", json={"input": "a"}, headers=key).status_code == 200
    api.service.draining = True
    assert api.http.post("/v1/embeddings", json={"input": "a"}, headers=key).status_code == 503


def test_a_long_text_is_refused_by_its_bytes(start):
    api = start(Settings(max_prompt_bytes=10))
    error = ask(api, input=["short", "longer than ten bytes"]).json()["error"]
    assert error["message"] == "input[1] is longer than this server's limit of 10 bytes"


def test_nothing_is_held_afterwards(api):
    ask(api, input=TEXTS)
    assert api.idle()
