"""Refusals have the right status and OpenAI's shape and name the field; none is a 500."""

from __future__ import annotations

import json
import math

import pytest

from gpt2lab.errors import UsageError
from gpt2lab.serving.settings import Settings

from .conftest import PROMPT

JSON = {"content-type": "application/json"}


def error_of(answer, status=400):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", True),
        ("temperature", "hot"),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 10**400),
        ("top_p", 1.5),
        ("top_k", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("n", 0),
        ("n", True),
        ("n", 10**30),
        ("n", 129),
        ("best_of", -1),
        ("best_of", 129),
        ("max_tokens", -1),
        ("max_tokens", "5"),
        ("seed", -2),
        ("seed", 2**63),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("logprobs", 21),
        ("logprobs", True),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", ""),
        ("stop", [1]),
        ("stop", {"a": 1}),
        ("logit_bias", {"": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1.5": 1}),
        ("logit_bias", {"99999999999": 1}),
        ("logit_bias", {"x" * 2000: 1}),
        ("logit_bias", {"\ud800": 1}),
        ("logit_bias", {"50257": 1}),
        ("logit_bias", {"1": "much"}),
        ("logit_bias", {"1": 1000}),
        ("logit_bias", {"1": math.nan}),
        ("logit_bias", [1]),
        ("prompt", 5),
        ("prompt", []),
        ("prompt", {"text": "x"}),
        ("prompt", ["x", 1]),
        ("prompt", [1, "x"]),
        ("prompt", [1, True]),
        ("prompt", [1.5]),
        ("prompt", [[1], [-1]]),
        ("prompt", [[[1]]]),
        ("prompt", [50257]),
        ("prompt", [2**70]),
        ("prompt", "half a pair: \ud83e"),
        ("prompt", [262] * 2000),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [50257]),
        ("allowed_token_ids", ["1"]),
        ("return_token_ids", 1),
        ("suffix", "the end"),
        ("stream", 1),
        ("stream_options", {"include_usage": True}),
        ("user", 5),
    ],
)
def test_a_bad_value_is_400_and_its_field_is_named(api, field, value):
    body = json.dumps({"prompt": PROMPT, field: value})
    error = error_of(api.http.post("/v1/completions", content=body, headers=JSON))
    assert error["param"] == field and field in error["message"] and len(error["message"]) < 600
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "field", "meant"),
    [
        ("/v1/completions", "temprature", "temperature"),
        ("/v1/completions", "max_token", "max_tokens"),
        ("/v1/completions", "maxTokens", "max_tokens"),
        ("/v1/completions", "max_completion_tokens", "max_tokens"),
        ("/v1/completions", "Seed", "seed"),
        ("/tokenize", "promt", "prompt"),
        ("/detokenize", "token", "tokens"),
        ("/playground/logits", "token", "tokens"),
    ],
)
def test_a_field_that_is_nearly_a_known_one_is_refused_with_that_name(api, path, field, meant):
    error = error_of(api.http.post(path, json={field: 1}))
    assert error["message"] == f"there is no field {field!r}: did you mean {meant!r}?"
    assert error["param"] == field and error["code"] == "unknown_field"


def test_any_other_unknown_field_is_refused(api):
    message = error_of(api.complete(prompt=PROMPT, messages=[]))["message"]
    assert message == "there is no field 'messages': leave it out"
    assert len(error_of(api.complete(**{"x" * 100_000: 1}))["message"]) < 200
    inner = error_of(api.complete(prompt=PROMPT, stream=True, stream_options={"include_usages": True}))
    assert inner["message"] == "there is no field 'stream_options.include_usages': did you mean 'include_usage'?"
    assert inner["param"] == "stream_options.include_usages"


def test_prompt_and_max_tokens_beyond_the_context_say_so(api, tales):
    """LiteLLM and others look for these words of OpenAI's."""
    n_ctx = tales.config.n_ctx
    words = f"This model's maximum context length is {n_ctx} tokens: "
    logits = api.http.post("/playground/logits", json={"tokens": [262] * 5000})
    for answer in (api.complete(prompt=PROMPT, max_tokens=5000), api.complete(prompt=[262] * 5000), logits):
        error = error_of(answer)
        assert error["code"] == "context_length_exceeded" and "5000" in error["message"]
        assert error["message"].startswith(words)


@pytest.mark.parametrize(("left", "advice"), [(12, "room for 12, not 100: ask for fewer"), (-88, "shorten it")])
def test_a_full_context_names_no_option_of_the_command_line(api, tales, left, advice):
    prompt = [262] * (tales.config.n_ctx - left)
    assert error_of(api.complete(prompt=prompt, max_tokens=100))["message"].endswith(advice)


def test_best_of_below_n_and_in_a_stream_are_refused(api):
    assert error_of(api.complete(prompt=PROMPT, n=3, best_of=2))["param"] == "best_of"
    assert error_of(api.complete(prompt=PROMPT, best_of=2, stream=True))["param"] == "best_of"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b'"text"',
        b"null",
        b'{"prompt": "\xff\xfe"}',
        b"\x00",
        b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
        b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"logit_bias": ' + b'{"1":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"prompt": "a", "user": "' + b"\\ud800" * 10 + b'", "model": "\\udfff"}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_a_malformed_body_is_no_server_error(api, path, body):
    answer = api.http.post(path, content=body, headers=JSON)
    assert answer.status_code in (400, 404)
    error_of(answer, answer.status_code)


def test_a_body_must_be_sent_as_json(api):
    """Refuse it, or else any page could make a browser send one."""
    answer = api.http.post("/v1/completions", content=b'{"prompt": "x"}', headers={"content-type": "text/plain"})
    assert error_of(answer, 415)["message"].startswith("send the header Content-Type: application/json;")


def test_an_unknown_model_address_and_method(api):
    assert error_of(api.complete(prompt="x", model="gpt-5"), 404)["code"] == "model_not_found"
    error = error_of(api.http.get("/v2"), 404)
    assert error["code"] == "unknown_url" and "/docs" in error["message"]
    refused = error_of(api.http.get("/v1/completions"), 405)
    assert refused["message"] == "this address does not accept GET, only POST"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/responses"])
def test_gpt2_is_no_chat_model_and_says_so(api, path):
    body = {"model": "tales", "messages": [{"role": "user", "content": "Hello"}]}
    message = error_of(api.http.post(path, json=body), 404)["message"]
    assert "not a chat model" in message and "/v1/completions" in message


@pytest.mark.parametrize("path", ["/completions", "/models", "/v1/completions/nonsense"])
def test_a_base_url_without_its_version_is_named(api, path):
    message = error_of(api.http.post(path, json={"prompt": PROMPT}), 404)["message"]
    assert ("base_url" in message) == (path.count("/") == 1)


@pytest.mark.parametrize("path", ["/v1/models/%ff%fe", "/playground/vocabulary?model=%ff", "/page/%ff.js", "/%ff"])
def test_an_address_that_is_no_utf8_is_not_found(api, path):
    with api.raw() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in connection.recv(1000)


@pytest.mark.parametrize("tokens", [None, "x", [1, "x"], [-1], [50257], [2**80]])
def test_tokens_that_are_none_are_refused(api, tokens):
    assert error_of(api.http.post("/detokenize", json={"tokens": tokens}))["param"] == "tokens"


def test_text_without_utf8_is_refused_by_tokenize(api):
    answer = api.http.post("/tokenize", content=b'{"prompt": "\\ud800"}', headers=JSON)
    assert error_of(answer)["param"] == "prompt"


def test_10_mb_are_refused_before_they_are_parsed(api):
    error_of(api.http.post("/v1/completions", json={"prompt": "x" * 10_000_000}), 413)
    assert api.complete(prompt=PROMPT, max_tokens=1).status_code == 200


def test_a_body_without_a_length_is_limited_too(start):
    api = start(Settings(max_body_bytes=1000))
    chunks = (b" " * 500 for _ in range(10))
    error_of(api.http.post("/v1/completions", content=chunks, headers=JSON), 413)


def test_a_body_that_does_not_come_is_408(start):
    api = start(Settings(body_seconds=0.2))
    with api.raw() as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: 10\r\n\r\n{")
        assert b" 408 " in connection.recv(1000)


def test_limits_of_a_request_are_the_server_s(start):
    api = start(Settings(max_samples=4, max_tokens=8, max_prompt_bytes=10))
    assert error_of(api.complete(prompt=["a", "b"], n=3))["param"] == "n"
    assert error_of(api.complete(prompt=["a"] * 5))["param"] == "prompt"
    assert error_of(api.complete(prompt="a", max_tokens=9))["param"] == "max_tokens"
    assert error_of(api.complete(prompt="a" * 11))["code"] == "string_above_max_length"
    assert error_of(api.complete(prompt="é" * 6))["code"] == "string_above_max_length"
    assert api.complete(prompt="a", ignore_eos=True).json()["usage"]["completion_tokens"] == 8


def test_what_may_not_wait_is_429_and_told_when_to_come_again(start):
    api = start(Settings(max_batch=1, max_waiting=1, max_samples=2))
    body = {"prompt": PROMPT, "n": 2, "max_tokens": 500, "ignore_eos": True, "stream": True}
    with api.raw(body) as connection:
        assert b" 200 " in connection.recv(1000)
        answer = api.complete(prompt=PROMPT)
        assert error_of(answer, 429)["code"] == "queue_full" and int(answer.headers["retry-after"]) >= 1
    assert api.idle() and api.complete(prompt=PROMPT, max_tokens=1).status_code == 200
    assert api.metric("gpt2lab_refused_total") == 1


def test_keys_are_asked_for_where_there_are_any(start):
    api = start(Settings(api_keys=("first", "second")))
    body = {"prompt": "x", "max_tokens": 1}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic first"},
        {"Authorization": "first"},
    ):
        answer = api.http.post("/v1/completions", json=body, headers=headers)
        assert error_of(answer, 401)["type"] == "authentication_error"
    for path in ("/v1/models", "/metrics"):
        error_of(api.http.get(path), 401)
    for key in ("first", "second"):
        assert (
            api.http.post("/v1/completions", json=body, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        )
    assert api.http.get("/health").status_code == api.http.get("/").status_code == 200
    assert api.http.head("/health").status_code == api.http.head("/health/", follow_redirects=True).status_code == 200
    assert api.http.get("/health/", follow_redirects=True).json() == {"status": "ok"}


def test_pages_of_other_origins_may_ask_only_where_they_are_named(api, start):
    origin = {"Origin": "http://page.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert "access-control-allow-origin" not in api.http.get("/health", headers=origin).headers
    assert api.http.options("/v1/completions", headers=asked).status_code == 405
    other = start(Settings(cors=("http://page.example",), api_keys=("key",)))
    theirs = "authorization, content-type, x-stainless-arch, x-stainless-retry-count"  # OpenAI's client
    allowed = other.http.options("/v1/completions", headers={**asked, "Access-Control-Request-Headers": theirs})
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == "http://page.example"
    assert allowed.headers["access-control-allow-headers"] == theirs
    foreign = other.http.options("/v1/completions", headers={**asked, "Origin": "http://evil.example"})
    assert foreign.status_code == 400 and "access-control-allow-origin" not in foreign.headers
    refused = other.http.get("/v1/models", headers=origin)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "http://page.example"


def test_while_it_drains_nothing_new_is_taken_and_what_runs_ends(start):
    api = start()
    body = {"prompt": PROMPT, "max_tokens": 300, "ignore_eos": True}
    with api.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        api.service.draining = True
        refused = api.complete(**body)
        assert error_of(refused, 503)["code"] == "draining" and "retry-after" in refused.headers
        assert api.http.get("/health").status_code == 503
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_what_is_abandoned_is_told_so(start):
    api = start()
    body = {"prompt": PROMPT, "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 16}
    with api.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        next(iter(api.service.models)).worker._loop.call_soon_threadsafe(api.service.abandon)
        last = json.loads([line for line in lines if line][-1].removeprefix("data: "))
    assert last["error"]["code"] == "draining"
    assert api.idle(2)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="max_batch"):
        Settings(max_batch=0)
    with pytest.raises(UsageError, match="exceeds max_batch"):
        Settings(max_batch=1, max_waiting=1, max_samples=3)
    with pytest.raises(UsageError, match="drain_seconds"):
        Settings(drain_seconds=math.nan)
    with pytest.raises(UsageError, match="drain_seconds must be at least 0, got -1"):
        Settings(drain_seconds=-1)
