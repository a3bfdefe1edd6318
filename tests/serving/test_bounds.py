"""The bounds that keep one client from taking the server's memory, descriptors or event loop from others."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import json
import logging
import re
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

import gpt2lab
import needs
from gpt2lab.cli.serve import command as serve
from gpt2lab.serving import connections, log_limit, settings, worker
from gpt2lab.serving.bodies import Bodies, Gone
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.log_limit import LogLimit
from gpt2lab.serving.protocol import CompletionRequest
from gpt2lab.serving.settings import LARGE_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, Settings

from .conftest import PROMPT, eventually
from .test_faults import LONG

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    parts = [b""]
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


# ---- heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * MAX_HEADERS + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * (4 * MAX_HEAD_BYTES),
    ],
    ids=["long address", "long header", "many headers", "header without an end"],
)
def test_a_head_beyond_its_bound_is_431(api, head):
    with api.raw() as connection:
        with suppress(ConnectionError):  # it may be refused before all is sent
            connection.sendall(head)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert str(MAX_HEAD_BYTES) in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_head_within_its_bounds_is_read_in_any_number_of_pieces(api):
    with api.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        for _ in range(MAX_HEADERS - 2):
            connection.sendall(b"X: " + b"a" * 500 + b"\r\n")
        connection.sendall(b"\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_trailers_count_as_headers(api):
    with api.raw() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        with suppress(ConnectionError):
            connection.sendall(b"X: a\r\n" * MAX_HEADERS + b"\r\n")
        assert b" 200 " not in received(connection)
    assert api.idle()


def test_a_request_that_is_no_http_is_answered_as_an_error(api):
    with api.raw() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"not a valid HTTP request" in answer


def test_a_client_that_leaves_with_requests_sent_ahead_frees_what_the_first_held(api):
    data = json.dumps(LONG).encode()
    with api.raw() as connection:
        connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert eventually(lambda: api.worker.outstanding == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert api.idle(2), "its sample runs on"


def test_requests_that_are_sent_ahead_are_answered_in_turn(api):
    with api.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * MAX_PIPELINED)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert received(connection).count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1


def test_requests_that_are_sent_ahead_are_bounded(api):
    data = json.dumps(LONG).encode()
    with api.raw() as connection:
        connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert eventually(lambda: api.worker.outstanding == 1)
        with suppress(ConnectionError):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * (MAX_PIPELINED + 2))
        assert received(connection) == b""  # no other answer is written into the first one
    assert api.idle(2)


# ---- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {f"unknown_{n}": 0 for n in range(1000)},
        {"prompt": PROMPT, "stream_options": {f"unknown_{n}": 0 for n in range(1000)}},
    ],
    ids=["of the request", "of an object in it"],
)
def test_of_many_unknown_fields_one_is_an_error(body):
    with pytest.raises(ValueError, match="unknown_0") as error:
        CompletionRequest.model_validate(body)
    assert error.value.error_count() == 1


def test_known_fields_are_checked_beside_an_unknown_one(api):
    assert "unknown" in api.complete(prompt=PROMPT, n=1, unknown=1).text


async def reading(bodies: Bodies, n_bytes: int, ends: bool, held: asyncio.Event) -> int:
    """The length of a body of ``n_bytes``, held until ``held`` is set; or the status with which it is refused."""
    messages = [{"type": "http.request", "body": b"x" * n_bytes, "more_body": not ends}]

    async def receive():
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    with bodies.one() as body:
        try:
            length = len(await body.read(Headers(), receive))
        except ApiError as error:
            return error.status
        await held.wait()
        return length


def together(*bodies: tuple[int, bool]) -> list[int]:
    """Return the results for ``bodies`` (length, complete or not) that arrive one after the other and are held."""

    async def main() -> list[int]:
        every, held = Bodies(Settings(body_seconds=0.3)), asyncio.Event()
        tasks = []
        for n_bytes, ends in bodies:
            tasks.append(asyncio.ensure_future(reading(every, n_bytes, ends, held)))
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.4, held.set)
        return await asyncio.gather(*tasks)

    return asyncio.run(main())


LARGE = 1 << 20


def test_a_large_body_takes_the_place_of_the_unfinished_one_that_began_first(monkeypatch):
    monkeypatch.setattr(settings, "MAX_BODIES_BYTES", 4 * LARGE)
    unfinished = (LARGE, False)
    assert together(unfinished, unfinished, unfinished, unfinished, (LARGE, True)) == [503, 408, 408, 408, LARGE]


def test_a_large_body_is_refused_while_complete_ones_fill_the_bound(monkeypatch):
    monkeypatch.setattr(settings, "MAX_BODIES_BYTES", 4 * LARGE)
    assert together(*[(LARGE, True)] * 5) == [LARGE] * 4 + [503]


def test_there_is_always_room_for_a_small_body(monkeypatch):
    monkeypatch.setattr(settings, "MAX_BODIES_BYTES", 4 * LARGE)
    assert together(*[(LARGE, True)] * 4, (LARGE_BODY_BYTES, True))[-1] == LARGE_BODY_BYTES


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": "http.disconnect"}, Gone),
        ({"type": "http.request", "body": b"x" * 2000}, ApiError),
    ],
    ids=["whose client leaves", "that is too long"],
)
def test_a_body_is_freed_at_once(message, error):
    """Freed by the garbage collector, which rarely looks, the bodies of a flood would fill the memory."""

    async def read() -> weakref.ref[Any]:
        async def receive():
            return message

        with Bodies(Settings(max_body_bytes=1000)).one() as body:
            with suppress(error):
                await body.read(Headers(), receive)
            return weakref.ref(body)

    async def main() -> bool:
        body = await read()
        await asyncio.sleep(0)
        return body() is None

    gc.disable()
    try:
        assert asyncio.run(main())
    finally:
        gc.enable()


# ---- answers that are not read ------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_its_answer_is_cut_off(start):
    api = start(Settings(stall_seconds=0.4), send_buffer=4096)
    data = json.dumps({"prompt": "a b c d " * 50_000}).encode()
    head = HEAD.replace(b"/v1/completions", b"/tokenize") + f"Content-Length: {len(data)}\r\n\r\n".encode()
    with api.raw(buffer=4096) as connection:
        connection.sendall(head + data)
        assert b" 200 " in connection.recv(20)
        assert eventually(lambda: not api.server.server_state.connections, 20), "its answer is kept"
        assert len(received(connection)) < len(data)


def test_a_client_that_reads_slowly_gets_its_whole_answer(start):
    api = start(Settings(stall_seconds=1.5), send_buffer=4096)
    data = json.dumps({"prompt": "a b c d" * 5_000}).encode()
    head = HEAD.replace(b"/v1/completions", b"/tokenize") + f"Content-Length: {len(data)}\r\n\r\n".encode()
    answer = b""
    with api.raw(buffer=4096) as connection:
        connection.sendall(head + data)
        began = time.monotonic()
        while b"]}" not in answer:
            part = connection.recv(2048)
            assert part, "it was cut off"
            answer += part
            time.sleep(0.1)
    assert time.monotonic() - began > 1.5
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["tokens"]) > 10_000


def test_answers_that_nobody_reads_are_dropped_beyond_their_bound(start, monkeypatch):
    api = start(send_buffer=4096)
    monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 500_000)
    data = json.dumps({"prompt": "a b c d " * 20_000}).encode()
    head = HEAD.replace(b"/v1/completions", b"/tokenize") + f"Content-Length: {len(data)}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(api.raw(buffer=4096))
            connection.sendall(head + data)
            assert b" 200 " in connection.recv(20)
        assert eventually(lambda: 0 < len(api.server.server_state.connections) < 4)


# ---- connections --------------------------------------------------------------------------------------------------


def test_beyond_their_bound_the_connection_that_waited_longest_is_closed(start):
    api = start(Settings(max_connections=3))
    with ExitStack() as stack:
        idle = [stack.enter_context(api.raw()) for _ in range(6)]
        for connection in idle[:3]:
            assert received(connection) == b""
        idle[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle[-1].recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_refused_while_all_others_are_being_answered(start):
    api = start(Settings(max_connections=2))
    with api.raw({**LONG, "stream": True}) as first, api.raw({**LONG, "stream": True}) as second:
        assert b" 200 " in first.recv(100) and b" 200 " in second.recv(100)
        with api.raw() as third:
            assert received(third).startswith(b"HTTP/1.1 503 ")
    assert api.idle()


@needs.mark("POSIX")
def test_a_server_with_few_descriptors_answers_beside_many_idle_connections():
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "from gpt2lab.cli.main import main\n"
        "sys.argv = ['gpt2lab', 'serve', '--port', '0', '--threads', '1']\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        line = next(line for line in process.stderr if "serving" in line)
        (url,) = re.findall(r"http://\S+", line)
        host, port = url.removeprefix("http://").split(":")
        with ExitStack() as stack:
            for _ in range(600):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            answer = httpx.post(f"{url}/v1/completions", json={"prompt": PROMPT, "max_tokens": 2}, timeout=30)
            assert answer.status_code == 200
            assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 200
        process.terminate()
        log = process.stderr.read()
        assert process.wait(20) == 0
        assert "Traceback" not in log and len(log.splitlines()) < 40
    finally:
        process.kill()
        process.wait()


# ---- memory -------------------------------------------------------------------------------------------------------


def test_an_idle_model_returns_the_memory_of_keys_and_values(start, monkeypatch):
    monkeypatch.setattr(worker, "REST_SECONDS", 0.3)
    model = gpt2lab.load("tales", threads=1)
    api = start(Settings(prompt_cache=0), models=[("tales", model)])
    assert api.complete(prompt=PROMPT, max_tokens=2).status_code == 200
    answer = api.http.post("/playground/logits", json={"tokens": [262] * 100})
    assert answer.status_code == 200
    assert eventually(lambda: model.engine._core.kv_bytes_held == 0)
    assert api.complete(prompt=PROMPT, max_tokens=2).status_code == 200


def test_a_client_that_still_reads_its_answer_is_closed_after_idle_ones():
    closed: list[float] = []

    class Waiting:
        waits = True

        def __init__(self, since: float, unread: int) -> None:
            self.waits_since, self.transport, self.unread = since, self, unread

        def get_write_buffer_size(self) -> int:
            return self.unread

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            closed.append(self.waits_since)

    everyone = connections.Connections(Settings(), 3)
    everyone.open = dict.fromkeys([Waiting(1, 5000), Waiting(2, 0), Waiting(3, 0)])  # type: ignore[arg-type]
    assert everyone._close_waiting(2) == 2 and closed == [2, 3]
    assert everyone._close_waiting(2) == 1 and closed == [2, 3, 1]


def test_one_connection_is_looked_at_to_close_one_of_many():
    looks: list[int] = []

    class Waiting:
        def __init__(self, number: int) -> None:
            self.number, self.transport = number, self

        @property
        def waits(self) -> bool:
            looks.append(self.number)
            return True

        def get_write_buffer_size(self) -> int:
            return 0

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            pass

    first, *others = map(Waiting, range(1000))
    everyone = connections.Connections(Settings(), 1000)
    everyone.open = dict.fromkeys([first, *others])  # type: ignore[arg-type]
    everyone.put_last(first)  # type: ignore[arg-type]
    assert everyone.take(Waiting(1000)) and looks == [1]  # type: ignore[arg-type]


# ---- the log ------------------------------------------------------------------------------------------------------


def test_a_warning_that_comes_again_and_again_is_left_out_and_counted(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(log_limit, "time", SimpleNamespace(monotonic=lambda: now))
    limit = LogLimit()

    def line(message: str, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("x", level, __file__, 1, message, (5,), None)
        return record.getMessage() if limit.filter(record) else None

    lines = [line("no %d") for _ in range(30)]
    assert [each for each in lines if each] == ["no 5"] * log_limit.BURST
    assert line("another %d") == "another 5"
    assert all(line("a request %d", logging.INFO) for _ in range(30))
    now += log_limit.SECONDS
    assert line("no %d") == "no 5 (20 more in the last 60 s were left out)"
    assert line("no %d") == "no 5"


def passed(limit: LogLimit, messages: Iterable[str], error: Callable[[], object] | None = None) -> int:
    """Return how many of ``messages``, each with the error that ``error()`` raises, are logged."""
    count = 0
    for message in messages:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, (), None)
        try:
            _ = error and error()
        except Exception:
            record.exc_info = sys.exc_info()
        count += limit.filter(record)
    return count


def test_an_exception_in_one_place_is_one_kind_whatever_its_message():
    limit = LogLimit()
    assert passed(limit, (f"failed: {'y' * n}" for n in range(50)), lambda: 1 / 0) == log_limit.BURST
    assert passed(limit, ["failed"], lambda: {}["x"]) == 1
    assert passed(limit, ["failed"], lambda: int("x")) == 1


@pytest.mark.parametrize(
    "message",
    ["Task was destroyed\ntask: {0}", "transport {0} at 0x7f{0}", "got 'a{0}'", '"{0}"', "<Task name={0}>", " {0}"],
)
def test_a_varied_message_is_one_kind(message):
    assert passed(LogLimit(), (message.format(n) for n in range(50))) == log_limit.BURST


def test_kinds_of_messages_are_bounded(monkeypatch):
    limit = LogLimit()
    words = [chr(ord("a") + n // 26) + chr(ord("a") + n % 26) for n in range(26 * 26)]
    assert passed(limit, words) == log_limit.MAX_KINDS + log_limit.BURST
    assert len(limit._seen) <= log_limit.MAX_KINDS + 1
    monkeypatch.setattr(log_limit, "SECONDS", 0)
    assert passed(limit, ["new again"]) == 1 and len(limit._seen) == 2  # it, and the rest of those left out


# ---- the docs -----------------------------------------------------------------------------------------------------

BOUNDS = {  # constant → the beginning of its row in docs/serve.md
    "connections._ON_THE_WIRE": "bytes of a body with the heads",
    "embeddings.MAX_TEXTS": "texts of a request for embeddings",
    "errors._LONGEST": "characters of an error's message",
    "fields.MAX_BIASES": "keys of `logit_bias`",
    "fields.MAX_PROMPTS": "prompts of a request",
    "fields.MAX_STOPS": "stop strings",
    "fields.MAX_STOP_CHARACTERS": "characters of a stop string",
    "inside.MAX_PARTS": "heads, MLPs or positions",
    "log_limit.BURST": "warnings of one kind",
    "log_limit.MAX_KINDS": "kinds of warnings",
    "protocol.MAX_LOGPROBS": "likeliest tokens",
    "server.KEEP_ALIVE_SECONDS": "seconds in which a client sends its next request",
    "server.LINGER_SECONDS": "seconds in which clients read the rest",
    "server.PENDING_CONNECTIONS": "connections that the system holds",
    "server.SPARE_DESCRIPTORS": "open connections",
    "settings.DISCARDED_BYTES": "bytes of a body |",
    "settings.LARGE_BODY_BYTES": "bytes of bodies over",
    "settings.MAX_BODIES_BYTES": "bytes of bodies over",
    "settings.MAX_HEADERS": "headers of a request",
    "settings.MAX_HEAD_BYTES": "bytes of a first line",
    "settings.MAX_PIPELINED": "requests sent on a connection",
    "settings.MAX_UNREAD_BYTES": "bytes of answers",
    "watch.curve.MOST_ROWS": "points of a curve",
    "watch.files.CHUNK": "bytes of a line",
    "watch.files.LONGEST_SAMPLES": "bytes of a file of samples",
    "watch.files.MOST_SAMPLES": "steps of a run",
    "watch.routes.MOST_WATCHERS": "pages that show",
    "watch.routes.THREADS": "threads that read",
    "watch.described._LONGEST_REASON": "characters of the reason",
    "watch.described._MOST_BYTES": "bytes of a run's `settings.json`",
    "worker.REST_SECONDS": "seconds of idleness",
}
NO_BOUNDS = {  # constants that refuse, cut and close nothing
    "answers.AT_ONCE", "answers._CHARACTERS", "completions.AT_ONCE", "completions.DEFAULT_MAX_TOKENS",
    "connections.FREED_AT_ONCE", "fields.LARGEST_ID", "inside_reader.DIGITS",
    "log_limit.SECONDS", "log_limit._LONGEST", "long_json.PIECE",
    "page_files._MOST", "protocol.MAX_FIELD_CHARACTERS", "server.ACCEPTED_AT_ONCE", "server.GARBAGE_AFTER",
    "server.MAPPED_BYTES", "server.SWITCH_SECONDS", "watch.files._MARK",
    "watch.routes.BEAT_SECONDS", "watch.routes.LOOK_SECONDS", "watch.routes.REST_SECONDS", "watch.run.QUIET_PACES",
    "watch.run.QUIET_SECONDS",
    "watch.run.RECENT", "watch.described._LARGEST", "watch.described._MOST_STEPS",
}  # fmt: skip


def numbers_of_serving() -> dict[str, float]:
    """Return the numbers that the modules of gpt2lab.serving define, by module and name."""
    folder = Path(settings.__file__).parent
    found = {}
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        module = importlib.import_module(f"gpt2lab.serving.{name}")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [each for node in tree.body if isinstance(node, ast.Assign) for each in node.targets]
        names = [each.id for each in targets if isinstance(each, ast.Name) and each.id.isupper()]
        values = {each: getattr(module, each) for each in names}
        found |= {f"{name}.{each}": value for each, value in values.items() if type(value) in (int, float)}
    return found


def table_of_bounds() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    return [line for line in text.partition("## Limits")[2].partition("\n\n##")[0].splitlines() if line[:2] == "| "]


def test_the_docs_list_every_option_that_bounds_something():
    rows = [[cell.strip() for cell in line.split("|")] for line in table_of_bounds()]
    defaults = {option.strip("`"): default for _, _, default, option, _, _ in rows if option.startswith("`--")}
    options = [option for option in serve.params if getattr(option, "group", None) == "Limits"]
    assert set(defaults) == {option.opts[0] for option in options}
    for option in options:
        if isinstance(option.default, int | float):
            assert f"{option.default:,.0f}" in defaults[option.opts[0]], option.opts


def test_every_number_of_the_server_is_in_the_table_of_bounds_or_is_none():
    numbers = numbers_of_serving()
    assert set(numbers) == {*BOUNDS, *NO_BOUNDS}
    for name, beginning in BOUNDS.items():
        rows = [line for line in table_of_bounds() if line.startswith(f"| {beginning}")]
        assert len(rows) == 1, (name, beginning)
        assert re.search(rf"(?<![\d,]){numbers[name]:,.0f}(?!,?\d)", rows[0]), (name, numbers[name], rows[0])
