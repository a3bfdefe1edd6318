from __future__ import annotations

import sys
from types import SimpleNamespace

from gpt2lab.markup import notebook
from notebooks import Kernel


def test_without_ipython_there_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook.shell() is None
    assert "IPython" not in sys.modules


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert notebook.shell() is None
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert notebook.shell() is None


def test_a_kernel_is_a_notebook(monkeypatch):
    kernel = Kernel().install(monkeypatch)
    assert notebook.shell() is kernel


def test_an_output_is_replaced_and_the_next_cell_gets_its_own():
    kernel = Kernel()
    output = notebook.Output(kernel)
    output.show("<b>1</b>", "1")
    output.show("<b>2</b>", "2")
    kernel.execution_count = 2
    output.show("<b>3</b>", "3")
    first, second, third = kernel.published
    assert (first.html, first.text, first.update) == ("<b>1</b>", "1", False)
    assert (second.update, second.display_id) == (True, first.display_id)
    assert not third.update and third.display_id != first.display_id


def test_an_output_is_due_again_after_a_while(monkeypatch):
    now = 100.0
    monkeypatch.setattr(notebook, "monotonic", lambda: now)
    output = notebook.Output(Kernel())
    assert output.is_due
    output.show("", "")
    assert not output.is_due
    now += notebook.INTERVAL
    assert output.is_due
