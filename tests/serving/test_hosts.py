"""The headers Host and Origin: a page of another site cannot use the server, neither as it is nor by DNS rebinding."""

from __future__ import annotations

import json

import httpx
import pytest

from gpt2lab.errors import UsageError
from gpt2lab.serving.hosts import is_loopback
from gpt2lab.serving.settings import Settings

from .conftest import PROMPT
from .test_refusals import error_of

EVIL = {"Host": "evil.example.com:8000"}
PAGE = {"Origin": "http://evil.example.com:8000"}


def status(api, host: str) -> int:
    return api.http.get("/v1/models", headers={"Host": host}).status_code


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/health", "/metrics", "/openapi.json", "/page/main.js", "/v1/models", "/playground/vocabulary",
     "/watch", "/watch/events", "/watch/samples?run=x&step=1", "/nowhere"],
)  # fmt: skip
def test_a_foreign_host_gets_nothing(api, path):
    error = error_of(api.http.get(path, headers=EVIL), 403)
    assert error["code"] == "host_not_allowed" and "--allowed_host evil.example.com" in error["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize", "/playground/logits"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_foreign_host_makes_the_server_do_nothing(api, path, stream):
    drawn = api.metric("gpt2lab_drawn_tokens_total")
    answer = api.http.post(path, json={"prompt": PROMPT, "stream": stream}, headers=EVIL)
    assert error_of(answer, 403)["type"] == "permission_error"
    assert api.metric("gpt2lab_drawn_tokens_total") == drawn


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:8",
     "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:8", "[::FFFF:7f00:1]"],
)  # fmt: skip
def test_a_loopback_address_answers_to_its_names_at_any_port(api, host):
    """A port that ssh forwards is another than the server's."""
    assert status(api, host) == 200


@pytest.mark.parametrize(
    "host",
    ["localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.2", "[::2]", "[::ffff:192.168.1.2]", "0"],
)
def test_what_only_looks_like_its_name_is_refused(api, host):
    assert status(api, host) == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example:localhost", "user@localhost", "[::1", "::1", "localhost:80:80", "localhost evil", "*", "a'b", "%"],
)
def test_a_malformed_host_is_400(api, host):
    error = error_of(api.http.get("/v1/models", headers={"Host": host}), 400)
    assert host in error["message"] and "--allowed_host" not in error["message"]


@pytest.mark.parametrize(
    "host", ["::ffff:127.0.0.1", "[::ffff:127.0.0.5]", "0:0:0:0:0:0:0:1", "127.1.2.3", "localhost"]
)
def test_every_spelling_of_a_loopback_address_is_one(start, host):
    assert is_loopback(host) and not is_loopback("::ffff:192.168.1.2")
    assert status(start(Settings(host=host)), "evil.example.com") == 403


def test_a_request_has_one_host(api):
    for head, expected in {
        "GET /health HTTP/1.1\r\n": b" 400 ",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n": b" 400 ",
        "GET /health HTTP/1.0\r\n": b" 200 ",
    }.items():
        with api.raw() as connection:
            connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
            assert expected in connection.recv(1000)


def test_host_and_allowed_host_add_names(start):
    api = start(Settings(host="127.0.0.5", allowed_hosts=("Proxy.example", "[fe80::1]")))
    for host in ("127.0.0.5:8000", "proxy.example", "PROXY.example.:443", "[fe80::1]:1", "localhost"):
        assert status(api, host) == 200
    assert status(api, "other.example") == 403


def test_any_host_is_allowed_on_request(start):
    assert status(start(Settings(allowed_hosts=("*",))), "evil.example.com") == 200


def test_on_other_addresses_hosts_are_checked_once_some_are_named(start):
    assert status(start(Settings(host="0.0.0.0")), "anything.example") == 200
    api = start(Settings(host="0.0.0.0", allowed_hosts=("gpt2.example",)))
    assert [status(api, host) for host in ("gpt2.example", "10.1.2.3:8000", "[fd00::1]")] == [200] * 3
    assert status(api, "evil.example.com") == 403


def test_a_foreign_page_makes_the_server_do_nothing(api):
    body = {"prompt": PROMPT, "max_tokens": 1}
    error = error_of(api.http.post("/v1/completions", json=body, headers=PAGE), 403)
    assert error["code"] == "origin_not_allowed" and f"--cors {PAGE['Origin']}" in error["message"]
    for origin in ("null", "http://localhost:1", "nonsense", f"https://{api.url.partition('://')[2]}.evil.example"):
        assert api.http.post("/v1/completions", json=body, headers={"Origin": origin}).status_code == 403
    for path in ("/metrics", "/v1/models", "/watch/events", "/watch/samples?run=x&step=1", "/playground/vocabulary"):
        assert api.http.get(path, headers=PAGE).status_code == 403
    for path in ("/health", "/", "/page/main.js"):  # these show nothing, and cost nothing
        assert api.http.get(path, headers=PAGE).status_code == 200


def test_the_server_s_own_page_may_send_requests(api):
    body = {"prompt": PROMPT, "max_tokens": 1}
    assert api.http.post("/v1/completions", json=body, headers={"Origin": api.url}).status_code == 200
    forwarded = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert api.http.post("/v1/completions", json=body, headers=forwarded).status_code == 200


def test_pages_that_cors_or_allowed_host_names_may_send_requests(start):
    api = start(Settings(cors=("http://page.example",), allowed_hosts=("proxy.example",)))
    body = {"prompt": PROMPT, "max_tokens": 1}
    for origin in ("http://page.example", "https://proxy.example", "https://proxy.example:8443"):
        assert api.http.post("/v1/completions", json=body, headers={"Origin": origin}).status_code == 200
    assert api.http.post("/v1/completions", json=body, headers={"Origin": "http://page.example:1"}).status_code == 403
    any_page = start(Settings(cors=("*",)))
    assert any_page.http.post("/v1/completions", json=body, headers={"Origin": "null"}).status_code == 200


def test_case_and_default_port_make_no_other_origin(start):
    api = start(Settings(cors=("HTTP://Page.example:80", "https://page.example:443", "http://other.example:443")))
    body = {"prompt": PROMPT, "max_tokens": 1}

    def answer(origin: str, **headers: str) -> httpx.Response:
        return api.http.post("/v1/completions", json=body, headers={"Origin": origin, **headers})

    for origin in ("http://page.example", "http://page.example:80", "https://PAGE.example", "http://other.example:443"):
        assert answer(origin).status_code == 200
    assert answer("http://page.example").headers["access-control-allow-origin"] == "http://page.example"
    for origin in ("http://other.example", "https://page.example:80", "http://page.example:443"):
        assert answer(origin).status_code == 403
    assert answer("http://localhost", Host="localhost:80").status_code == 200
    assert answer("https://localhost", Host="localhost:80").status_code == 403


def test_a_preflight_with_a_foreign_host_is_refused_too(start):
    api = start(Settings(cors=("*",)))
    asked = {**EVIL, **PAGE, "Access-Control-Request-Method": "POST"}
    assert api.http.options("/v1/completions", headers=asked).status_code == 403


@pytest.mark.parametrize(
    "host", ["", "http://proxy.example", "proxy.example:80", "a b", "proxy.example/x", "*.example"]
)
def test_an_allowed_host_that_no_request_can_name_is_refused(host):
    with pytest.raises(UsageError, match=f"allowed_host must be .*{json.dumps(host)[1:-1].replace('*', '.')}"):
        Settings(allowed_hosts=(host,))


@pytest.mark.parametrize("origin", ["", "page.example", "http://page.example/", "http://a b", "http://page.example/x"])
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(UsageError, match="cors must be an origin"):
        Settings(cors=(origin,))
