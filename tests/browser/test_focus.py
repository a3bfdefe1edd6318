"""The page's focus: each transition of the one object that holds it."""

from __future__ import annotations

import pytest

BEGIN = """(m, steps) => {
    const events = [];
    const focus = new m.Focus({ displayed: () => events.push('displayed'), looked: () => events.push('looked') });
    for (const [name, ...values] of steps) focus[name](...values);
    const { run, draft, place, pinned, at } = focus;
    return { run, draft, place, pinned, at, events };
}"""


@pytest.fixture
def focus(evaluate):
    """Provide ``focus(("display", "one"), ("pin", 3))``: the state after these transitions; here runs are names."""
    return lambda *steps: evaluate("focus.js", BEGIN, steps)


def test_nothing_is_on_display_at_first(focus):
    assert focus() == {"run": None, "draft": True, "place": None, "pinned": False, "at": None, "events": []}


def test_a_run_on_display_is_one_of_the_texts_unless_it_is_said_to_be_a_draft(focus):
    assert focus(("display", "one"))["draft"] is False
    assert focus(("display", "one", {"draft": True}))["draft"] is True
    assert focus(("display", "one"), ("display", None))["draft"] is True


def test_a_draft_that_is_kept_is_one_of_the_texts(focus):
    assert focus(("display", "one", {"draft": True}), ("keep",))["draft"] is False


def test_pointing_looks_into_a_place_in_passing(focus):
    now = focus(("display", "one"), ("point", 2), ("point", 5))
    assert (now["place"], now["pinned"], now["events"]) == (5, False, ["displayed", "looked", "looked"])


def test_a_pinned_place_stays_while_others_are_pointed_at(focus):
    now = focus(("display", "one"), ("pin", 2), ("point", 5))
    assert (now["place"], now["pinned"], now["events"]) == (2, True, ["displayed", "looked"])


def test_toggling_lets_a_pinned_place_go_and_pins_another(focus):
    assert focus(("display", "one"), ("toggle", 2), ("toggle", 2))["pinned"] is False
    other = focus(("display", "one"), ("toggle", 2), ("toggle", 3))
    assert (other["place"], other["pinned"]) == (3, True)


def test_a_place_let_go_is_left_for_the_next_that_is_pointed_at(focus):
    assert focus(("display", "one"), ("pin", 2), ("unpin",))["place"] == 2
    assert focus(("display", "one"), ("pin", 2), ("unpin",), ("point", 5))["place"] == 5


def test_a_suggestion_gives_way_to_a_users_choice_until_another_run_is_displayed(focus):
    assert focus(("display", "one"), ("suggest", 4))["place"] == 4
    assert focus(("display", "one"), ("point", 2), ("suggest", 4))["place"] == 2
    assert focus(("display", "one"), ("point", 2), ("display", "two"), ("suggest", 4))["place"] == 4


def test_another_run_on_display_keeps_the_last_place_but_not_its_pin(focus):
    now = focus(("display", "one"), ("pin", 2), ("display", "two"))
    assert (now["run"], now["at"], now["pinned"]) == ("two", {"run": "one", "place": 2}, False)
