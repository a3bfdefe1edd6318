"""Modules of the page that need no document, each by itself."""

from __future__ import annotations

import pytest

from gpt2lab import Tokenizer

TEXTS = ["naïve – 王 🙂\n\tend", "\ufeffmark", "plain"]


def byte_strings(tokens):
    return [token.decode("latin-1") for token in tokens]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_decoded_across_tokens(evaluate, text):
    data = [bytes([byte]) for byte in text.encode()]
    script = """(m, vocabulary) => {
        const decoder = new m.Decoder(vocabulary);
        return vocabulary.map((_, id) => decoder.push(id)).join('') + decoder.rest();
    }"""
    assert evaluate("vocabulary.js", script, byte_strings(data)) == text


def test_bytes_that_are_no_text_are_replaced_as_the_tokenizer_does(evaluate):
    tokenizer = Tokenizer.gpt2()
    ids = [*tokenizer.encode("a 王🙂 b"), 255, 160, 447, 50256, 222]
    data = [tokenizer.token_bytes(id) for id in ids]
    script = "(m, vocabulary) => m.textOf(vocabulary, vocabulary.map((_, id) => id))"
    assert evaluate("vocabulary.js", script, byte_strings(data)) == tokenizer.decode(ids)


def test_labels_show_what_cannot_be_seen(evaluate):
    tokens = [b" king", b"\n\n", b"\t", b"\xe2\x80", b"\x00", "é".encode(), b""]
    labels = evaluate("vocabulary.js", "(m, v) => v.map((_, id) => m.tokenLabel(v, id))", byte_strings(tokens))
    assert labels == ["␣king", "↵↵", "⇥", "\\xE2\\x80", "\\x00", "é", "token 6"]


def test_settings_refuse_what_the_server_would_refuse(evaluate):
    cases = [("temperature", -1), ("top_p", 1.1), ("top_k", 1.5), ("seed", str(2**63)), ("seed", -1), ("max_tokens", 0)]
    script = "(m, cases) => cases.map(([name, value]) => m.isValid(name, value))"
    assert evaluate("settings.js", script, cases) == [False] * len(cases)
    assert (
        evaluate("settings.js", script, [("seed", str(2**63 - 1)), ("seed", None), ("temperature", 100)]) == [True] * 3
    )


def test_stored_settings_that_are_none_are_forgotten(page):
    page.goto("/docs")
    page.evaluate('() => localStorage.setItem(\'gpt2lab.settings\', \'{"temperature": "hot", "top_k": 5, "x": 1}\')')
    page.goto("/docs")
    now = page.evaluate("() => import('/page/settings.js').then(({ settings }) => settings.get())")
    assert (now["temperature"], now["top_k"], "x" in now) == (1, 5, False)


def test_equal_questions_for_logits_are_asked_once(page):
    page.goto("/docs")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    script = """async () => {
        const { logits } = await import('/page/logits.js');
        const leaving = new AbortController();
        const left = logits('tales', [1, 2], { signal: leaving.signal }).catch((problem) => problem.name);
        const both = Promise.all([logits('tales', [1, 2]), logits('tales', [1, 2])]);
        leaving.abort();
        const [one, other] = await both;
        const again = await logits('tales', [1, 2]);
        return [await left, one === other && other === again, one.length];
    }"""
    assert page.evaluate(script) == ["AbortError", True, 50257]
    assert len([url for url in requests if url.endswith("/playground/logits")]) == 1


def test_a_seed_beyond_doubles_reaches_the_server_whole(page):
    page.goto("/docs")
    script = """async () => {
        const { complete } = await import('/page/api.js');
        const ids = [];
        for await (const { tokens } of complete({ prompt: 'The', max_tokens: 4, seed: '9007199254740993' }))
            ids.push(...tokens.map(({ id }) => id));
        return ids;
    }"""
    body = {
        "prompt": "The",
        "max_tokens": 4,
        "seed": 9007199254740993,
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
    }
    answer = page.request.post("/v1/completions", data=body).json()
    tokens = answer["choices"][0]["logprobs"]["tokens"]
    assert [f"token_id:{id}" for id in page.evaluate(script)] == tokens


def test_server_sent_events_are_read_across_chunks_and_what_has_no_data_is_left_out(evaluate):
    script = """async (m, chunks) => {
        const body = new ReadableStream({
            start(controller) {
                for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
                controller.close();
            },
        });
        const events = [];
        for await (const { event, data } of m.serverEvents(body)) events.push([event, data]);
        return events;
    }"""
    chunks = ["event: run\nda", 'ta: {"a": 1}\n', "\n: a comment\n\ndata:2\n\n", "data: cut off"]
    assert evaluate("event_stream.js", script, chunks) == [["run", '{"a": 1}'], ["message", "2"]]
