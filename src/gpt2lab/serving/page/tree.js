/**
 * All texts and their branches as a tree, in which the arrow keys move as in any other (ARIA's pattern for tree views).
 * Knows nothing of how runs are drawn.
 */

import { textOf, tokenName } from "./vocabulary.js";

const SNIPPET_TOKENS = 14;

export class TreeView {
  #element;
  #open;
  #vocabularyOf;
  #runs = []; // those that can be seen, from top to bottom
  #items = new Map(); // run -> its <li>
  #folded = new WeakSet();
  #stop = null; // the run that Tab leads to
  #last = [[], null];

  /**
   * @param {HTMLElement} element
   * @param {{open(run: object): void, vocabularyOf(tree: object): string[]}} with_
   */
  constructor(element, { open, vocabularyOf }) {
    this.#element = element;
    this.#open = open;
    this.#vocabularyOf = vocabularyOf;
    element.addEventListener("click", (event) => this.#clicked(event));
    element.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** Show `trees`, of which `current` is the run on display. */
  show(trees, current) {
    this.#last = [trees, current];
    const focused = this.#element.contains(document.activeElement);
    if (!focused) this.#stop = current;
    this.#runs = [];
    this.#items.clear();
    this.#element.replaceChildren(...trees.map(({ root }) => this.#item(root, 1, current)));
    if (!this.#items.has(this.#stop)) this.#stop = current ?? this.#runs[0] ?? null;
    const stop = this.#items.get(this.#stop);
    if (!stop) return;
    stop.tabIndex = 0;
    if (focused) stop.focus();
  }

  #item(run, depth, current) {
    const item = document.createElement("li");
    item.setAttribute("role", "treeitem");
    item.setAttribute("aria-level", String(depth));
    item.setAttribute("aria-selected", String(run === current));
    item.tabIndex = -1;
    this.#runs.push(run);
    this.#items.set(run, item);
    item.append(this.#row(run));
    if (!run.branches.length) return item;
    const open = !this.#folded.has(run);
    item.setAttribute("aria-expanded", String(open));
    const group = document.createElement("ul");
    group.setAttribute("role", "group");
    if (open) group.append(...run.branches.map((branch) => this.#item(branch, depth + 1, current)));
    item.append(group);
    return item;
  }

  #row(run) {
    const row = document.createElement("div");
    row.className = "row";
    const twist = document.createElement("span");
    twist.className = "twist";
    twist.setAttribute("aria-hidden", "true");
    const label = document.createElement("span");
    label.className = "label";
    label.textContent = this.#label(run);
    const rest = document.createElement("span");
    rest.className = "snippet";
    rest.textContent = this.#snippet(run);
    row.append(twist, label, rest);
    return row;
  }

  /** What sets `run` apart. */
  #label(run) {
    const vocabulary = this.#vocabularyOf(run.tree);
    if (!run.parent) return run.tree.prompt.trim() ? shortened(run.tree.prompt) : "(from nothing)";
    const there = run.parent.at(run.place);
    const name = (id) => `“${tokenName(vocabulary, id)}”`;
    if (run.token === null) return there ? `${name(there.id)} drawn again, seed ${run.plan.seed}` : "continued";
    return there ? `${name(there.id)} → ${name(run.token)}` : `then ${name(run.token)}`;
  }

  #snippet(run) {
    if (run.state === "waiting") return "waiting …";
    if (run.state === "failed") return run.problem;
    if (!run.drawn.length) return "nothing drawn yet";
    const ids = run.drawn.slice(0, SNIPPET_TOKENS).map(({ id }) => id);
    const text = textOf(this.#vocabularyOf(run.tree), ids).replace(/\s+/g, " ").trim();
    return `${text}${run.drawn.length > SNIPPET_TOKENS ? " …" : ""}`;
  }

  #clicked(event) {
    const run = this.#runOf(event.target);
    if (!run) return;
    if (event.target.closest(".twist") && run.branches.length) this.#fold(run, !this.#folded.has(run));
    else {
      this.#stop = run;
      this.#open(run);
    }
  }

  #pressed(event) {
    const run = this.#runOf(event.target);
    if (!run || event.altKey || event.ctrlKey || event.metaKey) return;
    const place = this.#runs.indexOf(run);
    const actions = {
      ArrowDown: () => this.#focus(this.#runs[place + 1]),
      ArrowUp: () => this.#focus(this.#runs[place - 1]),
      Home: () => this.#focus(this.#runs[0]),
      End: () => this.#focus(this.#runs[this.#runs.length - 1]),
      ArrowRight: () => (this.#folded.has(run) ? this.#fold(run, false) : this.#focus(run.branches[0])),
      ArrowLeft: () =>
        run.branches.length && !this.#folded.has(run) ? this.#fold(run, true) : this.#focus(run.parent ?? undefined),
      Enter: () => this.#open(run),
      " ": () => this.#open(run),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  #runOf(element) {
    const item = element.closest("[role=treeitem]");
    return [...this.#items].find(([, other]) => other === item)?.[0];
  }

  #focus(run) {
    const item = this.#items.get(run);
    if (!item) return;
    const old = this.#items.get(this.#stop);
    if (old) old.tabIndex = -1;
    this.#stop = run;
    item.tabIndex = 0;
    item.focus();
  }

  #fold(run, closed) {
    if (closed) this.#folded.add(run);
    else this.#folded.delete(run);
    this.#stop = run;
    this.show(...this.#last);
    this.#focus(run);
  }
}

function shortened(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
