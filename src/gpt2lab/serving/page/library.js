/**
 * Keeps the texts of this tab: writes each one that changed to the browser's storage, brings all of them back when the page
 * is opened, and remembers which one was on display. Removed texts can be put back.
 */

import { Stories, recordOf, treeOf } from "./stories.js";
import { keep, kept } from "./tab_storage.js";

const WRITE_AFTER_MS = 400;
const ON_DISPLAY = "gpt2lab.display"; // in sessionStorage: each tab has its own

/**
 * @typedef {import("./branches.js").BranchTree} BranchTree
 * @typedef {import("./branches.js").Run} Run
 */

export class Library {
  #stories = new Stories();
  #state;
  /** @type {Set<BranchTree>} */
  #changed = new Set();
  #timer = 0;
  /** @type {(() => void)[]} */
  #removed = [];

  /** @param {import("./page_state.js").PageState} state */
  constructor(state) {
    this.#state = state;
    document.addEventListener("visibilitychange", () => this.#write());
    addEventListener("pagehide", () => this.#write());
  }

  /**
   * Bring back the texts of earlier visits, except those whose tokens no served model can spell.
   * @returns {Promise<{run: Run | null, unknown: number}>}  the run that was on display, or else the newest text; how many
   *   texts have to wait for their model
   */
  async restore() {
    const { cards, trees } = this.#state;
    const sizes = new Set(cards.map((card) => card.gpt2lab.n_vocab));
    const records = await this.#stories.all();
    const found = records.filter(({ origin }) => sizes.has(origin.vocabularySize)).map(treeOf);
    trees.unshift(...found);
    return { run: this.#lastShown() ?? found[found.length - 1]?.root ?? null, unknown: records.length - found.length };
  }

  /** Write `tree` soon, if it is one of the texts. @param {BranchTree} tree */
  changed(tree) {
    if (!this.#state.trees.includes(tree)) return;
    this.#changed.add(tree);
    if (!this.#timer) this.#timer = setTimeout(() => this.#write(), WRITE_AFTER_MS);
  }

  /** Remember that `run` is on display. @param {Run} run */
  displayed(run) {
    const { tree } = run;
    this.changed(tree);
    if (this.#state.trees.includes(tree)) keep(ON_DISPLAY, `${tree.id} ${tree.runs().indexOf(run)}`);
  }

  /** Remove `run` with its branches. @param {Run} run */
  remove(run) {
    const { tree } = run;
    const back = this.#state.remove(run);
    this.#removed.push(() => {
      back();
      this.changed(tree);
    });
    if (run.parent) this.changed(tree);
    else {
      this.#changed.delete(tree);
      this.#stories.delete(tree.id);
    }
  }

  get canUndo() {
    return this.#removed.length > 0;
  }

  /** Put back the last removed texts or branches. */
  undo() {
    this.#removed.pop()?.();
  }

  #lastShown() {
    const [id, number] = (kept(ON_DISPLAY) ?? "").split(" ");
    return this.#state.trees.find((tree) => tree.id === id)?.runs()[Number(number)] ?? null;
  }

  #write() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const records = [...this.#changed].map(recordOf);
    this.#changed.clear();
    if (records.length) this.#stories.put(records);
  }
}
