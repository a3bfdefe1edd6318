"""The tree of branches, by keyboard as ARIA's pattern prescribes."""

from __future__ import annotations

import pytest

from .playground import branch, show, text, visit, write

pytestmark = pytest.mark.slow


@pytest.fixture
def grown(page):
    """Provide a page with a text, two branches of it, and a branch of the first; the second branch is on display."""
    write(visit(page))
    branch(page, 4, 0)
    branch(page, 8, 0)
    show(page, 0)
    branch(page, 6, 0)
    return page


def focused(page):
    return page.evaluate("() => document.activeElement.querySelector('.label')?.textContent")


def labels(page):
    return page.locator("[role=treeitem] > .row .label").all_text_contents()


def test_branches_stand_under_the_text_they_left(grown):
    levels = [each.get_attribute("aria-level") for each in grown.locator("[role=treeitem]").all()]
    assert levels == ["1", "2", "3", "2"]
    assert "→" in labels(grown)[1]
    assert grown.locator("[role=treeitem][aria-selected=true] > .row .label").text_content() == labels(grown)[3]


def test_the_arrow_keys_go_through_the_tree(grown):
    names = labels(grown)
    grown.locator("[role=treeitem][tabindex='0']").focus()
    assert grown.locator("[role=treeitem][tabindex='0']").count() == 1
    for key, name in (
        ("Home", names[0]),
        ("ArrowDown", names[1]),
        ("ArrowRight", names[2]),
        ("ArrowLeft", names[1]),
        ("End", names[3]),
        ("ArrowLeft", names[0]),
    ):
        grown.keyboard.press(key)
        assert focused(grown) == name, key


def test_a_branch_folds_and_unfolds(grown):
    names = labels(grown)
    grown.locator("[role=treeitem][tabindex='0']").focus()
    grown.keyboard.press("Home")
    grown.keyboard.press("ArrowDown")
    grown.keyboard.press("ArrowLeft")
    assert labels(grown) == [names[0], names[1], names[3]]
    assert focused(grown) == names[1]
    grown.keyboard.press("ArrowRight")
    assert labels(grown) == names


def test_enter_puts_a_branch_on_display(grown):
    there = text(grown)
    grown.locator("[role=treeitem][tabindex='0']").focus()
    grown.keyboard.press("Home")
    grown.keyboard.press("Enter")
    grown.locator("[role=treeitem][aria-level='1'][aria-selected=true]").wait_for()
    assert text(grown) != there
    assert focused(grown) == labels(grown)[0]


def test_a_branch_removed_takes_its_own_branches_along(grown):
    show(grown, 1)
    grown.click("#remove")
    grown.locator("[role=treeitem]").nth(1).wait_for()
    assert len(labels(grown)) == 2
    show(grown, 0)
    grown.click("#remove")
    grown.locator("#no-branches").wait_for()
    grown.locator("#teach").wait_for()
