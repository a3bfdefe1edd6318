"""The routes that look inside: what they answer is what Python computes, and they refuse what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab import load
from gpt2lab.errors import UsageError
from gpt2lab.inside.tracing import trace
from gpt2lab.serving.settings import Settings

PROMPT = "Once upon a time there was a"
STEER = {"layer": 0, "positive": [1], "negative": [2]}


@pytest.fixture(scope="module")
def ids(tales):
    return tales.tokenizer.encode(PROMPT)


def look(api, **body):
    return api.http.post("/playground/inside", json=body)


def patch(api, **body):
    return api.http.post("/playground/patch", json=body)


def test_the_inside_is_that_of_a_trace(api, tales, ids):
    answer = look(api, tokens=ids, top=3).json()
    expected = trace(tales.engine, tales.checkpoint, ids)
    token = int(expected.lens()[-1].argmax())
    assert (answer["model"], answer["token"]) == ("tales", token)
    np.testing.assert_allclose(answer["attention"], expected.attention[:, :, -1], atol=1e-4)
    assert [each["top"][0][0] for each in answer["lens"]] == expected.lens().argmax(axis=-1).tolist()
    assert answer["lens"][-1]["rank"] == 1 and all(len(each["top"]) == 3 for each in answer["lens"])
    parts, found = expected.contributions(token), answer["contributions"]
    for name in ("logit", "embedding", "position", "attention", "mlp", "heads", "norm_bias", "rest"):
        np.testing.assert_allclose(found[name], getattr(parts, name), atol=1e-3, err_msg=name)
    assert len(answer["neighbours"]) == 3 and token not in [id for id, _ in answer["neighbours"]]


def test_the_lens_ends_with_the_logits_of_the_playground(api, ids):
    logits = np.frombuffer(api.http.post("/playground/logits", json={"tokens": ids}).content, "<f4").astype(float)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    for id, probability in look(api, tokens=ids).json()["lens"][-1]["top"]:
        assert probability == pytest.approx(probabilities[id], rel=1e-5)


def test_another_token_may_be_explained(api, tales, ids):
    (fox,) = tales.tokenizer.encode(" fox")
    answer = look(api, tokens=ids, token=fox).json()
    assert answer["token"] == fox and answer["lens"][-1]["rank"] > 1


def test_the_answer_is_compressed_for_those_that_accept_it(api, ids):
    plain, zipped = (
        api.http.post("/playground/inside", json={"tokens": ids}, headers={"Accept-Encoding": encoding})
        for encoding in ("identity", "gzip")
    )
    assert zipped.json() == plain.json()
    assert "content-encoding" not in plain.headers and zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < 0.6 * int(plain.headers["content-length"])


def test_the_start_of_a_text_has_an_inside_too(api):
    assert np.shape(look(api, tokens=[]).json()["attention"])[-1] == 1


def test_a_copy_from_the_text_itself_changes_nothing(api, ids):
    heads, mlps = [[layer, head] for layer in range(2) for head in range(4)], [0, 1, 2]
    answer = patch(api, tokens=ids, heads=heads, mlps=mlps, source=ids, length=8).json()
    assert answer["before"] == answer["after"] and answer["kl"] == 0


def test_what_is_off_changes_the_text(api, tales, ids):
    answer = patch(api, tokens=ids, mlps=[0, 1], length=6).json()
    plain = tales.generate(ids, length=6, temperature=0).tokens
    patched = tales.patched(mlps=[0, 1]).generate(ids, length=6, temperature=0).tokens
    assert (answer["before"]["tokens"], answer["after"]["tokens"]) == (plain, patched)
    assert answer["kl"] > 0 and answer["token"] == plain[0]


def test_a_change_computes_the_text_before_it_once(api, ids, tales, monkeypatch):
    fed, forward = [], type(tales.engine).forward

    def noted(self, sequences, tokens, outputs="last"):
        fed.append(sum(map(len, tokens)))
        return forward(self, sequences, tokens, outputs)

    monkeypatch.setattr(type(tales.engine), "forward", noted)
    patch(api, tokens=ids, mlps=[0], length=5)
    fed.clear()
    patch(api, tokens=ids, mlps=[1], length=5)
    assert fed == [len(ids) - 1] + [2] * 5  # with the change from its start; then both texts together


def test_a_direction_between_two_texts_steers(api, tales, ids):
    positive, negative = (tales.tokenizer.encode(text) for text in (" happy", " sad"))
    steer = {"layer": 1, "positive": positive, "negative": negative, "scale": 30}
    answer = patch(api, tokens=ids, steer=steer).json()
    assert answer["kl"] > 0
    still = patch(api, tokens=ids, steer={**steer, "scale": 0}, length=5).json()
    assert still["before"] == still["after"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("inside", {}, "tokens is missing"),
        ("inside", {"tokens": [262] * 513}, "maximum context length is 512 tokens"),
        ("inside", {"tokens": [99999]}, "no token 99999"),
        ("inside", {"tokens": [1], "token": 99999}, "no token 99999"),
        ("inside", {"tokens": [1], "top": 0}, "top"),
        ("patch", {"tokens": [1]}, "nothing to patch"),
        ("patch", {"tokens": [1], "mlps": [0], "positions": []}, "positions is empty"),
        ("patch", {"tokens": [1], "steer": STEER, "source": [1]}, "source belongs to heads or mlps"),
        ("patch", {"tokens": [1], "steer": STEER, "positions": [0]}, "positions belongs to heads or mlps"),
        ("patch", {"tokens": [1], "steer": STEER, "method": "mean"}, "method belongs to heads or mlps"),
        ("patch", {"tokens": [1], "mlps": [99]}, "there is no layer 99"),
        ("patch", {"tokens": [1], "mlps": [-1]}, "there is no layer -1"),
        ("patch", {"tokens": [1], "heads": [[0]]}, "pairs of a layer and a head"),
        ("patch", {"tokens": [1], "heads": [[0, 99]]}, "there is no head 99"),
        ("patch", {"tokens": [1], "mlps": [0], "method": "mean"}, "source"),
        ("patch", {"tokens": [1], "steer": {"layer": 99, "positive": [1], "negative": [2]}}, "there is no layer 99"),
        ("patch", {"tokens": [1], "steer": {"layer": 0, "positive": [], "negative": [2]}}, "must not be empty"),
        (
            "patch",
            {"tokens": [1], "steer": {"layer": 0, "positive": [1] * 513, "negative": [2]}},
            "steer.positive has 513",
        ),
        (
            "patch",
            {"tokens": [1], "steer": {"layer": 0, "positive": [1], "negative": [99999]}},
            "steer.negative: there is",
        ),
        ("patch", {"tokens": [1], "mlps": [0] * 4096, "positions": [0] * 4096}, "at most 4096 heads and MLPs"),
    ],
)
def test_what_does_not_fit_is_refused(api, path, body, words):
    answer = api.http.post(f"/playground/{path}", json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_the_routes_need_the_key_and_are_refused_while_draining(start, ids):
    api, key = start(Settings(api_keys=("secret",))), {"Authorization": "Bearer secret"}
    for path, body in (("inside", {"tokens": ids}), ("patch", {"tokens": ids, "mlps": [0]})):
        address = f"/playground/{path}"
        assert api.http.post(address, json=body).status_code == 401
        assert api.http.post(address, json=body, headers=key).status_code == 200
        api.service.draining = True
        assert api.http.post(address, json=body, headers=key).status_code == 503
        api.service.draining = False


def test_nothing_is_held_afterwards(api, ids):
    sequences = api.worker._running
    look(api, tokens=ids)
    patch(api, tokens=ids, mlps=[0], length=3)
    assert api.idle() and not sequences.takers


def test_a_request_that_the_model_refuses_ends_no_other(api, ids, monkeypatch):
    def refuse(*_):
        raise UsageError("the vector has numbers that are NaN or infinite")

    monkeypatch.setattr("gpt2lab.serving.steering.difference", refuse)
    with api.raw({"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True, "stream": True}) as other:
        assert b" 200 " in other.recv(100)
        answer = patch(api, tokens=ids, steer={"layer": 0, "positive": [1], "negative": [2]})
        assert answer.status_code == 400 and "NaN or infinite" in answer.json()["error"]["message"]
        received = b""
        while b"[DONE]" not in received:
            received += other.recv(1 << 16)
    assert b'"error"' not in received


def test_the_inside_is_read_from_keys_in_int8_too(start, ids):
    model = load("tales", threads=1, kv_precision="int8")
    answer = look(start(models=[("tales", model)]), tokens=ids).json()
    np.testing.assert_allclose(np.sum(answer["attention"], axis=-1), 1, atol=1e-3)
