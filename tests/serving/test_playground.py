"""The parts that the page is made from: its files, a model's card and vocabulary, logits, and tokens as ids."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import gpt2lab
from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines import origin
from gpt2lab.engines.precision import machine_group
from gpt2lab.generation.kept import KeptPrompts
from gpt2lab.generation.sequences import Sequences
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import sample
from gpt2lab.serving import page_files
from gpt2lab.serving.logit_reader import LogitReader
from gpt2lab.serving.models import fingerprint
from gpt2lab.serving.playground import vocabulary_of
from gpt2lab.serving.settings import Settings
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.version import CONTRACT

from .conftest import PROMPT, eventually

IDS = [7454, 2402, 257, 640]  # the prompt's


def ids_of(logprobs):
    return [int(token.removeprefix("token_id:")) for token in logprobs["tokens"]]


def logits_of(api, tokens):
    answer = api.http.post("/playground/logits", json={"tokens": tokens})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream", answer.text
    return np.frombuffer(answer.content, "<f4")


@pytest.fixture(scope="module")
def exact():
    """Provide ``tales`` once more, with an engine that no other server uses."""
    return gpt2lab.load("tales", precision="int8", threads=1)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_the_page_is_served_and_loads_nothing_of_another_origin(api):
    for path, kind in (("/", "text/html"), ("/page/index.html", "text/html"), ("/page/docs.css", "text/css")):
        answer = api.http.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.http.head("/").status_code == 200 and api.http.head("/").content == b""


def test_the_playground_asks_for_all_its_modules_at_once():
    found: set[str] = set()
    wanted = ["main.js"]
    while wanted:
        name = wanted.pop()
        source = page_files.FOLDER / name
        new = name not in found and source.exists()  # stages.js is made, and imports nothing
        wanted += re.findall(r'^(?:import|}).* from "\./(\w+\.js)";', source.read_text("utf-8"), re.M) if new else []
        found.add(name)
    preloaded = re.findall(
        r'"modulepreload" href="page/(\w+\.js)"', (page_files.FOLDER / "index.html").read_text("utf-8")
    )
    assert sorted(preloaded) == sorted(found - {"main.js"})


def test_every_file_of_the_page_has_a_known_kind(api):
    for path in page_files.FOLDER.iterdir():
        answer = api.http.get(f"/page/{path.name}")
        assert answer.status_code == 200, path.name
        assert path.suffix == ".html" or answer.content == path.read_bytes(), path.name


def test_a_page_names_its_files_by_their_content_and_browsers_keep_those(api):
    page = api.http.get("/").text
    address = re.search(r'src="(page/main\.js\?v=\w{32})"', page)[1]
    imports = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page)[1])["imports"]
    assert imports["./page/main.js"] == f"./{address}"
    assert "immutable" in api.http.get(f"/{address}").headers["cache-control"]
    assert api.http.get("/page/main.js?v=another").headers["cache-control"] == "no-cache"
    assert api.http.get("/").headers["cache-control"] == "no-cache"


def test_the_policy_allows_the_import_map_and_no_other_script_in_the_page(api):
    answer = api.http.get("/")
    text = re.search(r'<script type="importmap">(.*?)</script>', answer.text)[1]
    wanted = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{wanted}';" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/playground/vocabulary"])
def test_files_and_vocabulary_are_compressed_for_those_that_accept_it(api, path):
    plain = api.http.get(path, headers={"Accept-Encoding": "identity"})
    zipped = api.http.get(path, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers and zipped.headers["content-encoding"] == "gzip"
    assert plain.content == zipped.content
    assert int(zipped.headers["content-length"]) < 0.6 * int(plain.headers["content-length"])


def test_the_highest_logits_come_with_one_for_all_others(api):
    row = logits_of(api, IDS).astype(np.float64)
    content = api.http.post("/playground/logits", json={"tokens": IDS, "top": 100}).content
    ids = np.frombuffer(content[:400], "<u4")
    values = np.frombuffer(content[400:], "<f4").astype(np.float64)
    assert (
        len(values) == 101 and (ids == np.argsort(-row, kind="stable")[:100]).all() and (values[:-1] == row[ids]).all()
    )
    others = np.delete(row, ids)
    assert np.exp(others).sum() == pytest.approx(len(others) * np.exp(values[-1]), rel=1e-5)


def test_more_logits_than_there_are_tokens_are_all_of_them(api):
    content = api.http.post("/playground/logits", json={"tokens": IDS, "top": 10**6}).content
    assert len(content) == 50257 * 8 + 4 and np.frombuffer(content[-4:], "<f4")[0] == -np.inf


def test_a_file_that_a_browser_has_is_not_sent_again(api):
    first = api.http.get("/page/docs.css")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    again = api.http.get("/page/docs.css", headers={"If-None-Match": f'"other", W/{etag}'})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == etag
    assert api.http.get("/page/docs.css", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "..%5capp.py", "%2fetc%2fpasswd", "nothing.js", "", ".", "a\0.js"],
)
def test_nothing_but_the_page_s_files_can_be_had(api, path):
    with api.raw() as connection:  # HTTP clients normalise such paths
        path = path.replace("\0", "%00")
        connection.sendall(f"GET /page/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in connection.recv(100)


def test_the_page_s_files_fill_no_log_unless_one_is_missing(api, caplog):
    with caplog.at_level(logging.INFO, "gpt2lab.serving"):
        for path in ("/", "/page/docs.css", "/page/nothing.js", "/health"):
            api.http.get(path)
        assert eventually(lambda: "/health 200" in caplog.text)
    assert "GET / 200" in caplog.text and "GET /page/… 404" in caplog.text and "GET /page/… 200" not in caplog.text


def test_the_page_s_files_need_no_key_and_what_it_asks_for_does(start):
    api = start(Settings(api_keys=("secret",)))
    assert api.http.get("/").status_code == api.http.get("/page/docs.css").status_code == 200
    key = {"Authorization": "Bearer secret"}
    assert api.http.get("/playground/vocabulary").status_code == 401
    assert api.http.get("/playground/vocabulary", headers=key).status_code == 200
    assert api.http.post("/playground/logits", json={"tokens": []}).status_code == 401
    assert api.http.post("/playground/logits", json={"tokens": []}, headers=key).status_code == 200


# ---- cards and vocabulary -------------------------------------------------------------------------------------------


def test_a_card_tells_what_a_model_is(api, tales):
    (card,) = api.http.get("/v1/models").json()["data"]
    facts = card["gpt2lab"]
    assert facts["fingerprint"] == api.complete(prompt=PROMPT, max_tokens=1).json()["system_fingerprint"]
    assert ModelConfig.from_hparams(facts) == tales.config and facts["n_parameters"] == tales.config.n_params
    assert facts["precision"] == tales.precision and facts["end_of_text"] == 50256
    assert facts["contract"] == CONTRACT
    assert facts["switches"] == {}


def test_a_card_tells_which_switches_a_model_has(start, tmp_path):
    import family

    family.save("all", tmp_path / "all", vocab_size=50257)
    server = start(models=[("all", gpt2lab.load(tmp_path / "all", threads=1))])
    (card,) = server.http.get("/v1/models").json()["data"]
    assert card["gpt2lab"]["switches"] == {
        "activation": "gelu", "n_inner": 70, "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False,
        "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True,
    }  # fmt: skip


def test_a_fingerprint_is_the_same_on_every_processor_of_a_group(tales, monkeypatch):
    found = {}
    for isa in _native.instruction_sets():
        monkeypatch.setenv("GPT2LAB_ISA", isa)
        for precision in ("float32", "bfloat16"):
            group = precision, machine_group(precision, isa)
            found.setdefault(group, set()).add(fingerprint(gpt2lab.load("tales", precision=precision)))
    assert all(len(fingerprints) == 1 for fingerprints in found.values())
    assert len(set.union(*found.values())) == len(found)


def test_a_fingerprint_changes_with_the_contract(tales, monkeypatch):
    before = fingerprint(tales)
    monkeypatch.setattr(origin, "CONTRACT", CONTRACT + 1)
    assert fingerprint(tales) != before


def test_the_vocabulary_has_the_bytes_of_every_token(api, tales):
    answer = api.http.get("/playground/vocabulary", params={"model": "tales"})
    body = answer.json()
    assert body["model"] == "tales" and len(body["tokens"]) == tales.config.n_vocab
    for id in (0, 262, 447, 50000, 50256, *range(100, 50000, 997)):
        assert body["tokens"][id].encode("latin-1") == tales.tokenizer.token_bytes(id)
    again = api.http.get("/playground/vocabulary", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert api.http.get("/playground/vocabulary", params={"model": "gpt-5"}).status_code == 404


# ---- logits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [IDS, [], [262] * 400])
def test_logits_are_what_a_completion_draws_its_first_token_from(api, tokens):
    params = {"temperature": 1.3, "top_k": 200, "repetition_penalty": 1.2}
    logits = logits_of(api, tokens)
    answer = api.complete(
        prompt=tokens or "", n=40, seed=3, max_tokens=1, logprobs=1, return_tokens_as_token_ids=True, **params
    )
    for number, choice in enumerate(answer.json()["choices"]):
        position = max(1, len(tokens))
        (id,) = ids_of(choice["logprobs"])
        assert id == sample(logits, SamplingParams(**params), seed=3, stream=number, position=position, history=tokens)
        exact = logits.astype(float)
        logprob = exact[id] - np.logaddexp.reduce(exact)
        assert choice["logprobs"]["token_logprobs"][0] == pytest.approx(logprob, abs=1e-5)


@pytest.mark.parametrize("prompt", [IDS, []], ids=["a prompt", "nothing"])
def test_logits_behind_drawn_tokens_are_those_that_the_next_was_drawn_from(api, prompt):
    body = {"prompt": prompt or "", "max_tokens": 30, "seed": 5, "logprobs": 0, "return_tokens_as_token_ids": True}
    drawn = ids_of(api.complete(**body, ignore_eos=True).json()["choices"][0]["logprobs"])
    for place in (1, 10, 29):
        logits = logits_of(api, (prompt or [50256]) + drawn[:place])
        position = max(1, len(prompt)) + place
        assert drawn[place] == sample(logits, SamplingParams(), seed=5, stream=0, position=position)


def test_logits_come_while_samples_run(api):
    alone = logits_of(api, IDS)
    with ThreadPoolExecutor(5) as clients:
        running = [clients.submit(api.complete, prompt=PROMPT, n=4, max_tokens=60, ignore_eos=True) for _ in range(2)]
        assert eventually(lambda: api.worker.outstanding >= 4)
        rows = [clients.submit(logits_of, api, IDS) for _ in range(3)]
        assert all(np.array_equal(row.result(), alone) for row in rows)
        assert all(answer.result().status_code == 200 for answer in running)
    assert api.idle()


def test_a_client_that_leaves_before_its_logits_holds_nothing(api):
    with ThreadPoolExecutor(1) as clients:
        long = clients.submit(api.complete, prompt=[[262] * 400] * 4, max_tokens=1, echo=True, logprobs=1)
        assert eventually(lambda: api.worker.outstanding == 4)
        body = b'{"tokens": [1]}'
        with api.raw() as connection:
            head = f"POST /playground/logits HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            assert eventually(lambda: api.worker.outstanding == 5)
        assert eventually(lambda: api.worker.outstanding == 4 or not api.worker.outstanding)
        assert long.result().status_code == 200
    assert api.idle() and not api.worker._readings


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tokens": [50257]}, "tokens"),
        ({"tokens": [-1]}, "tokens"),
        ({"tokens": [True]}, "tokens"),
        ({"tokens": "text"}, "tokens"),
        ({"tokens": [262] * 5000}, "tokens"),
        ({}, "tokens"),
        ({"tokens": [1], "top": 0}, "top"),
        ({"tokens": [1], "bottom": 5}, "bottom"),
    ],
)
def test_logits_of_what_is_no_context_are_refused(api, body, param):
    answer = api.http.post("/playground/logits", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_logits_wait_their_turn_and_are_refused_while_draining(start):
    api = start(Settings(max_batch=1, max_waiting=1, max_samples=2))
    with api.raw({"prompt": PROMPT, "n": 2, "max_tokens": 500, "ignore_eos": True}):
        assert eventually(lambda: api.worker.outstanding == 2)
        answer = api.http.post("/playground/logits", json={"tokens": []})
        assert answer.status_code == 429 and "retry-after" in answer.headers
    assert api.idle()
    api.service.draining = True
    assert api.http.post("/playground/logits", json={"tokens": []}).status_code == 503


class Counting:
    """An engine of ``tales`` that counts the tokens it is fed."""

    def __init__(self, engine) -> None:
        self.fed = 0
        self._engine = engine

    def forward(self, sequences, tokens, outputs):
        self.fed += len(tokens[0])
        return self._engine.forward(sequences, tokens, outputs)

    def __getattr__(self, name):
        return getattr(self._engine, name)


def row_of(reading):
    with pytest.raises(StopIteration) as ended:
        while True:
            next(reading)
    return ended.value.value


def first_reading(engine, tokens):
    return row_of(LogitReader(engine, Tokenizer.gpt2(), Sequences(engine)).read(tokens))


def test_looking_around_in_a_text_reads_only_what_is_new(exact):
    """Compare logits with those of a first reading, to the bit; tokens are fed again only where texts diverge."""
    engine = Counting(exact.engine)
    prompts = KeptPrompts(engine, 10**9)  # type: ignore[arg-type]
    reader = LogitReader(engine, Tokenizer.gpt2(), prompts)  # type: ignore[arg-type]
    text, other = list(range(1000, 1300)), [7] * 20
    for tokens, fed in [
        (text[:100], 100),
        (text[:101], 1),
        (text[:300], 199),
        (text[:50], 1),  # what is kept stays
        (text[:299], 1),
        (text[:200] + other, 20),  # a branch
        (text[:210], 1),  # what was read before the branch is still known
        ([5], 1),
    ]:
        before = engine.fed
        row = row_of(reader.read(tokens))
        assert engine.fed - before == fed, len(tokens)
        assert np.array_equal(row, first_reading(exact.engine, tokens))
    prompts.clear()


def test_a_reader_gives_its_sequences_back(exact):
    before = exact.engine.kv_cache_bytes
    prompts = KeptPrompts(exact.engine, 10**9)
    reader = LogitReader(exact.engine, exact.tokenizer, prompts)
    for tokens in ([1, 2, 3], [1, 2], [9] * 40, [1, 5]):
        row_of(reader.read(tokens))
    half = reader.read([8] * 300)
    next(half)
    half.close()  # the client has left
    prompts.clear()
    assert exact.engine.kv_cache_bytes == before


def test_ids_without_text_have_no_logit_and_no_bytes(tales):
    """Check ids of a vocabulary that was rounded up."""
    row = np.zeros((1, 50304), np.float32)
    engine = SimpleNamespace(new_sequence=lambda: 0, forward=lambda *_: row, free_sequence=lambda _: None)
    read = row_of(LogitReader(engine, tales.tokenizer, Sequences(engine)).read([1]))
    assert np.isneginf(read[50257:]).all() and not read[:50257].any()
    model = SimpleNamespace(config=SimpleNamespace(n_vocab=50304))
    served = SimpleNamespace(name="padded", tokenizer=tales.tokenizer, model=model)
    assert json.loads(vocabulary_of(served)[0])["tokens"][50256:] == ["<|endoftext|>", *[""] * 47]


# ---- tokens as ids, and times ---------------------------------------------------------------------------------------


def test_tokens_are_told_as_ids_where_that_is_asked_for(api, tales):
    body = {"prompt": PROMPT, "max_tokens": 8, "seed": 1, "logprobs": 3}
    texts = api.complete(**body).json()["choices"][0]
    ids = api.complete(**body, return_tokens_as_token_ids=True).json()["choices"][0]
    assert ids["text"] == texts["text"]
    assert ids_of(ids["logprobs"]) == tales.generate(PROMPT, length=8, seed=1).tokens
    for name in ("token_logprobs", "text_offset"):
        assert ids["logprobs"][name] == texts["logprobs"][name]
    for top, likeliest in zip(texts["logprobs"]["top_logprobs"], ids["logprobs"]["top_logprobs"], strict=True):
        assert [tales.tokenizer.decode([int(key[9:])]) for key in likeliest] == list(top)


def test_a_prompt_s_tokens_are_told_as_ids_too(api):
    body = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 0, "return_tokens_as_token_ids": True}
    assert ids_of(api.complete(**body).json()["choices"][0]["logprobs"]) == IDS


def test_without_logprobs_there_are_no_tokens_to_tell(api):
    answer = api.complete(prompt=PROMPT, max_tokens=2, return_tokens_as_token_ids=True).json()
    assert answer["choices"][0]["logprobs"] is None


def test_every_token_is_told_as_an_id_as_soon_as_it_is_drawn(api):
    """Send parts of characters, and tokens that may begin a stop string, at once, although their text is held back."""
    body = {"prompt": "It", "max_tokens": 40, "seed": 2, "logit_bias": {"447": 100, "247": 100, "250": 100}}
    body |= {"stop": ["’’’’’’’’’’", "never"], "logprobs": 0, "return_tokens_as_token_ids": True}
    events = api.events(**body)
    counts = [len(event["choices"][0]["logprobs"]["tokens"]) for event in events]
    assert sum(counts) == 40 and set(counts) == {1}
    assert any(not event["choices"][0]["text"] for event in events)


@pytest.mark.parametrize("stream", [False, True])
def test_what_ends_a_sample_is_told_as_an_id(api, tales, stream):
    """Send the end of a text, and the tokens that spelled a stop string, although neither is in the text."""
    body = {"prompt": PROMPT, "seed": 1, "logprobs": 1, "return_tokens_as_token_ids": True, "max_tokens": 20}

    def told(**more):
        if stream:
            *events, last = api.events(**body, **more, stream_options={"include_usage": True})
        else:
            last = api.complete(**body, **more).json()
            events = [last]
        choices = [event["choices"][0] for event in events]
        ids = [id for choice in choices for id in ids_of(choice["logprobs"])]
        return "".join(choice["text"] for choice in choices), ids, last["usage"]["completion_tokens"]

    assert told(logit_bias={"50256": 100}) == ("", [50256], 0)
    sample = tales.generate(PROMPT, length=20, seed=1)
    word = tales.tokenizer.decode([sample.tokens[4]])
    assert told(stop=[word]) == (sample.text[: sample.text.index(word)], sample.tokens[:5], 5)


def test_an_answer_tells_where_its_time_went(api):
    body = {"prompt": [262] * 400, "max_tokens": 20, "ignore_eos": True}
    began = time.perf_counter()
    timings = api.complete(**body).json()["timings"]
    seconds = time.perf_counter() - began
    assert set(timings) == {"queued", "prompt", "drawing"} and all(value >= 0 for value in timings.values())
    assert timings["prompt"] > 0 and timings["drawing"] > 0 and sum(timings.values()) <= seconds
    events = api.events(**body, stream_options={"include_usage": True})
    assert set(events[-1]["timings"]) == set(timings) and all("timings" not in event for event in events[:-1])
    empty = api.complete(prompt=PROMPT, max_tokens=0).json()["timings"]
    assert empty["drawing"] == 0 and math.isfinite(empty["prompt"])


def test_time_in_the_queue_is_told_apart(start):
    api = start(Settings(max_batch=1, max_waiting=8, max_samples=4))
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(api.complete, prompt=PROMPT, max_tokens=150, ignore_eos=True)
        assert eventually(lambda: api.worker.outstanding == 1)
        second = api.complete(prompt=PROMPT, max_tokens=2, ignore_eos=True).json()["timings"]
        running = first.result().json()["timings"]
    assert second["queued"] > second["drawing"] and running["queued"] < running["drawing"]


def test_the_folder_of_the_page_comes_with_the_package():
    from importlib.resources import files

    assert (files(gpt2lab) / "serving" / "page" / "index.html").is_file()
