/**
 * The text follows the settings: while a slider moves, the text is drawn again with the same seed, and the
 * tokens that change are marked, from the first one that differs. Such a text is a draft; the user's texts stay as they are.
 */

import { BranchTree } from "./branches.js";
import { sameSampling, samplingParams } from "./settings.js";
import { draw } from "./stream.js";

const EVERY_MS = 250; // between two draws
const TOKENS = 60; // of a draw: it has to keep up with the slider

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} Events
 * @property {(run: Run) => boolean} wanted  `run` is to be drawn again with the settings that have changed
 * @property {(run: Run) => void} changed  the draft has new tokens
 */

export class Follower {
  #focus;
  #settings;
  #events;
  /** @type {Run | null} */
  #base = null; // the text that was on display when the first setting changed
  /** @type {Run | null} */
  #shown = null;
  #stopping = new AbortController();
  #timer = 0;
  #last = 0;

  /**
   * @param {import("./focus.js").Focus} focus
   * @param {typeof import("./settings.js").settings} settings
   * @param {Events} events
   */
  constructor(focus, settings, events) {
    this.#focus = focus;
    this.#settings = settings;
    this.#events = events;
    settings.subscribe((now, before) => {
      if (!sameSampling(samplingParams(now), samplingParams(before))) this.#moved();
    });
  }

  /** Stop: another text is about to be drawn or displayed. */
  hold() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#stopping.abort();
  }

  /** Return the text that `run` is compared with; null if it does not follow the settings. @param {Run | null} run */
  baseOf(run) {
    return run !== null && run === this.#shown ? this.#base : null;
  }

  #moved() {
    const { run, draft } = this.#focus;
    if (!run || (run.busy && run !== this.#shown) || run.plan.seed === null) return;
    if (run.parent && run.tree.leadIds.length) return; // its random numbers are counted from a token that is not shown
    const base = draft ? this.baseOf(run) : null;
    if (!this.#events.wanted(base ?? run)) return;
    if (run !== this.#shown) {
      if (!run.drawn.length) return;
      this.#base = run;
    }
    if (!this.#timer) this.#timer = setTimeout(() => this.#draw(), Math.max(0, this.#last + EVERY_MS - performance.now()));
  }

  async #draw() {
    this.hold();
    const base = this.#base;
    if (!base) return;
    this.#last = performance.now();
    this.#stopping = new AbortController();
    const { signal } = this.#stopping;
    const run = again(base, samplingParams(this.#settings.get()));
    const problem = await draw(run, { signal, changed: () => signal.aborted || this.#take(run) });
    if (problem || run.state === "stopped") return;
    this.#focus.revisit();
  }

  /** Put `run` on display once it has tokens: until then, the draw before it stays. @param {Run} run */
  #take(run) {
    if (run !== this.#shown && !run.drawn.length) return;
    if (run !== this.#shown) {
      this.#shown = run;
      this.#focus.follow(run);
    }
    this.#events.changed(run);
  }
}

/** Return a run like `base` with other settings, in a tree of its own. @param {Run} base @param {Record<string, number>} params */
function again(base, params) {
  const { tree, plan, inherited } = base;
  const ids = inherited.map(({ id }) => id);
  const limit = Math.max(1, Math.min(TOKENS, plan.limit, base.drawn.length || TOKENS));
  return new BranchTree(tree.prompt, ids, tree.origin, { ...plan, params, limit }).root;
}

/**
 * Return a sentence that says how many tokens stayed.
 * @param {Run} run @param {Run} base
 */
export function followed(run, base) {
  const at = run.drawn.findIndex(({ id }, place) => id !== base.drawn[place]?.id);
  const same = at < 0 ? run.drawn.length : at;
  if (at < 0) return `With the same seed and these settings, all ${same} tokens stay the same.`;
  if (same === 0) return "With the same seed and these settings, the text differs from its first token on.";
  const stayed = same === 1 ? "the first token stays" : `the first ${same} tokens stay`;
  return `With the same seed and these settings, ${stayed} the same. Those with a line above are new.`;
}
