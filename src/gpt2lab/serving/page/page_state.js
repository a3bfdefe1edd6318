/**
 * The user's actions on texts: draw one, branch off, continue, go back and forth, draw again, open a shared text.
 * Holds the texts with their branches and reports changes; the {@link Focus} decides which run is on display.
 * Shows nothing itself.
 */

import { tokenize } from "./api.js";
import { withKey } from "./api_key.js";
import { BranchTree } from "./branches.js";
import { busyText } from "./patience.js";
import { checkOf } from "./permalink.js";
import { newSeed, sameSampling, samplingParams } from "./settings.js";
import { draw } from "./stream.js";

/** The error for an impossible action; its message is for the user. */
export class Hindrance extends Error {}

/**
 * @typedef {import("./branches.js").Run} Run
 * @typedef {import("./branches.js").Plan} Plan
 * @typedef {import("./api.js").ModelCard} ModelCard
 * @typedef {import("./permalink.js").Part} Part
 */

export class PageState {
  /** @type {BranchTree[]} */
  trees = [];
  /** @type {ModelCard[]}  the served models, as `/v1/models` lists them */
  cards = [];
  #settings;
  #focus;
  #events;
  #stopping = new AbortController();
  /** @type {Run[]} */
  #visited = [];
  #at = -1; // index into #visited

  /**
   * @param {typeof import("./settings.js").settings} settings
   * @param {import("./focus.js").Focus} focus
   * @param {object} events
   * @param {(run: Run) => void} events.changed  a run has new tokens or another state
   * @param {(run: Run, problem: Error|null) => void} events.ended
   * @param {(text: string) => void} events.say
   */
  constructor(settings, focus, events) {
    this.#settings = settings;
    this.#focus = focus;
    this.#events = events;
  }

  /** Return the chosen model, or the first. */
  get card() {
    return this.cards.find(({ id }) => id === this.#settings.get().model) ?? this.cards[0];
  }

  get busy() {
    return this.trees.some((tree) => tree.runs().some((run) => run.busy));
  }

  /** Return whether `run` is one of the texts and branches; removed ones are not. @param {Run} run */
  holds(run) {
    return this.trees.includes(run.tree) && run.tree.runs().includes(run);
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  /** Make a tree, not drawn yet, of the current prompt and settings. @param {AbortSignal} [signal] */
  async draft(signal) {
    const { prompt, seed } = this.#settings.get();
    const { card } = this;
    const ids = await withKey(() => tokenize(card.id, prompt, { signal }));
    return new BranchTree(prompt, ids, originOf(card), this.#plan(seed));
  }

  /** Return whether `run` was drawn for the current model, prompt, settings and seed. @param {Run} run */
  isCurrent({ tree, plan }) {
    const now = this.#settings.get();
    const same = tree.origin.model === this.card.id && tree.prompt === now.prompt && plan.seed === now.seed;
    return same && sameSampling(plan.params, samplingParams(now));
  }

  /** Draw a text for the prompt. */
  async start() {
    this.#events.say("Reading the prompt …");
    const tree = await this.draft();
    tree.root.plan = this.#plan();
    this.#fit(tree.root);
    this.trees.push(tree);
    this.open(tree.root);
    this.#events.say("Drawing …");
    await this.draw(tree.root);
  }

  /** Return whether the server has the model of `run`. @param {Run} run */
  serves(run) {
    return this.cards.some(({ id }) => id === run.tree.origin.model);
  }

  /** Return a served model that spells the tokens of `tree`. @param {BranchTree} tree @returns {string} */
  speller({ origin: { model, vocabularySize } }) {
    const alike = this.cards.filter(({ gpt2lab }) => gpt2lab.n_vocab === vocabularySize);
    return (alike.find(({ id }) => id === model) ?? alike[0])?.id ?? model;
  }

  /**
   * Branch off `run`.
   * @param {Run} run
   * @param {object} at
   * @param {number} at.place
   * @param {number|null} at.token  the token to put there; null draws one, with a new seed if a token is there already
   * @param {number|null} [at.logprob]  of the token, if known
   */
  async branch(run, at) {
    const { place, token } = at;
    const { tree } = run;
    if (!this.trees.includes(tree)) {
      tree.root.plan.seed ??= newSeed();
      this.trees.push(tree);
      this.#focus.keep();
    }
    const again = token === null && place < run.length;
    const plan = this.#plan(again ? newSeed() : (this.#settings.get().seed ?? run.plan.seed));
    const found = tree.found(run, at, plan);
    if (found) {
      this.open(found);
      return;
    }
    const made = tree.branch(run, at, plan);
    try {
      this.#fit(made);
    } catch (problem) {
      tree.remove(made);
      throw problem;
    }
    this.open(made);
    this.#events.say("Drawing …");
    await this.draw(made);
  }

  /** Draw `run` and report the result. {@link stop} stops it. @param {Run} run */
  async draw(run) {
    const { signal } = this.#stopping;
    const problem = await this.#drawn(run, signal);
    this.#events.ended(run, problem);
    return problem;
  }

  /**
   * Draw `run` again, and return whether the result is the same; null if it did not reach its end.
   * @param {Run} run
   */
  async replay(run) {
    const [n, sum] = checkOf(run);
    const { drawn, state } = run;
    const { limit } = run.plan;
    const problem = await this.draw(run);
    if (problem || run.state === "stopped") {
      Object.assign(run, { drawn, state });
      run.plan.limit = limit; // a stopped draw lowers it to the number of tokens drawn
      this.#events.changed(run);
      return null;
    }
    const [again, sumAgain] = checkOf(run);
    return n === again && sum === sumAgain;
  }

  /** @param {Run} run @param {AbortSignal} signal */
  async #drawn(run, signal) {
    const options = {
      signal,
      changed: () => this.#events.changed(run),
      busy: (/** @type {number} */ seconds) => this.#events.say(busyText(seconds)),
    };
    /** @type {import("./api.js").ApiError | null} */
    let problem = null;
    try {
      await withKey(async () => {
        problem = await draw(run, options);
        if (problem?.status === 401) throw problem;
      });
    } catch (refused) {
      if (refused !== problem) throw refused;
    }
    return problem;
  }

  /** Stop all drawing; the tokens drawn so far stay. */
  stop() {
    this.#stopping.abort();
    this.#stopping = new AbortController();
  }

  /** @param {Plan["seed"]} [seed] @returns {Plan} */
  #plan(seed = this.#settings.get().seed ?? newSeed()) {
    const now = this.#settings.get();
    return { params: samplingParams(now), seed, limit: now.max_tokens };
  }

  /** Limit the request to the room in the model's context. @param {Run} run */
  #fit(run) {
    if (run.room < 1) {
      const size = run.tree.origin.contextSize;
      throw new Hindrance(`There is no room left: this model reads at most ${size} tokens, and the text has ${run.length}.`);
    }
    run.plan.limit = Math.min(run.plan.limit, run.room);
  }

  // ---- navigation -------------------------------------------------------------------------------------------------

  /** Put `run` on display. @param {Run} run */
  open(run) {
    if (run !== this.#focus.run) {
      this.#visited.splice(this.#at + 1, Infinity, run);
      this.#at = this.#visited.length - 1;
    }
    this.#focus.display(run);
  }

  /** Return whether {@link go} can go back (`step` -1) or forth (1). @param {number} step */
  canGo(step) {
    return this.#at + step >= 0 && this.#at + step < this.#visited.length;
  }

  /** Go back (`step` -1) or forth (1) in the visited runs. @param {number} step */
  go(step) {
    if (!this.canGo(step)) return;
    this.#at += step;
    this.#focus.display(this.#visited[this.#at]);
  }

  /** Remove `run` and its branches; return a function that puts them back and on display. @param {Run} run */
  remove(run) {
    const gone = new Set([run, ...below(run)]);
    const at = this.trees.indexOf(run.tree);
    const back = run.parent ? run.tree.remove(run) : () => this.trees.splice(at, 0, run.tree);
    if (!run.parent) this.trees.splice(at, 1);
    const here = this.#visited.slice(0, this.#at + 1).filter((each) => !gone.has(each));
    this.#visited = this.#visited.filter((each) => !gone.has(each));
    this.#at = here.length - 1;
    const next = run.parent ?? this.trees[this.trees.length - 1]?.root ?? null;
    if (next) this.open(next);
    else this.#focus.display(null);
    return () => {
      back();
      this.open(run);
    };
  }

  // ---- shared texts -----------------------------------------------------------------------------------------------

  /**
   * Return the local model for a shared tree: the same model, or else one of the same name, or else the chosen one.
   * @param {{model: string, fingerprint: string}} shared
   */
  modelFor({ model, fingerprint }) {
    const named = this.cards.find(({ id }) => id === model);
    if (named?.gpt2lab.fingerprint === fingerprint) return named;
    return this.cards.find((card) => card.gpt2lab.fingerprint === fingerprint) ?? named ?? this.card;
  }

  /**
   * Draw a whole shared tree with the model of `card`.
   * @param {import("./permalink.js").Shared} shared
   * @param {ModelCard} card
   * @returns {Promise<{same: number, of: number, stopped: boolean}|null>} the number of runs that came out the same; null
   *   after a failure, which has been reported
   */
  async replayShared(shared, card) {
    const ids = await withKey(() => tokenize(card.id, shared.prompt));
    const tree = new BranchTree(shared.prompt, ids, originOf(card), planOf(shared.first));
    this.trees.push(tree);
    this.open(tree.root);
    /** @type {(Run | null)[]} */
    const made = [];
    const of = 1 + shared.branches.length;
    let same = 0;
    for (let number = 0; number < of; number += 1) {
      const branch = number ? shared.branches[number - 1] : null;
      const { check } = branch ?? shared.first;
      const run = branch ? attached(tree, made[branch.parent], branch) : tree.root;
      made.push(run);
      this.#events.say(`Drawing ${number + 1} of ${of} …`);
      if (run && check[0] && (await this.draw(run))) return null;
      if (run?.state === "stopped") return { same, of, stopped: true };
      if (run && String(checkOf(run)) === String(check)) same += 1;
    }
    return { same, of, stopped: false };
  }
}

/**
 * Attach a shared branch and return it; null if its parent turned out too short.
 * @param {BranchTree} tree @param {Run | null} parent @param {import("./permalink.js").SharedBranch} branch
 */
function attached(tree, parent, branch) {
  if (!parent || branch.place > parent.length) return null;
  const { place, token } = branch;
  return tree.branch(parent, { place, token }, planOf(branch));
}

/** @param {Run} run @returns {Run[]} */
function below(run) {
  return run.branches.flatMap((branch) => [branch, ...below(branch)]);
}

/** @param {Part} part @returns {Plan} */
function planOf({ params, seed, limit }) {
  return { params, seed, limit };
}

/** @param {ModelCard} card @returns {import("./branches.js").Origin} */
function originOf({ id, gpt2lab }) {
  const { fingerprint, contract, n_ctx: contextSize, n_vocab: vocabularySize, end_of_text: endOfText } = gpt2lab;
  return { model: id, fingerprint, contract, contextSize, vocabularySize, endOfText };
}
