"""A shared text comes out the same, token for token, or the page reports that it does not."""

from __future__ import annotations

import base64
import json

import pytest

from gpt2lab.version import CONTRACT

from .playground import branch, show, text, visit, write

pytestmark = pytest.mark.slow


def shared(page):
    """Return the link to the story on display."""
    page.click("#share")
    return page.input_value("#link")


def packed(link):
    code = link.partition("#")[2]
    return json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))


def hashed(story):
    return "/#" + base64.urlsafe_b64encode(json.dumps(story).encode()).decode().rstrip("=")


def told(page, words):
    page.locator("[role=alert]", has_text=words).wait_for()


@pytest.fixture
def link(page):
    """Provide a link to a text of a warm temperature, with a branch and a branch of that."""
    visit(page, prompt="Der König, 王, said:", temperature=1.3, top_k=50, seed="9007199254740993")
    write(page)
    branch(page, 5, 1)
    branch(page, 9, 0)
    return shared(page)


def test_a_link_replays_text_and_branches_exactly(page, new_page, link):
    texts = []
    for n in range(3):
        show(page, n)
        texts.append(text(page))
    other = new_page()
    other.goto(link)
    told(other, "All 3 texts are the same as when it was shared, token for token.")
    for n in range(3):
        show(other, n)
        assert text(other) == texts[n]
    assert other.input_value("#prompt") == "Der König, 王, said:"
    assert other.locator("[data-figure=seed]").text_content() == "9007199254740993"


def test_a_link_made_with_other_weights_says_so(page, new_page, link):
    story = packed(link) | {"fingerprint": "fp_000000000000"}
    other = new_page()
    other.goto(hashed(story))
    told(other, "It was made with tales (fp_000000000000), which this server does not have")


def test_a_link_made_under_another_contract_says_so_in_one_line(page, new_page, link):
    other = new_page()
    other.goto(hashed(packed(link) | {"contract": 7, "fingerprint": "fp_000000000000"}))
    told(
        other, f"It was made under version 7 of gpt2lab's contract, and this server has version {CONTRACT}. All 3 texts"
    )


def test_a_link_from_before_contracts_had_versions_still_opens(page, new_page, link):
    story = {name: value for name, value in packed(link).items() if name != "contract"}
    other = new_page()
    other.goto(hashed(story | {"fingerprint": "fp_000000000000"}))
    told(
        other, f"It was made under version 1 of gpt2lab's contract, and this server has version {CONTRACT}. All 3 texts"
    )


def test_a_text_that_comes_out_otherwise_is_not_called_the_same(new_page, page, link):
    story = packed(link) | {"check": [24, "00000000"]}
    other = new_page()
    other.goto(hashed(story))
    told(other, "1 of 3 texts differ.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpt2lab": 99}, "It was made by another version of gpt2lab."),
        ({"branches": [{"parent": 5}]}, "It is damaged, or not a gpt2lab story."),
        ({"settings": {"temperature": -1}}, "It is damaged, or not a gpt2lab story."),
        ({"contract": "2"}, "It is damaged, or not a gpt2lab story."),
    ],
)
def test_a_damaged_link_is_refused_in_a_sentence(page, change, words):
    story = {"gpt2lab": 1, "model": "tales", "fingerprint": "fp_0", "prompt": "A", "seed": 1, "max_tokens": 5}
    visit(page, hashed({**story, "settings": {}, "check": [0, ""], "branches": [], **change}))
    told(page, f"This link cannot be opened. {words}")
    page.locator("#tokens .given").first.wait_for()


def test_a_file_replays_as_a_link_does(page, new_page, link, tmp_path):
    with page.expect_download() as download:
        page.click("#save")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert len(json.loads(file.read_text(encoding="utf-8"))["texts"]) == 3
    other = visit(new_page())
    other.set_input_files("#file", file)
    told(other, "All 3 texts are the same as when it was shared, token for token.")


def test_a_file_that_holds_no_story_is_refused_in_a_sentence(page):
    visit(page)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a story"})
    told(page, "notes.txt cannot be opened. It is damaged, or not a gpt2lab story.")


def test_a_model_of_that_fingerprint_is_found_under_another_name(pair_server, new_page):
    page = new_page(pair_server)
    visit(page, model="tiny", max_tokens=8)
    write(page)
    story = packed(shared(page)) | {"model": "another name"}
    other = new_page(pair_server)
    other.goto(hashed(story))
    told(other, "The text is the same as when it was shared")
    assert other.input_value("#model") == "tiny"
