/**
 * What the page looks at: the run on display, whether it is only a draft of the prompt, and the place in it that is looked
 * into. All of it changes by the transitions below alone. Knows nothing of the document, of models, or of how runs are drawn.
 */

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} State
 * @property {Run | null} run  on display; null if there is none
 * @property {boolean} draft  the run is none of the texts: it shows what the prompt would begin
 * @property {{run: Run, place: number} | null} at  the place looked into last; it stays when another run is displayed
 * @property {boolean} pinned  the place stays while the pointer wanders
 * @property {boolean} chosen  a user has looked into a place of this run, so none is suggested any more
 */

export class Focus {
  /** @type {Readonly<State>} */
  #state = Object.freeze({ run: null, draft: true, at: null, pinned: false, chosen: false });
  #displayed;
  #looked;

  /**
   * @param {object} events
   * @param {() => void} events.displayed  a run is put on display, even if it was there already
   * @param {() => void} events.looked  a place is looked into, pinned or let go
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

  /** The place looked into last. */
  get place() {
    return this.#state.at?.place ?? null;
  }

  /**
   * Put `run` on display: nothing is pinned or chosen there.
   * @param {Run | null} run @param {{draft?: boolean}} [kind]
   */
  display(run, { draft = run === null } = {}) {
    this.#set({ run, draft, pinned: false, chosen: false });
    this.#displayed();
  }

  /** The draft on display has become one of the texts. */
  keep() {
    this.#set({ draft: this.run === null });
  }

  /** A user looks into `place` in passing: a pinned one stays. @param {number} place */
  point(place) {
    if (!this.#state.pinned) this.#look(place, { chosen: true });
  }

  /** A user looks into `place`, which is to stay. @param {number} place */
  pin(place) {
    this.#look(place, { pinned: true, chosen: true });
  }

  /** Pin `place`, or let it go if it is pinned. @param {number} place */
  toggle(place) {
    if (this.#state.pinned && this.place === place) this.unpin();
    else this.pin(place);
  }

  /** Let the place go with the pointer. */
  unpin() {
    this.#set({ pinned: false });
    this.#looked();
  }

  /** Look into `place` unless a user has chosen one. @param {number} place */
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
