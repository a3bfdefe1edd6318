"""Texts are kept by the browser: they come back after other pages, reloads and removals."""

from __future__ import annotations

import pytest

from .playground import branch, ended, text, visit, write

pytestmark = pytest.mark.slow

KEPT = """() => new Promise((done) => {
    const request = indexedDB.open('gpt2lab');
    request.onsuccess = () => {
        const all = request.result.transaction('texts').objectStore('texts').getAll();
        all.onsuccess = () => {
            request.result.close();
            done(all.result.map(({ runs }) => runs.map(({ drawn }) => drawn.length)));
        };
    };
})"""


def kept(page, runs):
    """Wait until the browser has kept texts with these numbers of drawn tokens in their runs."""
    for _ in range(200):
        if sorted(page.evaluate(KEPT)) == sorted(runs):
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.evaluate(KEPT))


def test_all_texts_and_branches_come_back_from_another_page(page):
    visit(page)
    for _ in range(2):
        write(page)
    branch(page, 5, 0)
    before = text(page)
    labels = page.locator(".tree .label").all_text_contents()
    page.click("nav >> text=Training")
    page.locator("#run-title").wait_for()
    page.click("nav >> text=Playground")
    page.locator("[role=treeitem]").nth(2).wait_for()
    assert page.locator(".tree .label").all_text_contents() == labels
    assert text(page) == before
    assert page.locator("#tokens .chosen").count() == 1


def test_a_text_is_there_after_a_crash_in_the_middle_of_it(page):
    visit(page, max_tokens=400)
    page.click("#run")
    page.locator("#stop[aria-disabled=false]").wait_for()
    page.wait_for_timeout(1200)
    context = page.context
    page.close()
    page = context.new_page()
    page.goto("/")
    page.locator("[role=treeitem]").wait_for()
    page.locator("#tokens .drawn").first.wait_for()
    page.click("#replay")
    ended(page)


def test_a_removed_text_can_be_put_back(page):
    write(visit(page))
    before = text(page)
    page.click("#remove")
    page.locator("[role=treeitem]").wait_for(state="detached")
    kept(page, [])
    page.click("#undo")
    page.locator("[role=treeitem]").wait_for()
    assert text(page) == before
    assert page.locator("#undo").is_hidden()
    assert page.evaluate("() => document.activeElement.id") == "remove"
    kept(page, [[24]])


def test_a_removed_branch_is_put_back_in_its_place(page):
    write(visit(page))
    branch(page, 3, 0)
    labels = page.locator(".tree .label").all_text_contents()
    page.click("#remove")
    page.locator("[role=treeitem]").nth(1).wait_for(state="detached")
    page.click("#undo")
    page.locator("[role=treeitem]").nth(1).wait_for()
    assert page.locator(".tree .label").all_text_contents() == labels


def test_without_storage_the_page_writes_all_the_same(page):
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: { open() { throw new Error('no') } } })")
    write(visit(page))
    assert page.locator("#tokens .drawn").count() == 24


def test_a_text_that_is_kept_equals_what_was_drawn(evaluate):
    script = """async (m) => {
        const { BranchTree } = await import('/page/branches.js');
        const origin = { model: 'a', fingerprint: 'f', contract: 1, contextSize: 64, vocabularySize: 9, endOfText: 8 };
        const plan = { params: { temperature: 1 }, seed: '9223372036854775807', limit: 3 };
        const tree = new BranchTree('x', [1, 2], origin, plan);
        tree.root.push([{ id: 3, logprob: -1, top: [[3, -1]] }, { id: 4, logprob: -2, top: [] }]);
        tree.root.state = 'done';
        const branch = tree.branch(tree.root, { place: 3, token: 5, logprob: -3 }, { ...plan, seed: 2 });
        branch.push([{ id: 6, logprob: -4, top: [] }]);
        branch.state = 'drawing';
        const back = m.treeOf(structuredClone(m.recordOf(tree)));
        return [m.recordOf(tree), m.recordOf(back), back.runs().map((run) => run.state)];
    }"""
    before, after, states = evaluate("stories.js", script)
    assert before == after
    assert states == ["done", "stopped"]


def test_a_text_that_the_page_cannot_read_hides_no_other(page):
    write(visit(page))
    before = text(page)
    page.click("nav >> text=Training")
    page.locator("#run-title").wait_for()
    page.evaluate(
        """() => new Promise((done) => {
            const request = indexedDB.open('gpt2lab');
            request.onsuccess = () => {
                const transaction = request.result.transaction('texts', 'readwrite');
                transaction.objectStore('texts').put({ id: 'odd', madeAt: 1, runs: [] });
                transaction.oncomplete = () => { request.result.close(); done(null); };
            };
        })"""
    )
    page.click("nav >> text=Playground")
    page.locator("[role=treeitem]").wait_for()
    assert text(page) == before


def test_the_page_works_where_the_browser_forbids_storage(page):
    page.add_init_script(
        """for (const name of ['sessionStorage', 'localStorage', 'indexedDB'])
            Object.defineProperty(window, name, { get() { throw new DOMException('forbidden', 'SecurityError'); } });"""
    )
    page.goto("/")
    page.locator("html[data-ready]").wait_for()
    write(page)
    assert text(page)
