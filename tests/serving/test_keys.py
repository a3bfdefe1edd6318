"""API keys: the file, what each key may use, and the file read again on SIGHUP."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import httpx
import pytest

import needs
from gpt2lab.errors import UsageError
from gpt2lab.serving import keys as keys_module
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.key_file import KeyLimits, read_key_file
from gpt2lab.serving.keys import Account, Keys
from gpt2lab.serving.settings import KEYS_VARIABLE, Settings, keys_in_environment

from .conftest import PROMPT, eventually
from .test_faults import LONG, begin
from .test_refusals import error_of


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def clock(monkeypatch):
    """A function that lets seconds pass."""
    now = [1000.0]
    # for that module alone: the loops of the servers that run meanwhile would sleep until a wrong time
    monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def seconds_to_wait(account: Account, n_tokens: int) -> int:
    with pytest.raises(ApiError, match="tokens a minute") as caught:
        account.reserve(n_tokens)
    assert caught.value.status == 429
    return int(caught.value.headers["Retry-After"])


# ---- the file --------------------------------------------------------------------------------------------------------


def test_keys_and_limits_come_from_a_file(file):
    file.write_text(
        "# for the team\none\n\n two  requests=2 # comment\n  # three\nfo#ur tokens_per_minute=600 requests=1\n"
    )
    assert read_key_file(str(file)) == {"one": KeyLimits(), "two": KeyLimits(2), "fo#ur": KeyLimits(1, 600)}


def test_keys_come_from_the_environment_too(file, monkeypatch):
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    assert keys_in_environment() == ()
    monkeypatch.setenv(KEYS_VARIABLE, "three, one,")
    file.write_text("one requests=1\ntwo\n")
    keys = Keys(Settings(api_keys=keys_in_environment(), api_key_file=str(file)))
    assert len(keys) == 3
    monkeypatch.setenv(KEYS_VARIABLE, " , ")
    with pytest.raises(UsageError, match="there is no API key in GPT2LAB_API_KEYS"):
        keys_in_environment()


@pytest.mark.parametrize(
    "content",
    ["", "# nothing\n", "schlüssel\n", "two words\n", "key requests=0\n", "key requests=-1\n", "key requests=x\n",
     "key requests=1 requests=2\n", "key tokens_per_minute=1.5\n", "key tokens_per_minute\n", "a\x07b\n",
     "one requests=1\none\n", "requests=1\n"],
)  # fmt: skip
def test_a_file_of_keys_with_a_mistake_starts_no_server(file, content):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="key") as caught:
        Settings(api_key_file=str(file))
    assert str(file) in str(caught.value) and "words" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        Settings(api_key_file=str(file) + "-absent")


def test_a_byte_order_mark_is_no_part_of_a_key(file):
    file.write_bytes(b"\xef\xbb\xbfsecret\n")
    assert list(read_key_file(str(file))) == ["secret"]


# ---- accounts --------------------------------------------------------------------------------------------------------


def test_tokens_come_back_with_time_up_to_those_of_a_minute(clock):
    account = Account(KeyLimits(tokens_per_minute=60))
    account.reserve(50)
    assert seconds_to_wait(account, 20) == 10
    clock(10)
    account.reserve(20)
    clock(1e6)
    account.reserve(60)
    assert seconds_to_wait(account, 1) == 1


def test_tokens_that_were_not_used_are_returned(clock):
    account = Account(KeyLimits(tokens_per_minute=60))
    account.reserve(60).settle(10)
    account.reserve(50)
    assert seconds_to_wait(account, 1) == 1


def test_a_request_for_more_than_a_minute_s_tokens_has_its_turn_and_is_paid_for_later(clock):
    account = Account(KeyLimits(tokens_per_minute=60))
    account.reserve(1)
    assert seconds_to_wait(account, 600) == 1
    clock(1)
    account.reserve(600)
    assert seconds_to_wait(account, 10) == 550


def test_other_limits_leave_what_was_used(clock):
    account = Account(KeyLimits(tokens_per_minute=60))
    account.reserve(50)
    account.change(KeyLimits(tokens_per_minute=120))
    assert seconds_to_wait(account, 80) == 5
    account.change(KeyLimits())
    account.reserve(10**9).settle(5)
    account.change(KeyLimits(tokens_per_minute=60))
    account.reserve(60)


def test_a_lower_limit_locks_no_key_out(clock):
    account = Account(KeyLimits(tokens_per_minute=6000))
    account.reserve(5000).settle(5000)
    account.change(KeyLimits(tokens_per_minute=60))
    account.reserve(10)
    assert seconds_to_wait(account, 10) == 10


def test_no_limit_for_a_while_is_no_debt(clock):
    account = Account(KeyLimits(tokens_per_minute=60))
    running = account.reserve(600)
    account.change(KeyLimits(tokens_per_minute=6))
    assert seconds_to_wait(account, 6) == 600
    running.settle(0)  # what it gives back was counted under the higher limit
    account.reserve(6)
    assert seconds_to_wait(account, 1) == 10


# ---- the server ------------------------------------------------------------------------------------------------------


def test_a_key_has_so_many_requests_at_a_time(start, file):
    file.write_text("small requests=1\nlarge\n")
    api = start(Settings(api_key_file=str(file)))
    body = {**LONG, "stream": True, "n": 32}
    with api.http.stream("POST", "/v1/completions", json=body, headers=bearer("small")) as answer:
        lines = answer.iter_lines()
        next(lines)
        for path, more in (("/v1/completions", {"prompt": "x"}), ("/tokenize", {"prompt": "x"})):
            refused = api.http.post(path, json=more, headers=bearer("small"))
            assert error_of(refused, 429)["code"] == "rate_limit_exceeded" and refused.headers["retry-after"] == "1"
            assert api.http.post(path, json=more, headers=bearer("large")).status_code == 200
        assert api.http.get("/v1/models", headers=bearer("small")).status_code == 200
    assert eventually(
        lambda: api.http.post("/tokenize", json={"prompt": "x"}, headers=bearer("small")).status_code == 200
    )


def test_a_key_has_so_many_tokens_a_minute(start, file):
    file.write_text("small tokens_per_minute=100\n")
    api = start(Settings(api_key_file=str(file)))

    def complete(max_tokens):
        body = {"prompt": PROMPT, "max_tokens": max_tokens, "logit_bias": {"50256": 100}}  # ends at once
        return api.http.post("/v1/completions", json=body, headers=bearer("small"))

    for _ in range(5):
        assert complete(50).json()["usage"]["total_tokens"] == 4  # the rest is returned
    assert error_of(complete(200), 429)["type"] == "rate_limit_error"
    assert int(complete(200).headers["retry-after"]) > 1
    logits = api.http.post("/playground/logits", json={"tokens": [262] * 101}, headers=bearer("small"))
    error_of(logits, 429)


def test_tokens_of_a_client_that_left_are_counted_as_drawn(start, file):
    file.write_text("small tokens_per_minute=300\n")
    api = start(Settings(api_key_file=str(file)))
    body = {**LONG, "max_tokens": 250, "stream": True}
    with api.http.stream("POST", "/v1/completions", json=body, headers=bearer("small")) as answer:
        next(answer.iter_lines())
    assert api.idle()
    short = {"prompt": PROMPT, "max_tokens": 1}
    assert eventually(lambda: api.http.post("/v1/completions", json=short, headers=bearer("small")).status_code == 200)


@needs.mark("POSIX")
def test_sighup_reads_the_file_again_and_a_faulty_file_changes_nothing(file):
    file.write_text("old\nstays requests=1\n")
    process, url = begin("--api_key_file", str(file))

    def status(key: str) -> int:
        return httpx.get(f"{url}/v1/models", headers=bearer(key)).status_code

    try:
        assert (status("old"), status("stays"), status("new")) == (200, 200, 401)
        file.write_text("new\nstays\n")
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: status("new") == 200)
        assert (status("old"), status("stays")) == (401, 200)
        file.write_text("# none\n")
        process.send_signal(signal.SIGHUP)
        assert process.stderr
        assert any("the API keys stay as they were: there is no API key in" in line for line in process.stderr)
        assert (status("new"), status("old")) == (200, 401)
    finally:
        process.kill()
        process.wait()
