"""A stand-in for IPython in a notebook's kernel, and a reader of the HTML that notebooks get."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any


class Kernel:
    """IPython's shell in a kernel, as far as gpt2lab uses it; ``published`` lists what was shown."""

    def __init__(self) -> None:
        self.kernel = object()
        self.execution_count = 1
        self.display_pub = self
        self.published: list[SimpleNamespace] = []

    def publish(self, data: dict[str, str], *, transient: dict[str, str], update: bool) -> None:
        self.published.append(
            SimpleNamespace(html=data["text/html"], text=data["text/plain"], update=update, **transient)
        )

    def install(self, monkeypatch: Any) -> Kernel:
        """Pretend that this program runs in the kernel."""
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: self))
        return self


class Elements(HTMLParser):
    """A parser that collects elements, attributes and text, and finds elements that are not closed in order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def values(self, name: str) -> list[str | None]:
        """Return the values of the attributes called ``name``."""
        return [value for key, value in self.attributes if key == name]
