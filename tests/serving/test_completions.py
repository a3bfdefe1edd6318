"""Completions over HTTP: the same text as everywhere, in OpenAI's shape."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import current_thread

import numpy as np
import pytest

from .conftest import PROMPT, eventually


def test_an_answer_has_openai_s_shape(api):
    answer = api.complete(prompt=PROMPT, max_tokens=5, seed=1, model="tales").json()
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-") and answer["model"] == "tales"
    assert answer["system_fingerprint"].startswith("fp_") and answer["seed"] == 1
    cached = answer["usage"].pop("prompt_tokens_details")["cached_tokens"]
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9} and cached in range(4)
    (choice,) = answer["choices"]
    assert choice["index"] == 0 and choice["finish_reason"] == "length" and choice["logprobs"] is None


def test_a_prompt_that_ends_in_a_space_gets_a_warning(api):
    warned = api.complete(prompt=["The king", "The king "], max_tokens=2).json()
    assert [line.partition(",")[0] for line in warned["warnings"]] == ["prompt 2 ends in a space"]
    assert "warnings" not in api.complete(prompt="The king", max_tokens=2).json()


def test_without_a_seed_one_is_chosen_and_told_and_makes_the_text_again(api):
    first = api.complete(prompt=PROMPT, max_tokens=20).json()
    again = api.complete(prompt=PROMPT, max_tokens=20, seed=first["seed"]).json()
    assert first["choices"] == again["choices"]
    assert api.complete(prompt=PROMPT, max_tokens=20).json()["seed"] != first["seed"]


def test_text_is_the_command_line_s_for_the_same_seed_under_load(api, tales):
    """Run samples with other prompts, lengths and temperatures beside those that are compared."""
    settings = {"temperature": 0.9, "top_k": 40, "seed": 7}
    expected = [c.text for c in tales.generate([PROMPT, "The king"], n=3, length=24, **settings)]
    with ThreadPoolExecutor(8) as clients:
        noise = [
            clients.submit(api.complete, prompt=f"{i} foxes", n=2, max_tokens=20 + 5 * i, temperature=1.3, seed=i)
            for i in range(6)
        ]
        body = {"prompt": [PROMPT, "The king"], "n": 3, "max_tokens": 24, **settings}
        whole = clients.submit(api.complete, **body)
        streamed = clients.submit(api.events, **body)
        texts = [choice["text"] for choice in whole.result().json()["choices"]]
        pieces: dict[int, str] = {}
        for event in streamed.result():
            for choice in event["choices"]:
                pieces[choice["index"]] = pieces.get(choice["index"], "") + choice["text"]
        assert all(answer.result().status_code == 200 for answer in noise)
    assert texts == expected
    assert [pieces[index] for index in range(6)] == expected


@pytest.mark.parametrize("prompt", ["The king", ["The king"], [464, 5822], [[464, 5822]]])
def test_a_prompt_may_be_text_ids_or_lists_of_them(api, prompt):
    assert (
        api.complete(prompt=prompt, max_tokens=8, seed=3).json()["choices"]
        == (api.complete(prompt="The king", max_tokens=8, seed=3).json()["choices"])
    )


def test_no_prompt_starts_from_nothing(api, tales):
    answer = api.complete(max_tokens=8, seed=3).json()
    assert answer["choices"][0]["text"] == tales.generate("", length=8, seed=3).text
    assert answer["usage"]["prompt_tokens"] == 0


def test_null_stands_for_a_default(api):
    fields = api.http.get("/openapi.json").json()["components"]["schemas"]["CompletionRequest"]["properties"]
    nulls = {**dict.fromkeys(fields), "seed": 1}
    assert api.complete(**nulls).json()["choices"] == api.complete(seed=1).json()["choices"]


def test_a_seed_of_minus_1_is_random_and_a_best_of_0_is_n(api):
    answer = api.complete(prompt=PROMPT, seed=-1, best_of=0, n=2, max_tokens=1).json()
    assert answer["seed"] >= 0 and len(answer["choices"]) == 2
    assert api.complete(prompt=PROMPT, seed=-1, max_tokens=1).json()["seed"] != answer["seed"]


def test_a_bias_of_a_text_is_one_of_each_of_its_tokens(api, tales):
    body = {"prompt": PROMPT, "max_tokens": 12, "seed": 1}
    ids = tales.tokenizer.encode(" there was")
    by_text = api.complete(**body, logit_bias={" there was": -100}).json()["choices"]
    assert by_text == api.complete(**body, logit_bias=dict.fromkeys(ids, -100)).json()["choices"]
    assert by_text != api.complete(**body).json()["choices"]


def test_only_allowed_tokens_are_drawn(api, tales):
    allowed = tales.tokenizer.encode(" king the fox")
    body = {"prompt": PROMPT, "max_tokens": 20, "seed": 1, "return_token_ids": True, "n": 3}
    choices = api.complete(**body, allowed_token_ids=allowed, logit_bias={allowed[0]: -100}).json()["choices"]
    assert {id for choice in choices for id in choice["token_ids"]} == set(allowed[1:])


@pytest.mark.parametrize("stop", [None, [" a time"]])
def test_token_ids_are_returned_on_request(api, tales, stop):
    body = {"prompt": [PROMPT, "The king"], "max_tokens": 12, "seed": 1, "n": 2, "stop": stop, "return_token_ids": True}
    choices = api.complete(**body).json()["choices"]
    for choice in choices:
        assert choice["prompt_token_ids"] == tales.tokenizer.encode(body["prompt"][choice["index"] // 2])
        assert tales.tokenizer.decode(choice["token_ids"]).startswith(choice["text"])
        assert stop or len(choice["token_ids"]) == 12
    drawn: dict[int, list[int]] = {}
    prompts: dict[int, list[int]] = {}
    for event in api.events(**body):
        (part,) = event["choices"]
        drawn.setdefault(part["index"], []).extend(part["token_ids"])
        if "prompt_token_ids" in part:
            assert part["index"] not in prompts
            prompts[part["index"]] = part["prompt_token_ids"]
    assert [drawn[index] for index in range(4)] == [choice["token_ids"] for choice in choices]
    assert [prompts[index] for index in range(4)] == [choice["prompt_token_ids"] for choice in choices]


def test_token_ids_hold_the_end_of_text(api, tales):
    end = tales.tokenizer.end_of_text
    choice = api.complete(prompt=PROMPT, logit_bias={end: 100}, return_token_ids=True).json()["choices"][0]
    assert (choice["text"], choice["token_ids"]) == ("", [end])


def test_a_request_keeps_its_name_or_gets_one(api, caplog):
    caplog.set_level("INFO", "gpt2lab.serving")
    answer = api.http.post("/tokenize", json={"prompt": "x"}, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert eventually(lambda: " request=mine-1" in caplog.text)  # the line follows the answer
    for name in ("", "two words", "x" * 200, "a\tb"):
        made = api.http.get("/nowhere", headers={"X-Request-Id": name}).headers["x-request-id"]
        assert made.startswith("req-") and eventually(lambda made=made: f" request={made}" in caplog.text)
    with api.http.stream(
        "POST", "/v1/completions", json={"stream": True}, headers={"X-Request-Id": "mine-2"}
    ) as stream:
        assert stream.headers["x-request-id"] == "mine-2"


def test_without_its_pages_the_server_answers_the_api_alone(start):
    from gpt2lab.serving.settings import Settings

    api = start(Settings(ui=False))
    for path in ("/", "/docs", "/watch", "/watch/events", "/page/main.js"):
        assert api.http.get(path).status_code == 404
    for path in ("/health", "/metrics", "/openapi.json", "/v1/models", "/playground/vocabulary"):
        assert api.http.get(path).status_code == 200
    assert api.complete(prompt=PROMPT, max_tokens=1).status_code == 200


def test_sampling_parameters_reach_the_sampler(api, tales):
    settings = {
        "temperature": 1.2,
        "top_k": 50,
        "top_p": 0.9,
        "min_p": 0.01,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "seed": 5,
    }
    bias = {"262": -100, "339": 2.5}
    text = api.complete(prompt=PROMPT, max_tokens=30, logit_bias=bias, **settings).json()["choices"][0]["text"]
    ids = {int(id): value for id, value in bias.items()}
    assert text == tales.generate(PROMPT, length=30, logit_bias=ids, **settings).text


def test_stop_strings_end_a_sample_and_are_left_out(api, tales):
    text = tales.generate(PROMPT, length=60, seed=1).text
    stop = text[20:25]  # across tokens
    expected = text[: text.index(stop)]
    body = {"prompt": PROMPT, "max_tokens": 60, "seed": 1, "stop": ["never there", stop], "logprobs": 0}
    choice = api.complete(**body).json()["choices"][0]
    assert choice["text"] == expected and choice["finish_reason"] == "stop"
    assert max(choice["logprobs"]["text_offset"]) < len(PROMPT) + len(expected)
    events = api.events(**body)
    assert "".join(event["choices"][0]["text"] for event in events) == expected
    tokens = [token for event in events for token in event["choices"][0]["logprobs"]["tokens"]]
    assert tokens == choice["logprobs"]["tokens"]


def test_a_stream_ends_with_its_reason_and_the_counts_that_were_asked_for(api):
    events = api.events(prompt=PROMPT, max_tokens=6, seed=1, stream_options={"include_usage": True})
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 5 + ["length"]
    assert all(event["usage"] is None for event in events[:-1])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"].pop("prompt_tokens_details")
    assert events[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert len({event["id"] for event in events}) == 1


def test_every_chunk_holds_the_counts_so_far_on_request(api):
    counts = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = api.events(prompt=PROMPT, max_tokens=6, n=2, seed=1, ignore_eos=True, stream_options=counts)
    drawn = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert drawn == list(range(1, 13)) and last["usage"] == chunks[-1]["usage"]
    assert all(chunk["usage"]["total_tokens"] == 4 + n for chunk, n in zip(chunks, drawn, strict=True))


def test_counts_that_were_not_asked_for_are_not_sent(api):
    counts = {"include_usage": False, "continuous_usage_stats": True}
    assert not any("usage" in chunk for chunk in api.events(prompt=PROMPT, max_tokens=3, stream_options=counts))


def test_a_stream_has_no_half_characters(api):
    """Draw only tokens 447, 247 and 250, which are parts of ’ and “."""
    bias = {"447": 100, "247": 100, "250": 100}
    events = api.events(prompt="It", max_tokens=40, seed=2, logit_bias=bias, temperature=1.0)
    text = "".join(event["choices"][0]["text"] for event in events)
    whole = api.complete(prompt="It", max_tokens=40, seed=2, logit_bias=bias).json()["choices"][0]["text"]
    assert text == whole and ("“" in text or "’" in text)
    for event in events:
        event["choices"][0]["text"].encode()


def test_logprobs_have_the_legacy_shape(api, tales):
    completion = tales.generate(PROMPT, length=6, seed=1, logprobs=True, top_logprobs=2)
    logprobs = api.complete(prompt=PROMPT, max_tokens=6, seed=1, logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == completion.logprobs
    assert "".join(logprobs["tokens"]) == completion.text
    starts = [len(PROMPT) + len("".join(logprobs["tokens"][:i])) for i in range(6)]
    assert logprobs["text_offset"] == starts
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert 2 <= len(top) <= 3 and top[token] == pytest.approx(logprob)  # the drawn token is always included


def test_logprobs_0_are_of_the_drawn_tokens_alone(api):
    logprobs = api.complete(prompt=PROMPT, max_tokens=3, seed=1, logprobs=0).json()["choices"][0]["logprobs"]
    assert [list(top) for top in logprobs["top_logprobs"]] == [[token] for token in logprobs["tokens"]]


def test_a_drawn_end_of_text_has_its_log_probability(api, tales):
    """lm-evaluation-harness counts on one entry for each token, the prompt's and those drawn."""
    end = tales.tokenizer.end_of_text
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "logit_bias": {end: 100}}
    choice = api.complete(**body).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == PROMPT and choice["finish_reason"] == "stop"
    assert {name: len(values) for name, values in logprobs.items()} == dict.fromkeys(logprobs, 5)
    assert logprobs["tokens"][-1] == "<|endoftext|>" and logprobs["text_offset"][-1] == len(PROMPT)
    row = tales.logits(PROMPT)[-1].astype(float)  # in float32, while int8 is served
    assert logprobs["token_logprobs"][-1] == pytest.approx(row[end] - np.logaddexp.reduce(row), abs=0.5)
    assert "<|endoftext|>" in logprobs["top_logprobs"][-1]


@pytest.mark.parametrize("stop", [None, ["never there"]])
def test_an_end_of_text_is_the_last_entry_of_a_text_and_of_its_stream(api, tales, stop):
    body = {"prompt": PROMPT, "max_tokens": 300, "seed": 1, "logprobs": 0, "stop": stop}
    body["logit_bias"] = {tales.tokenizer.end_of_text: 6}
    choice = api.complete(**body).json()["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["text"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"] + "<|endoftext|>"
    assert logprobs["text_offset"][-1] == len(PROMPT) + len(choice["text"])
    streamed = [event["choices"][0]["logprobs"] for event in api.events(**body)]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [value for part in streamed for value in part[name]] == logprobs[name]


def test_echo_with_logprobs_scores_the_prompt(api, tales):
    text = "The king had three sons, and the youngest was called"
    answer = api.complete(prompt=text, max_tokens=0, echo=True, logprobs=1).json()
    (choice,) = answer["choices"]
    assert choice["text"] == text and choice["finish_reason"] == "length"
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == text and logprobs["token_logprobs"][0] is None
    ids = tales.tokenizer.encode(text)
    logits = tales.logits(ids)  # in float32, while int8 is served
    for place in range(1, len(ids)):
        row = logits[place - 1].astype(float)
        exact = row[ids[place]] - np.logaddexp.reduce(row)
        assert logprobs["token_logprobs"][place] == pytest.approx(exact, abs=0.15)
    assert answer["usage"]["completion_tokens"] == 0


def test_echo_streams_the_prompt_first(api):
    events = api.events(prompt=[PROMPT, "The king"], max_tokens=2, seed=1, echo=True, logprobs=0)
    texts = ["", ""]
    offsets: list[list[int]] = [[], []]
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        offsets[choice["index"]] += choice["logprobs"]["text_offset"]
    whole = api.complete(prompt=[PROMPT, "The king"], max_tokens=2, seed=1, echo=True, logprobs=0).json()["choices"]
    assert texts == [choice["text"] for choice in whole] and texts[0].startswith(PROMPT)
    assert offsets == [choice["logprobs"]["text_offset"] for choice in whole]


def test_best_of_returns_the_likeliest(api):
    body = {"prompt": [PROMPT, "The fox"], "max_tokens": 12, "seed": 4, "logprobs": 0}
    every = api.complete(**body, n=4).json()["choices"]
    answer = api.complete(**body, n=2, best_of=4).json()
    for prompt in range(2):
        samples = every[4 * prompt : 4 * prompt + 4]
        means = [sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["tokens"]) for c in samples]
        best = [c["text"] for _, c in sorted(zip(means, samples, strict=True), key=lambda pair: -pair[0])][:2]
        assert [c["text"] for c in answer["choices"][2 * prompt : 2 * prompt + 2]] == best
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"]["completion_tokens"] == 8 * 12


def test_max_tokens_defaults_to_what_the_context_has_room_for(api, tales):
    ids = [262] * (tales.config.n_ctx - 3)
    assert api.complete(prompt=ids, ignore_eos=True).json()["usage"]["completion_tokens"] == 3


def test_models_are_listed(api, tales):
    (card,) = api.http.get("/v1/models").json()["data"]
    assert card["id"] == "tales" and card["object"] == "model" and card["max_model_len"] == tales.config.n_ctx
    assert api.http.get("/v1/models/tales").json() == card
    assert api.http.get("/v1/models/gpt-5").status_code == 404


def test_several_models_answer_under_their_names(start, tales):
    import gpt2lab

    exact = gpt2lab.load("tales", precision="float32")
    api = start(models=[("fast", tales), ("exact", exact)])
    assert [card["id"] for card in api.http.get("/v1/models").json()["data"]] == ["fast", "exact"]
    answers = [api.complete(model=name, prompt=PROMPT, max_tokens=4, seed=1).json() for name in ("fast", "exact")]
    assert [answer["model"] for answer in answers] == ["fast", "exact"]
    assert answers[0]["system_fingerprint"] != answers[1]["system_fingerprint"]
    assert api.complete(prompt=PROMPT).json()["model"] == "fast"


def test_tokens_and_back(api, tales):
    text = "The king’s 🦊 said: <|endoftext|>"
    answer = api.http.post("/tokenize", json={"prompt": text}).json()
    assert answer["tokens"] == tales.tokenizer.encode(text) and answer["count"] == len(answer["tokens"])
    assert "token_strs" not in answer
    wanted = {"prompt": text, "add_special_tokens": True, "return_token_strs": True}
    pieces = api.http.post("/tokenize", json=wanted).json()
    assert pieces["tokens"] == answer["tokens"] and pieces["token_strs"][:2] == ["The", " king"]
    assert "bytes:\\xe2\\x80" in pieces["token_strs"]
    back = api.http.post("/detokenize", json={"tokens": answer["tokens"], "model": "tales"})
    assert back.json() == {"prompt": text}


def test_tokens_are_spelled_beside_the_event_loop(api, monkeypatch):
    threads = []

    def spelled(tokenizer, token):
        threads.append(current_thread().name)
        return "x"

    monkeypatch.setattr("gpt2lab.serving.app.spelled", spelled)
    assert (
        api.http.post("/tokenize", json={"prompt": "a b", "return_token_strs": True}).json()["token_strs"] == ["x"] * 2
    )
    assert len(threads) == 2 and all("worker" in name for name in threads)


@pytest.mark.parametrize(
    "path", ["/health", "/", "/docs", "/openapi.json", "/metrics", "/v1/models", "/v1/models/tales",
             "/playground/vocabulary", "/page/main.js", "/watch"],
)  # fmt: skip
def test_head_is_answered_wherever_get_is(api, path):
    get, head = api.http.get(path), api.http.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_metrics_count_tokens_and_requests(api):
    before = api.metric("gpt2lab_drawn_tokens_total"), api.metric("gpt2lab_time_to_first_token_seconds_count")
    api.events(prompt=PROMPT, max_tokens=7, ignore_eos=True)
    assert api.metric("gpt2lab_drawn_tokens_total") == before[0] + 7
    assert api.metric("gpt2lab_time_to_first_token_seconds_count") == before[1] + 1
    assert api.metric("gpt2lab_outstanding_samples") == 0


def test_a_page_says_what_is_served_and_documents_the_api(api):
    docs = api.http.get("/docs").text
    assert "tales" in docs and "/v1/completions" in docs and "best_of" in docs
    assert "http" not in docs.replace("HTTP", "") and "<style" not in docs and "<script" not in docs
    document = api.http.get("/openapi.json").json()
    assert "422" not in str(document["paths"]) and document["info"]["title"] == "gpt2lab"
    assert api.http.get("/health").json() == {"status": "ok"}
