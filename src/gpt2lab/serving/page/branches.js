/**
 * A text and its branches as data: which tokens were given, chosen and drawn, and the parameters of each draw.
 *
 * Places count from the first token of the prompt, across all choices, so a branch at place 7 shares the seven tokens
 * before it with its parent. Random numbers depend on (seed, stream 0, place) alone, so drawing a run again gives the
 * same tokens. This module knows nothing of the document or the network.
 */

/**
 * @typedef {object} Entry
 * @property {number} id
 * @property {number|null} logprob  natural, under the unmodified model; null if not requested
 * @property {[number, number][]|null} top  the likeliest ids at this place and their log-probabilities
 * @property {"given"|"chosen"|"drawn"} kind
 * @property {Run} run  the run that put it there
 *
 * @typedef {object} Origin
 * @property {string} model
 * @property {string} fingerprint
 * @property {number} contract
 * @property {number} contextSize
 * @property {number} vocabularySize
 * @property {number|null} endOfText  the id before a text without a prompt
 *
 * @typedef {object} Plan
 * @property {Record<string, number>} params  the sampling parameters
 * @property {number|string|null} seed  null for a text that is not drawn yet
 * @property {number} limit  the most tokens to draw
 *
 * @typedef {{parent: Run, place: number, token: number|null, logprob?: number|null}} Beginning  token: null to draw from
 *   that place on; logprob: of the token, if known
 * @typedef {Omit<Beginning, "parent">} At
 * @typedef {{queued: number, prompt: number, drawing: number}} ServerTimings  seconds
 */

/** One stretch of drawn tokens after a prompt, or after a place in another run. */
export class Run {
  /** @type {Run[]} */
  branches = [];
  /** @type {Entry[]} */
  drawn = [];
  /** @type {"new"|"waiting"|"drawing"|"done"|"stopped"|"failed"} */
  state = "new";
  /** The reason of a failure, for the user. @type {string|null} */
  problem = null;
  /** Milliseconds from the request to the first token; from the first to the last so far. @type {number|null} */
  firstTokenMs = null;
  drawingMs = 0;
  /** @type {ServerTimings|null} */
  timings = null;
  /** @type {string|null} */
  fingerprint = null;

  /**
   * @param {BranchTree} tree
   * @param {Plan} plan
   * @param {Beginning|null} from
   */
  constructor(tree, plan, from) {
    this.tree = tree;
    this.plan = plan;
    /** @type {Run|null} */
    this.parent = from?.parent ?? null;
    this.place = from?.place ?? tree.promptIds.length;
    this.token = from?.token ?? null;
    /** @type {Entry[]} the entries before the first drawn one */
    this.inherited = from ? this.#inherit(from) : tree.promptIds.map((id) => entry(id, "given", this));
  }

  /** @param {Beginning} from @returns {Entry[]} */
  #inherit({ parent, place, token, logprob = null }) {
    const before = parent.entries().slice(0, place);
    if (token === null) return before;
    const top = parent.at(place)?.top ?? null;
    const known = top?.find(([id]) => id === token)?.[1];
    return [...before, { ...entry(token, "chosen", this), logprob: known ?? logprob, top }];
  }

  /** Return the number of tokens so far, with the prompt. */
  get length() {
    return this.inherited.length + this.drawn.length;
  }

  /** @param {number} place @returns {Entry|undefined} */
  at(place) {
    return place < this.inherited.length ? this.inherited[place] : this.drawn[place - this.inherited.length];
  }

  /** @returns {Entry[]} */
  entries() {
    return [...this.inherited, ...this.drawn];
  }

  /** Return the prompt of the request that draws this run. */
  get prompt() {
    return [...this.#givenLead, ...this.inherited.map(({ id }) => id)];
  }

  /** The ids before the text that are part of {@link prompt}. */
  get #givenLead() {
    return this.parent && this.inherited.length ? this.tree.leadIds : [];
  }

  /** Return the ids that the model reads before it draws the token at `place`. @param {number} place */
  contextAt(place) {
    return [...this.tree.leadIds, ...this.#idsBefore(place)];
  }

  /** Return those of them that penalties count. @param {number} place */
  historyAt(place) {
    return [...this.ownerOf(place).#givenLead, ...this.#idsBefore(place)];
  }

  /** @param {number} place */
  #idsBefore(place) {
    return this.entries().slice(0, place).map(({ id }) => id);
  }

  /** Return the position of the random number that draws the token at `place`. @param {number} place */
  positionOf(place) {
    return place + this.tree.leadIds.length;
  }

  /**
   * Return the run that owns the token at `place`: a branch there is a branch of that run.
   * @param {number} place @returns {Run}
   */
  ownerOf(place) {
    return this.parent && place < this.inherited.length ? this.parent.ownerOf(place) : this;
  }

  /** Return the number of tokens that still fit into the model's context. */
  get room() {
    return this.tree.origin.contextSize - Math.max(1, this.length + this.tree.leadIds.length);
  }

  get busy() {
    return this.state === "waiting" || this.state === "drawing";
  }

  /** Append drawn tokens. @param {import("./api.js").Token[]} tokens */
  push(tokens) {
    for (const { id, logprob, top } of tokens) this.drawn.push({ id, logprob, top, kind: "drawn", run: this });
  }

  /** Forget the drawn tokens, to draw again. */
  reset() {
    Object.assign(this, { drawn: [], state: "new", problem: null, timings: null });
    Object.assign(this, { firstTokenMs: null, drawingMs: 0, fingerprint: null });
  }

}

/** @param {number} id @param {Entry["kind"]} kind @param {Run} run @returns {Entry} */
function entry(id, kind, run) {
  return { id, logprob: null, top: null, kind, run };
}

/** A prompt, the text after it, and all its branches. */
export class BranchTree {
  /**
   * @param {string} prompt
   * @param {number[]} promptIds
   * @param {Origin} origin
   * @param {Plan} plan
   */
  constructor(prompt, promptIds, origin, plan) {
    this.id = newId();
    this.madeAt = Date.now();
    this.prompt = prompt;
    this.promptIds = promptIds;
    this.origin = origin;
    /** The ids before the first token of a text without a prompt; they are not part of the text. */
    this.leadIds = promptIds.length || origin.endOfText === null ? [] : [origin.endOfText];
    this.root = new Run(this, plan, null);
  }

  /**
   * Add a branch of `run` at `place` that begins with `token`, or with a drawn token if `token` is null.
   * @param {Run} run @param {At} at @param {Plan} plan
   */
  branch(run, { place, token, logprob }, plan) {
    const parent = run.ownerOf(place);
    const made = new Run(this, plan, { parent, place, token, logprob });
    parent.branches.push(made);
    parent.branches.sort((one, other) => one.place - other.place);
    return made;
  }

  /**
   * Return an existing branch that would draw the same, if there is one.
   * @param {Run} run @param {At} at @param {Plan} plan
   */
  found(run, { place, token }, { seed, params }) {
    return run.ownerOf(place).branches.find((branch) => {
      const alike = Object.keys(params).every((name) => branch.plan.params[name] === params[name]);
      return branch.place === place && branch.token === token && String(branch.plan.seed) === String(seed) && alike;
    });
  }

  /** Remove `run`, which is a branch, and its branches; return a function that puts them back. @param {Run} run */
  remove(run) {
    const branches = run.parent?.branches ?? [];
    const at = branches.indexOf(run);
    branches.splice(at, 1);
    return () => {
      branches.splice(at, 0, run);
    };
  }

  /** Return all runs, each after its parent. @returns {Run[]} */
  runs() {
    /** @type {(run: Run) => Run[]} */
    const collect = (run) => [run, ...run.branches.flatMap(collect)];
    return collect(this.root);
  }
}

/** Return an id that no other text has, in any tab. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (word) => word.toString(36)).join("-");
}
