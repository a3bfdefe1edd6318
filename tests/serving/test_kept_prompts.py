"""Prompts that the server keeps: the same answers, fewer tokens computed, each key apart, within bounds."""

from __future__ import annotations

import time

import pytest

import gpt2lab
from gpt2lab.errors import UsageError
from gpt2lab.generation.kept import IDLE_SECONDS
from gpt2lab.serving.settings import Settings

from .conftest import PROMPT, Running, eventually

LONG = list(range(1000, 1400))


@pytest.fixture(scope="module")
def exact():
    """Provide ``tales`` once more, with an engine that no other server uses."""
    return gpt2lab.load("tales", threads=1)


@pytest.fixture
def kept(start, exact) -> Running:
    """Provide a server that keeps nothing yet."""
    return start(models=[("tales", exact)])


def prompts_of(api: Running):
    return next(iter(api.service.models)).prompts


def cached(answer) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def texts(answer) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_prompt_that_goes_on_from_an_earlier_answer_is_computed_from_there(kept, exact):
    first = kept.complete(prompt=LONG, max_tokens=10, seed=1, return_token_ids=True).json()
    assert cached(first) == 0
    longer = [*LONG, *first["choices"][0]["token_ids"], 11, 12]
    second = kept.complete(prompt=longer, max_tokens=5, seed=2).json()
    assert cached(second) == len(longer) - 3  # the last drawn token had not been fed
    assert texts(second) == [exact.generate(longer, length=5, seed=2).text]


def test_the_same_request_gets_the_same_answer(kept):
    body = {"prompt": PROMPT, "max_tokens": 20, "n": 3, "seed": 1, "logprobs": 3}
    cold, warm = kept.complete(**body).json(), kept.complete(**body).json()
    assert (cached(cold), cached(warm)) == (0, 3)
    assert cold["choices"] == warm["choices"]


def test_each_prompt_counts_once_however_many_samples_it_has(kept):
    kept.complete(prompt=[LONG[:50], LONG[100:130]], max_tokens=1)
    answer = kept.complete(prompt=[LONG[:50], [7], LONG[100:130]], n=2, max_tokens=2).json()
    assert cached(answer) == 49 + 29


def test_a_stream_ends_with_the_number_of_cached_tokens(kept):
    kept.complete(prompt=LONG, max_tokens=1)
    events = kept.events(prompt=LONG, max_tokens=2, stream_options={"include_usage": True})
    assert cached(events[-1]) == 399


def test_metrics_count_cached_tokens_and_the_bytes_that_are_kept(kept):
    before = kept.metric("gpt2lab_cached_prompt_tokens_total"), kept.metric("gpt2lab_prompt_cache_bytes")
    for _ in range(2):
        kept.complete(prompt=LONG, max_tokens=1)
    assert before == (0, 0)
    assert kept.metric("gpt2lab_cached_prompt_tokens_total") == 399
    assert kept.metric("gpt2lab_prompt_cache_bytes") == prompts_of(kept).held_bytes > 0


def test_logits_and_completions_spare_each_other_the_prompt(kept):
    assert kept.http.post("/playground/logits", json={"tokens": LONG}).status_code == 200
    assert cached(kept.complete(prompt=LONG, max_tokens=1).json()) == 399


def test_a_key_is_not_answered_sooner_for_what_another_asked(start, exact):
    api = start(Settings(api_keys=("one", "two")), models=[("tales", exact)])

    def ask(key: str) -> int:
        body = {"prompt": LONG, "max_tokens": 1}
        return cached(api.http.post("/v1/completions", json=body, headers=bearer(key)).json())

    assert [ask("one"), ask("two"), ask("one"), ask("two")] == [0, 0, 399, 399]
    body = {"tokens": LONG[::-1]}
    assert api.http.post("/playground/logits", json=body, headers=bearer("one")).status_code == 200
    body = {"prompt": LONG[::-1], "max_tokens": 1}
    assert cached(api.http.post("/v1/completions", json=body, headers=bearer("two")).json()) == 0


def test_no_more_is_kept_than_was_asked_for(start, exact):
    api = start(Settings(prompt_cache=5), models=[("tales", exact)])
    before = exact.engine.kv_cache_bytes  # other servers of the module
    for first in range(20):
        assert api.complete(prompt=[first, *LONG[:60]], max_tokens=1).status_code == 200
        assert api.idle()
        assert exact.engine.kv_cache_bytes - before == prompts_of(api).held_bytes <= 5 * 10**6
    assert prompts_of(api).held_bytes > 0


def test_a_server_without_a_prompt_cache_keeps_nothing(start, exact):
    api = start(Settings(prompt_cache=0), models=[("tales", exact)])
    for _ in range(2):
        assert cached(api.complete(prompt=LONG, max_tokens=1).json()) == 0
    assert prompts_of(api).held_bytes == 0


def test_prompts_that_nobody_used_for_a_while_are_released(kept):
    kept.complete(prompt=LONG, max_tokens=1)
    assert kept.idle()
    prompts = prompts_of(kept)
    prompts._clock = lambda: time.monotonic() + IDLE_SECONDS
    prompts.expire()
    assert prompts.held_bytes == 0
    assert cached(kept.complete(prompt=LONG, max_tokens=1).json()) == 0


def test_a_model_that_failed_forgets_what_it_kept(start, monkeypatch):
    model = gpt2lab.load("tales", precision="float32", threads=1)
    api = start(models=[("tales", model)])
    api.complete(prompt=LONG, max_tokens=1)
    assert api.idle()
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "step", lambda *_: 1 / 0)
        assert api.complete(prompt=LONG, max_tokens=1).status_code == 500
    assert eventually(lambda: model.engine.kv_cache_bytes == 0)
    assert cached(api.complete(prompt=LONG, max_tokens=1).json()) == 0


def test_a_prompt_cache_below_nothing_is_refused():
    with pytest.raises(UsageError, match="prompt_cache must be at least 0, got -1"):
        Settings(prompt_cache=-1)
