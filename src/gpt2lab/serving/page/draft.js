/**
 * The prompt before anything is written for it: its tokens, and, when the page opens, a few tokens after them, drawn with a
 * fixed seed, so that there is something to look at. A draft is none of the user's texts.
 */

import { draw } from "./stream.js";

const AFTER_MS = 200; // without a key press
const SEED = 1;
const TOKENS = 30;

/** @typedef {import("./branches.js").Run} Run */

export class Draft {
  #state;
  #focus;
  #events;
  #stopping = new AbortController();
  #timer = 0;

  /**
   * @param {import("./page_state.js").PageState} state
   * @param {import("./focus.js").Focus} focus
   * @param {object} events
   * @param {(run: Run) => void} events.changed  a draft has new tokens
   * @param {(run: Run) => void} events.ended
   */
  constructor(state, focus, events) {
    this.#state = state;
    this.#focus = focus;
    this.#events = events;
  }

  /** Show the current prompt, unless a text is on display by then; `alive` draws a few tokens after it. */
  async show({ alive = false } = {}) {
    this.hold();
    this.#stopping = new AbortController();
    const { signal } = this.#stopping;
    const { root } = await this.#state.draft(signal);
    if (signal.aborted || !this.#focus.draft) return;
    this.#focus.display(root, { draft: true });
    if (alive) await this.#enliven(root, signal);
  }

  /** Whether the example for the current prompt and settings is on display, with its tokens. */
  get isCurrent() {
    const { run, draft } = this.#focus;
    return draft && run !== null && !run.busy && run.drawn.length > 0 && this.#state.isCurrent(run);
  }

  /** Call `show` once no more changes come. @param {() => void} show */
  soon(show) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(show, AFTER_MS);
  }

  /** Stop: a text is about to take the draft's place. */
  hold() {
    clearTimeout(this.#timer);
    this.#stopping.abort();
  }

  /** @param {Run} root @param {AbortSignal} signal */
  async #enliven(root, signal) {
    root.plan.seed ??= SEED;
    root.plan.limit = Math.min(TOKENS, root.room);
    if (root.plan.limit < 1) return;
    const problem = await draw(root, { signal, changed: () => this.#events.changed(root) });
    if (problem || root.state === "stopped") root.reset(); // nobody asked for it
    this.#events.ended(root);
  }
}
