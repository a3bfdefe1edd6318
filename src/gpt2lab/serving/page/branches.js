/**
 * A text and its branches, as data: which tokens were given, chosen and drawn, and from what each was drawn.
 *
 * Places are counted from the first token of the prompt, through every choice, so that a branch at place 7 shares the
 * seven tokens before it with its parent. Random numbers depend on (seed, stream 0, place) alone, so drawing a run once
 * more gives the same tokens. Knows nothing of the document or the network.
 */

/**
 * @typedef {object} Entry
 * @property {number} id
 * @property {number|null} logprob  natural, under the model itself; null where it has not been asked for
 * @property {[number, number][]|null} top  the likeliest ids at this place and their log-probabilities
 * @property {"given"|"chosen"|"drawn"} kind
 * @property {Run} run  the run that put it there
 *
 * @typedef {object} Origin
 * @property {string} model
 * @property {string} fingerprint
 * @property {number} contextSize
 * @property {number|null} endOfText  the id before a text that begins from nothing
 *
 * @typedef {object} Plan
 * @property {Record<string, number>} params  how tokens are drawn
 * @property {number|string|null} seed  null for a text that is not drawn yet
 * @property {number} limit  tokens to draw at most
 *
 * @typedef {{parent: Run, place: number, token: number|null, logprob?: number|null}} Beginning  token null: drawn on from
 *   that place; logprob of the token, where it is known
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
  /** Why it failed, for a reader. @type {string|null} */
  problem = null;
  /** Milliseconds from asking to the first token; from the first to the last so far. @type {number|null} */
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
    /** @type {Entry[]} what it begins with */
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

  /** Tokens so far, prompt and all. */
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

  /** What the server is asked to go on from. */
  get prompt() {
    const ids = this.inherited.map(({ id }) => id);
    return this.parent && ids.length ? [...this.tree.leadIds, ...ids] : ids;
  }

  /**
   * What the server is asked for the logits of `place`: `ids`, of which the last `drawn` were drawn and not given,
   * which other kernels may have computed. Penalties count the same ids.
   * @param {number} place
   */
  questionAt(place) {
    const owner = this.ownerOf(place);
    const drawn = owner.drawn.slice(0, Math.max(0, place - owner.inherited.length)).map(({ id }) => id);
    return drawn.length || place === owner.inherited.length
      ? { ids: [...owner.prompt, ...drawn], drawn: drawn.length }
      : { ids: owner.prompt.slice(0, place), drawn: 0 };
  }

  /** The position of the random number that draws the token at `place`. @param {number} place */
  positionOf(place) {
    return place + this.tree.leadIds.length;
  }

  /**
   * Whose text the token at `place` is: a branch there is a branch of that run.
   * @param {number} place @returns {Run}
   */
  ownerOf(place) {
    return this.parent && place < this.inherited.length ? this.parent.ownerOf(place) : this;
  }

  /** How many tokens may still come within the model's context. */
  get room() {
    return this.tree.origin.contextSize - Math.max(1, this.length + this.tree.leadIds.length);
  }

  get busy() {
    return this.state === "waiting" || this.state === "drawing";
  }

  /** Take drawn tokens. @param {import("./api.js").Token[]} tokens */
  push(tokens) {
    for (const { id, logprob, top } of tokens) this.drawn.push({ id, logprob, top, kind: "drawn", run: this });
  }

  /** Forget what was drawn, to draw it anew. */
  reset() {
    Object.assign(this, { drawn: [], state: "new", problem: null, timings: null });
    Object.assign(this, { firstTokenMs: null, drawingMs: 0, fingerprint: null });
  }

}

/** @param {number} id @param {Entry["kind"]} kind @param {Run} run @returns {Entry} */
function entry(id, kind, run) {
  return { id, logprob: null, top: null, kind, run };
}

/** A prompt, the text after it, and all that branched off. */
export class BranchTree {
  /**
   * @param {string} prompt
   * @param {number[]} promptIds
   * @param {Origin} origin
   * @param {Plan} plan
   */
  constructor(prompt, promptIds, origin, plan) {
    this.prompt = prompt;
    this.promptIds = promptIds;
    this.origin = origin;
    /** What stands before the first token and is no part of the text, where a text begins from nothing. */
    this.leadIds = promptIds.length || origin.endOfText === null ? [] : [origin.endOfText];
    this.root = new Run(this, plan, null);
  }

  /**
   * A branch of `run` at `place`, where `token` is chosen, or drawn if it is null.
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
   * A branch that is there already and would draw the same, if there is one.
   * @param {Run} run @param {At} at @param {Plan} plan
   */
  found(run, { place, token }, { seed, params }) {
    return run.ownerOf(place).branches.find((branch) => {
      const alike = Object.keys(params).every((name) => branch.plan.params[name] === params[name]);
      return branch.place === place && branch.token === token && String(branch.plan.seed) === String(seed) && alike;
    });
  }

  /** Take `run`, which is a branch, and its branches out. @param {Run} run */
  remove(run) {
    const branches = run.parent?.branches ?? [];
    branches.splice(branches.indexOf(run), 1);
  }

  /** All runs, each after its parent. @returns {Run[]} */
  runs() {
    /** @type {(run: Run) => Run[]} */
    const collect = (run) => [run, ...run.branches.flatMap(collect)];
    return collect(this.root);
  }
}
