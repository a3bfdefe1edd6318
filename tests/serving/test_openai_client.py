"""OpenAI's own Python client against our server."""

from __future__ import annotations

import pytest

import needs

from .conftest import PROMPT

openai = needs.package("openai")


@pytest.fixture
def client(api):
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_completion(client, tales):
    answer = client.completions.create(model="tales", prompt=PROMPT, max_tokens=10, seed=1, n=2, stop=["\n"])
    expected = tales.generate(PROMPT, n=2, length=10, seed=1, stop=["\n"])
    assert [choice.text for choice in answer.choices] == [completion.text for completion in expected]
    assert [choice.finish_reason for choice in answer.choices] == [c.finish_reason for c in expected]
    assert answer.usage.prompt_tokens == 4 and answer.seed == 1


def test_a_stream(client, tales):
    options = {"include_usage": True}
    chunks = list(
        client.completions.create(
            model="tales", prompt=PROMPT, max_tokens=10, seed=1, stream=True, stream_options=options
        )
    )
    text = "".join(chunk.choices[0].text for chunk in chunks[:-1])
    assert text == tales.generate(PROMPT, length=10, seed=1).text
    assert chunks[-1].usage.completion_tokens == 10


def test_logprobs(client, tales):
    answer = client.completions.create(model="tales", prompt=PROMPT, max_tokens=3, seed=1, logprobs=1, echo=True)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text and logprobs.token_logprobs[0] is None
    assert logprobs.text_offset[0] == 0


def test_gpt2lab_s_own_parameters(client, tales):
    own = {"top_k": 5, "min_p": 0.05}
    answer = client.completions.create(model="tales", prompt=PROMPT, max_tokens=8, seed=2, extra_body=own)
    assert answer.choices[0].text == tales.generate(PROMPT, length=8, seed=2, **own).text


def test_errors_are_the_client_s_own_kinds(client, start):
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.completions.create(model="tales", prompt=PROMPT, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        client.completions.create(model="gpt-5", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="tales", prompt=PROMPT, suffix="the end")


def test_values_that_the_client_s_types_allow(client, tales):
    answer = client.completions.create(
        model="tales", prompt=None, best_of=0, seed=-1, max_tokens=2, logit_bias={"50256": -100}, stop=None, user="me"
    )
    assert answer.choices[0].text and answer._request_id.startswith("req-")


def test_token_ids(client, tales):
    own = {"return_token_ids": True, "allowed_token_ids": [262]}
    answer = client.completions.create(model="tales", prompt=PROMPT, max_tokens=2, extra_body=own)
    assert answer.choices[0].token_ids == [262, 262]
    assert answer.choices[0].prompt_token_ids == tales.tokenizer.encode(PROMPT)


def test_a_chat_is_refused_in_words(client):
    with pytest.raises(openai.NotFoundError, match="not a chat model"):
        client.chat.completions.create(model="tales", messages=[{"role": "user", "content": "Hello"}])


def test_tokens_as_ids(client):
    own = {"return_tokens_as_token_ids": True}
    stream = client.completions.create(
        model="tales", prompt=PROMPT, max_tokens=3, logprobs=2, seed=1, stream=True, extra_body=own
    )
    tokens = [token for chunk in stream for token in chunk.choices[0].logprobs.tokens]
    assert len(tokens) == 3 and all(token.startswith("token_id:") for token in tokens)


def test_a_key(start):
    from gpt2lab.serving.settings import Settings

    url = f"{start(Settings(api_keys=('secret',))).url}/v1"
    with openai.OpenAI(base_url=url, api_key="secret") as client:
        assert [model.id for model in client.models.list()] == ["tales"]
    with openai.OpenAI(base_url=url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_failure_in_a_stream_is_raised(client, api, monkeypatch):
    chunks = client.completions.create(
        model="tales", prompt=PROMPT, max_tokens=500, stream=True, n=16, extra_body={"ignore_eos": True}
    )
    with pytest.raises(openai.APIError, match="shutting down"):
        for _ in chunks:
            api.worker._loop.call_soon_threadsafe(api.service.abandon)
