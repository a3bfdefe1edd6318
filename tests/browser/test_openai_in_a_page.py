"""OpenAI's JavaScript client, from npm, in a page of another origin."""

from __future__ import annotations

import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

import gpt2lab
import needs

pytestmark = [pytest.mark.nightly, needs.mark("npm")]

PACKAGE = "openai@6"

SCRIPT = """async (server) => {
    const { default: OpenAI } = await import('/node_modules/openai/index.mjs');
    const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: 'any', dangerouslyAllowBrowser: true, maxRetries: 0 });
    const body = { model: 'tales', prompt: 'Once upon a time', max_tokens: 8, seed: 1 };
    const whole = await client.completions.create(body);
    let streamed = '';
    for await (const chunk of await client.completions.create({ ...body, stream: true }))
        streamed += chunk.choices[0].text;
    return [whole.choices[0].text, streamed, whole._request_id];
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def guess_type(self, path):
        return "text/javascript" if path.endswith(".mjs") else super().guess_type(path)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The origin of a page beside which the client lies."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,"><title>A page</title>')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=280)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_client_completes_and_streams_where_cors_allows_its_page(new_page, serve, complaints, origin):
    complaints.forgive("a request left the origin")
    page = new_page(origin)
    page.goto("/index.html")
    whole, streamed, name = page.evaluate(SCRIPT, serve("--cors", origin))
    assert whole == streamed == gpt2lab.load("tales").generate("Once upon a time", length=8, seed=1).text
    assert name.startswith("req-")


def test_the_client_gets_nothing_where_cors_does_not(new_page, server, complaints, origin):
    complaints.forgive("a request left the origin")
    complaints.forgive("CORS")
    complaints.forgive("Failed to load resource")
    page = new_page(origin)
    page.goto("/index.html")
    with pytest.raises(Exception, match="Connection error"):
        page.evaluate(SCRIPT, server)
