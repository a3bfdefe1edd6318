"""A local HTTP server for download tests: files by path, as OpenAI's bucket or the Hugging Face hub serve them."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOT_FOUND = b"<?xml version='1.0'?><Error><Code>BlobNotFound</Code></Error>"


class Server:
    """A server of ``files`` (path → bytes) that records requests; the other fields make it misbehave."""

    def __init__(self):
        self.files = {}
        self.requests = []  # (method, path, Range header)
        self.ranges = True  # answers Range with 206
        self.cut_after = None  # closes the connection after this number of bytes of a body
        self.cuts = 0  # the number of times left to do so
        self.types = {}  # path → Content-Type
        self.headers = {}  # path → more headers
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._answer(self, body=True)

            def do_HEAD(self):
                outer._answer(self, body=False)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _refusal(self, path):
        """Return the status and the headers with which a path is refused, None if it is served."""
        return None if path in self.files else (404, self.headers.get("404", {}))

    def _answer(self, request, body):
        path, wanted = request.path.split("?")[0], request.headers.get("Range")
        self.requests.append((request.command, path, wanted))
        content = self.files.get(path)
        status, start, headers = 200, 0, dict(self.headers.get(path, {}))
        if (refusal := self._refusal(path)) is not None:
            (status, more), content = refusal, NOT_FOUND
            headers |= more
        elif wanted and self.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-\d*", wanted)[1])
            status = 206 if start < len(content) else 416
            last = f"{start}-{len(content) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {last}/{len(content)}"
            content = content[start:] if status == 206 else b""
        kind = "application/xml" if refusal else self.types.get(path, "application/octet-stream")
        request.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if not body:
            return
        if self.cuts and self.cut_after is not None and len(content) > self.cut_after:
            self.cuts -= 1
            content = content[: self.cut_after]
            request.close_connection = True
        request.wfile.write(content)


def hub_headers(content, large):
    """Return the headers that the hub sends with a file: its commit and, for large-file storage, its SHA-256 as tag."""
    tag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
    headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{tag}"'}
    return headers | ({"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content))} if large else {})
