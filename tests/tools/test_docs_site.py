"""The site has every public name of the API, and no link that leads nowhere."""

from importlib import import_module

import pytest
from docs_site import linked, public, reference

import gpt2lab


def test_every_exported_name_is_in_the_reference():
    assert {name for name in gpt2lab.__all__ if name[0] != "_"} == set(public()["gpt2lab"])
    assert all(f"::: gpt2lab.{name}\n" in reference() for name in public()["gpt2lab"])


@pytest.mark.parametrize("module", sorted(public().keys() - {"gpt2lab"}))
def test_every_name_in_the_reference_exists(module):
    assert all(hasattr(import_module(module), name) for name in public()[module])


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("", "see the rules and [a page](a.md)"),
        ("https://x", "see [the rules](https://x/blob/main/src/r.py) and [a page](a.md)"),
    ],
)
def test_a_link_out_of_the_docs_leads_to_the_repository_if_that_is_known(repository, expected):
    assert linked("see [the rules](../src/r.py) and [a page](a.md)", repository) == expected
