/**
 * All texts and their branches as a tree view; the arrow keys follow ARIA's pattern for tree views. This module knows
 * nothing of how runs are drawn.
 */

import { around, element } from "./elements.js";
import { madeBy } from "./provenance.js";
import { textOf, tokenName } from "./vocabulary.js";

/** @typedef {import("./branches.js").Run} Run */
/** @typedef {import("./branches.js").BranchTree} BranchTree */

const SNIPPET_TOKENS = 14;

export class TreeView {
  #host;
  #open;
  #vocabularyOf;
  /** @type {Map<Run, HTMLElement>} */
  #items = new Map(); // of the visible runs, from top to bottom
  #folded = new WeakSet();
  /** @type {Run | null} */
  #stop = null; // the run at the tab stop
  /** @type {[BranchTree[], Run | null]} */
  #last = [[], null];

  /**
   * @param {HTMLElement} host
   * @param {{open(run: Run): void, vocabularyOf(tree: BranchTree): string[]}} with_
   */
  constructor(host, { open, vocabularyOf }) {
    this.#host = host;
    this.#open = open;
    this.#vocabularyOf = vocabularyOf;
    host.addEventListener("click", (event) => this.#clicked(event));
    host.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** Show `trees`, of which `current` is the run on display. @param {BranchTree[]} trees @param {Run | null} current */
  show(trees, current) {
    this.#last = [trees, current];
    const focused = this.#host.contains(document.activeElement);
    if (!focused) this.#stop = current;
    this.#items.clear();
    this.#host.replaceChildren(...trees.map(({ root }) => this.#item(root, 1, current)));
    if (!this.#stop || !this.#items.has(this.#stop)) this.#stop = current ?? this.#runs[0] ?? null;
    const stop = this.#stop && this.#items.get(this.#stop);
    if (!stop) return;
    stop.tabIndex = 0;
    if (focused) stop.focus();
  }

  get #runs() {
    return [...this.#items.keys()];
  }

  /** @param {Run} run @param {number} depth @param {Run | null} current */
  #item(run, depth, current) {
    const selected = String(run === current);
    const item = element("li", { role: "treeitem", "aria-level": depth, "aria-selected": selected, tabindex: -1 });
    this.#items.set(run, item);
    item.append(this.#row(run));
    if (!run.branches.length) return item;
    const open = !this.#folded.has(run);
    item.setAttribute("aria-expanded", String(open));
    const group = element("ul", { role: "group" });
    if (open) group.append(...run.branches.map((branch) => this.#item(branch, depth + 1, current)));
    item.append(group);
    return item;
  }

  /** @param {Run} run */
  #row(run) {
    const twist = element("span.twist", { "aria-hidden": "true" });
    const by = madeBy(run);
    const made = element("span.by", { title: by }, run.parent && sameMaker(run, run.parent) ? "" : by);
    return element(
      "div.row",
      {},
      twist,
      element("span.label", {}, this.#label(run)),
      element("span.snippet", {}, this.#snippet(run)),
      made,
    );
  }

  /** Return a label that sets `run` apart. @param {Run} run */
  #label(run) {
    const vocabulary = this.#vocabularyOf(run.tree);
    if (!run.parent) return run.tree.prompt.trim() ? shortened(run.tree.prompt) : "(no prompt)";
    const there = run.parent.at(run.place);
    const name = (/** @type {number} */ id) => `“${tokenName(vocabulary, id)}”`;
    if (run.token === null) return there ? `${name(there.id)} drawn again, seed ${run.plan.seed}` : "continued";
    return there ? `${name(there.id)} → ${name(run.token)}` : `then ${name(run.token)}`;
  }

  /** @param {Run} run */
  #snippet(run) {
    if (run.state === "waiting") return "waiting …";
    if (run.state === "failed") return run.problem;
    if (!run.drawn.length) return "nothing drawn yet";
    const ids = run.drawn.slice(0, SNIPPET_TOKENS).map(({ id }) => id);
    const text = textOf(this.#vocabularyOf(run.tree), ids).replace(/\s+/g, " ").trim();
    return `${text}${run.drawn.length > SNIPPET_TOKENS ? " …" : ""}`;
  }

  /** @param {Event} event */
  #clicked(event) {
    const run = this.#runOf(event);
    if (!run) return;
    if (around(event, ".twist") && run.branches.length) this.#fold(run, !this.#folded.has(run));
    else {
      this.#stop = run;
      this.#open(run);
    }
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const run = this.#runOf(event);
    if (!run || event.altKey || event.ctrlKey || event.metaKey) return;
    const runs = this.#runs;
    const place = runs.indexOf(run);
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowDown: () => this.#focus(runs[place + 1]),
      ArrowUp: () => this.#focus(runs[place - 1]),
      Home: () => this.#focus(runs[0]),
      End: () => this.#focus(runs[runs.length - 1]),
      ArrowRight: () => (this.#folded.has(run) ? this.#fold(run, false) : this.#focus(run.branches[0])),
      ArrowLeft: () =>
        run.branches.length && !this.#folded.has(run) ? this.#fold(run, true) : this.#focus(run.parent),
      Enter: () => this.#open(run),
      " ": () => this.#open(run),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** @param {Event} event */
  #runOf(event) {
    const item = around(event, "[role=treeitem]");
    return [...this.#items].find(([, other]) => other === item)?.[0];
  }

  /** @param {Run | null} [run] */
  #focus(run) {
    const item = run && this.#items.get(run);
    if (!run || !item) return;
    const old = this.#stop && this.#items.get(this.#stop);
    if (old) old.tabIndex = -1;
    this.#stop = run;
    item.tabIndex = 0;
    item.focus();
  }

  /** @param {Run} run @param {boolean} closed */
  #fold(run, closed) {
    if (closed) this.#folded.add(run);
    else this.#folded.delete(run);
    this.#stop = run;
    this.show(...this.#last);
    this.#focus(run);
  }
}

/** Return whether two runs were made by the same model with the same settings. @param {Run} one @param {Run} other */
function sameMaker(one, other) {
  return madeBy(one) === madeBy(other);
}

/** @param {string} text */
function shortened(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
