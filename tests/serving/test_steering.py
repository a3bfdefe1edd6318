"""Steered completions: the texts that Python writes, beside others that do not change, and nothing of them is kept."""

from __future__ import annotations

import pytest

import gpt2lab
from gpt2lab.engines.hooks import Edit
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import KV_CACHE_SHARE, Scheduler
from gpt2lab.generation.sequences import Sequences
from gpt2lab.inside.steering import difference
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.serving.settings import Settings

PROMPT = "Once upon a time there was a"
SCALE = 1.5


@pytest.fixture(scope="module")
def steer(tales):
    positive, negative = (tales.tokenizer.encode(text) for text in (" happy", " sad"))
    return {"layer": 2, "positive": positive, "negative": negative, "scale": SCALE}


@pytest.fixture(scope="module")
def vector(tales, steer):
    """Provide the direction as the server computes it: in the precision served."""
    return SCALE * difference(tales.engine, steer["positive"], steer["negative"], steer["layer"])


@pytest.fixture
def kept(start):
    """Provide a server that keeps nothing yet."""
    return start(models=[("tales", gpt2lab.load("tales", threads=1))])


def text_of(api, **body):
    answer = api.complete(**{"prompt": PROMPT, "max_tokens": 20, "seed": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def cached(answer):
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_steered_text_is_the_one_that_python_writes(api, tales, steer, vector):
    expected = tales.generate(PROMPT, length=20, seed=3, add={2: vector}).text
    assert text_of(api, steer=steer) == expected != text_of(api)


def test_a_scale_of_zero_changes_nothing(api, steer):
    assert text_of(api, steer={**steer, "scale": 0}) == text_of(api)


def test_the_samples_of_a_request_are_all_steered(api, tales, steer, vector):
    answer = api.complete(prompt=PROMPT, max_tokens=20, seed=3, n=3, steer=steer).json()
    expected = tales.generate(PROMPT, n=3, length=20, seed=3, add={2: vector})
    assert [choice["text"] for choice in answer["choices"]] == [each.text for each in expected]


def test_steered_and_plain_samples_run_together_and_change_nothing_of_each_other(tales, vector):
    engine = tales.engine
    edits = (Edit("resid_pre", 2, vector[None], add=True, every=True),)
    plain = Request(tuple(tales.tokenizer.encode(PROMPT)), SamplingParams(), seed=3, stream=0, limit=20)
    wanted = [plain, plain._replace(edits=edits), plain._replace(stream=1), plain._replace(edits=edits, stream=1)]

    def drawn(requests):
        found = {}
        with Scheduler(engine) as scheduler:
            ids = [scheduler.submit(request) for request in requests]
            while scheduler.busy:
                for event in scheduler.step():
                    found.setdefault(event.request, []).append(event.token)
        return [found[id] for id in ids]

    together = drawn(wanted)
    assert together == [tokens for request in wanted for tokens in drawn([request])]
    assert together[0] != together[1]


def test_keys_and_values_of_steered_texts_are_not_reused(kept, steer):
    text = "A long prompt about a king, a queen and a fish in the deep blue sea."
    assert cached(kept.complete(prompt=text, max_tokens=5, seed=1, steer=steer)) == 0
    assert cached(kept.complete(prompt=text, max_tokens=5, seed=1)) == 0
    assert cached(kept.complete(prompt=text, max_tokens=5, seed=1)) > 0
    assert cached(kept.complete(prompt=text, max_tokens=5, seed=1, steer=steer)) == 0


def test_a_text_that_gave_up_its_memory_is_steered_again_from_its_first_token(tales, vector, monkeypatch):
    edits = (Edit("resid_pre", 2, vector[None], add=True, every=True),)
    prompt = tuple(tales.tokenizer.encode(PROMPT))
    request = Request(prompt, SamplingParams(), seed=3, stream=0, limit=20, edits=edits)
    room = KV_CACHE_SHARE * tales.engine.kv_cache_bytes_per_token * 60
    monkeypatch.setattr("gpt2lab.generation.scheduler.available_memory", lambda: room)
    begun, begin = [], Sequences.begin_edited
    monkeypatch.setattr(Sequences, "begin_edited", lambda self, edits: begun.append(edits) or begin(self, edits))

    def drawn(crowded):
        found = {}
        with Scheduler(tales.engine, batch_size=2) as scheduler:
            for stream in (0, 1):
                scheduler.submit(request._replace(stream=stream), owner="one")
            for number in range(100):
                if number == 5 and crowded:
                    scheduler.submit(request._replace(edits=(), stream=2), owner="other")
                for event in scheduler.step():
                    found.setdefault(event.request, []).append(event.token)
        return [found[0], found[1]]

    alone = drawn(False)
    assert len(begun) == 1  # both continue the prompt
    assert drawn(True) == alone
    assert len(begun) == 3  # one of them began again


def test_the_tokens_of_the_direction_count_as_read(api, tales, steer):
    before = api.metric("gpt2lab_prompt_tokens_total")
    text_of(api, steer={**steer, "positive": steer["positive"] * 40})
    n_prompt = len(tales.tokenizer.encode(PROMPT))
    assert api.metric("gpt2lab_prompt_tokens_total") - before == n_prompt + 41


def test_the_tokens_of_the_direction_count_for_the_keys_limit(start, steer, tmp_path):
    (tmp_path / "keys").write_text("secret tokens_per_minute=30\n")
    api = start(Settings(api_key_file=str(tmp_path / "keys")))
    body = {"prompt": PROMPT, "max_tokens": 2, "steer": steer}
    header = {"Authorization": "Bearer secret"}
    assert api.http.post("/v1/completions", json=body, headers=header).status_code == 200
    body["steer"] = {**steer, "positive": steer["positive"] * 40}
    answer = api.http.post("/v1/completions", json=body, headers=header)
    assert answer.status_code in (400, 429) and "tokens" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 99}, "there is no layer 99"),
        ({"positive": []}, "must not be empty"),
        ({"negative": [99999]}, "steer.negative: there is no token 99999"),
        ({"scale": 1001}, "steer.scale"),
        ({"positive": [1] * 513}, "steer.positive has 513"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(api, steer, changes, words):
    answer = api.complete(prompt=PROMPT, max_tokens=1, steer={**steer, **changes})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "steer"


def test_a_prompt_is_not_scored_as_if_it_were_steered(api, steer):
    answer = api.complete(prompt=PROMPT, max_tokens=1, echo=True, logprobs=1, steer=steer)
    assert answer.status_code == 400 and "echo and logprobs" in answer.json()["error"]["message"]
