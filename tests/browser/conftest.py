"""A headless Chromium, and ``gpt2lab serve`` beside it in a separate process.

``page`` opens nothing yet: ``page.goto("/")`` reaches the server of ``tales``. If a page logs an error, throws, or
sends a request to another origin, its test fails at the end. Without Playwright or a Chromium the tests are skipped.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import needs

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
PATIENCE_MS = 30_000  # for a busy machine
CHROMIUM_FLAGS = (
    "--no-sandbox",  # containers have no user namespaces
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    if here:
        needed = needs.mark("fastapi", "uvicorn", "playwright", "axe_playwright_python", "Chromium")
        for item in here:
            item.add_marker(needed)


class Complaints:
    """The problems of a browser's pages, in words; ``forgive(part)`` ignores those that contain ``part``."""

    def __init__(self) -> None:
        self._all: list[str] = []
        self._forgiven: list[str] = []

    def watch(self, context: Any, origin: str) -> None:
        def asked(request: Any) -> None:
            if not request.url.startswith((origin + "/", "data:", "blob:", "about:")):
                self._all.append(f"a request left the origin: {request.method} {request.url}")

        def said(message: Any) -> None:
            if message.type == "error":
                self._all.append(f"on the console: {message.text} ({message.location.get('url', '')})")

        context.on("request", asked)
        context.on("console", said)
        context.on("weberror", lambda problem: self._all.append(f"thrown: {problem.error}"))

    def forgive(self, part: str) -> None:
        self._forgiven.append(part)

    def check(self) -> None:
        """Fail the test if there are problems, and clear the list."""
        left = [each for each in self._all if not any(part in each for part in self._forgiven)]
        self._all.clear()
        if left:
            pytest.fail("the page misbehaved:\n" + "\n".join(left))


# ---- processes: as long as the tests of this folder run --------------------------------------------------------------


@pytest.fixture(scope="package")
def serve(_own_cache: None) -> Iterator[Callable[..., str]]:
    """Provide ``serve(*arguments)``, which starts ``gpt2lab serve`` on a free port, once, and returns the URL."""
    running: dict[tuple[str, ...], tuple[str, subprocess.Popen[str]]] = {}

    def begin(*arguments: str) -> str:
        if arguments not in running:
            running[arguments] = _started(arguments)
        return running[arguments][0]

    yield begin
    for _, process in running.values():
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # without waiting for running requests
    for _, process in running.values():
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(arguments: tuple[str, ...]) -> tuple[str, subprocess.Popen[str]]:
    return served([sys.executable, "-m", "gpt2lab", "serve", *arguments])


def served(command: list[str], **how: Any) -> tuple[str, subprocess.Popen[str]]:
    """Start a server with ``command`` as ``how`` says; return its URL and its process."""
    command = [*command, "--port", "0", "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", **how)
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"serving .* on (http://\S+)", line):
            Thread(target=_empty, args=(process.stderr,), daemon=True).start()
            return found[1], process
    raise AssertionError(f"{command} ended with {process.wait()}: {''.join(said)}")


def _empty(pipe: Any) -> None:
    """Read a process's output, because a process whose output nobody reads stops at a full pipe."""
    for _ in pipe:
        pass


@pytest.fixture(scope="package")
def server(serve: Callable[..., str]) -> str:
    """Provide the URL of a server of ``tales``."""
    return serve()


@pytest.fixture(scope="package")
def pair_server(serve: Callable[..., str]) -> str:
    """Provide the URL of a server of two models with one vocabulary: ``tales``, and ``tiny`` with random weights."""
    return serve("--model_name", "tales", "--model_name", str(GOLDEN / "tiny"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Provide Chromium, not for the whole session: while Playwright's loop runs, no test may call ``asyncio.run``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=needs.chromium(), args=list(CHROMIUM_FLAGS))
        yield started
        started.close()


# ---- pages: one test ------------------------------------------------------------------------------------------------


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Provide the problems of this test's pages, which are checked when it ends."""
    collected = Complaints()
    yield collected
    collected.check()


@pytest.fixture
def new_page(browser: Any, complaints: Complaints, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Provide ``new_page(url=…, width=…, height=…, **options)``: a page with its own profile, and with ``complaints``.

    ``url`` is the server that addresses are relative to, by default that of ``tales``; ``options`` are those of
    Playwright's ``new_context``, e.g. ``color_scheme="dark"``, ``has_touch=True``, ``reduced_motion="reduce"``.
    """
    contexts = []

    def begin(url: str | None = None, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        base = url or request.getfixturevalue("server")
        context = browser.new_context(base_url=base, viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        complaints.watch(context, base)
        return context.new_page()

    yield begin
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Any]) -> Any:
    """Provide a page 1280 pixels wide, of the server of ``tales``."""
    return new_page()


@pytest.fixture(scope="package")
def _plain_page(browser: Any, server: str) -> Iterator[tuple[Any, Complaints]]:
    """Provide one page for all tests of single modules: a page for each takes longer than most of them."""
    with closing(browser.new_context(base_url=server)) as context:
        context.set_default_timeout(PATIENCE_MS)
        collected = Complaints()
        collected.watch(context, server)
        page = context.new_page()
        page.goto("/docs")  # any page of the origin
        yield page, collected


@pytest.fixture
def evaluate(_plain_page: tuple[Any, Complaints]) -> Iterator[Callable[..., Any]]:
    """Provide ``evaluate(module, script, argument)``, which calls the function ``script`` on a module of the page.

    For modules that need no document: ``evaluate("sampling.js", "(m, p) => m.entropy(p)", [0.5, 0.5])``.
    """
    page, collected = _plain_page

    def run(module: str, script: str, argument: Any = None) -> Any:
        call = f"async (a) => {{ const m = await import('/page/{module}'); return await ({script})(m, a); }}"
        return page.evaluate(call, argument)

    yield run
    collected.check()


@pytest.fixture
def expect() -> Any:
    """Provide a patient ``expect``: ``page.wait_for_function`` needs ``eval``, which the page's CSP forbids."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    return expect
