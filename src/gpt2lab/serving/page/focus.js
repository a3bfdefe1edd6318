/**
 * The page's focus: the run on display, whether it is only a draft of the prompt, and the inspected place in it. Only
 * the transitions below change it. This module knows nothing of the document, of models, or of how runs are drawn.
 */

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} State
 * @property {Run | null} run  on display; null if there is none
 * @property {boolean} draft  the run is not one of the texts: it only shows the prompt
 * @property {{run: Run, place: number} | null} at  the place inspected last; it stays when another run is displayed
 * @property {boolean} pinned  the place stays while the pointer moves
 * @property {boolean} chosen  the user has inspected a place of this run, so no place is suggested any more
 */

export class Focus {
  /** @type {Readonly<State>} */
  #state = Object.freeze({ run: null, draft: true, at: null, pinned: false, chosen: false });
  #displayed;
  #looked;

  /**
   * @param {object} events
   * @param {() => void} events.displayed  a run is put on display, even if it was there already
   * @param {() => void} events.looked  a place is inspected, pinned or unpinned
   */
  constructor({ displayed, looked }) {
    this.#displayed = displayed;
    this.#looked = looked;
  }

  get run() {
    return this.#state.run;
  }

  get draft() {
    return this.#state.draft;
  }

  get at() {
    return this.#state.at;
  }

  get pinned() {
    return this.#state.pinned;
  }

  /** Return the place inspected last. */
  get place() {
    return this.#state.at?.place ?? null;
  }

  /**
   * Put `run` on display, with nothing pinned or chosen.
   * @param {Run | null} run @param {{draft?: boolean}} [kind]
   */
  display(run, { draft = run === null } = {}) {
    this.#set({ run, draft, pinned: false, chosen: false });
    this.#displayed();
  }

  /** Turn the draft on display into one of the texts. */
  keep() {
    this.#set({ draft: this.run === null });
  }

  /** Inspect `place` in passing: a pinned place stays. @param {number} place */
  point(place) {
    if (!this.#state.pinned) this.#look(place, { chosen: true });
  }

  /** Inspect `place` and pin it. @param {number} place */
  pin(place) {
    this.#look(place, { pinned: true, chosen: true });
  }

  /** Pin `place`, or unpin it if it is pinned. @param {number} place */
  toggle(place) {
    if (this.#state.pinned && this.place === place) this.unpin();
    else this.pin(place);
  }

  /** Unpin the place, so that the pointer changes it again. */
  unpin() {
    this.#set({ pinned: false });
    this.#looked();
  }

  /** Put a draft like the run on display in its place; {@link revisit} inspects the place in it. @param {Run} run */
  follow(run) {
    this.#set({ run, draft: true });
  }

  /** Inspect the place inspected last in the run on display, or its end. */
  revisit() {
    const { run, at } = this.#state;
    if (run && at) this.#look(Math.min(at.place, run.length), {});
  }

  /** Inspect `place` unless the user has chosen one. @param {number} place */
  suggest(place) {
    if (!this.#state.chosen) this.#look(place, {});
  }

  /** @param {number} place @param {Partial<State>} changes */
  #look(place, changes) {
    this.#set({ ...changes, at: this.run && { run: this.run, place } });
    this.#looked();
  }

  /** @param {Partial<State>} changes */
  #set(changes) {
    this.#state = Object.freeze({ ...this.#state, ...changes });
  }
}
