/**
 * What a user does with texts: draw one, branch off, go on, go back and forth, draw again, open what was shared.
 * Holds the trees and says when something changed; shows nothing itself.
 */

import { tokenize } from "./api.js";
import { withKey } from "./api_key.js";
import { BranchTree } from "./branches.js";
import { checkOf } from "./permalink.js";
import { newSeed, samplingParams } from "./settings.js";
import { draw } from "./stream.js";

/** Something that cannot be done, with a sentence for a reader. */
export class Hindrance extends Error {}

export class PageState {
  /** @type {BranchTree[]} */
  trees = [];
  /** @type {import("./branches.js").Run|null} the run on display */
  run = null;
  #settings;
  #events;
  #cards = [];
  #stopping = new AbortController();
  #visited = [];
  #at = -1; // in the runs visited

  /**
   * @param {typeof import("./settings.js").settings} settings
   * @param {object} events
   * @param {(run: object|null) => void} events.opened  another run is on display
   * @param {(run: object) => void} events.changed  a run has new tokens or another state
   * @param {(run: object, problem: Error|null) => void} events.ended
   * @param {(text: string) => void} events.say
   */
  constructor(settings, events) {
    this.#settings = settings;
    this.#events = events;
  }

  /** The models that are served, as `/v1/models` tells them. */
  set cards(cards) {
    this.#cards = cards;
  }

  get cards() {
    return this.#cards;
  }

  /** The model that is chosen, or the first. */
  get card() {
    return this.#cards.find(({ id }) => id === this.#settings.get().model) ?? this.#cards[0];
  }

  get busy() {
    return this.trees.some((tree) => tree.runs().some((run) => run.busy));
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  /** A tree that is not drawn yet, of the prompt and the settings of now. */
  async draft(signal) {
    const { prompt, seed } = this.#settings.get();
    const { card } = this;
    const ids = await withKey(() => tokenize(card.id, prompt, { signal }));
    return new BranchTree(prompt, ids, originOf(card), this.#plan(seed));
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

  /**
   * Branch off `run`. @param {object} at
   * @param {number} at.place
   * @param {number|null} at.token  what is to stand there; null draws on, with a new seed if something stands there
   * @param {number|null} [at.logprob]  of the token, if it is known
   */
  async branch(run, at) {
    const { place, token } = at;
    const { tree } = run;
    if (!this.trees.includes(tree)) {
      tree.root.plan.seed ??= newSeed();
      this.trees.push(tree);
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

  /** Draw `run`, and say how that went. Stopped by {@link stop}. */
  async draw(run) {
    const { signal } = this.#stopping;
    const problem = await this.#drawn(run, signal);
    this.#events.ended(run, problem);
    return problem;
  }

  /** Draw `run` once more, and tell whether it came out the same. */
  async replay(run) {
    const [n, sum] = checkOf(run);
    const { drawn, state } = run;
    const { limit } = run.plan;
    const problem = await this.draw(run);
    if (problem || run.state === "stopped") {
      Object.assign(run, { drawn, state });
      run.plan.limit = limit; // a stopped draw lowers it to what it drew
      this.#events.changed(run);
      return null;
    }
    const [again, sumAgain] = checkOf(run);
    return n === again && sum === sumAgain;
  }

  async #drawn(run, signal) {
    const options = {
      signal,
      changed: () => this.#events.changed(run),
      busy: (seconds) => this.#events.say(`The server is busy; asking again in ${seconds} s …`),
    };
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

  /** End all that is being drawn; what is there stays. */
  stop() {
    this.#stopping.abort();
    this.#stopping = new AbortController();
  }

  #plan(seed = this.#settings.get().seed ?? newSeed()) {
    const now = this.#settings.get();
    return { params: samplingParams(now), seed, limit: now.max_tokens };
  }

  /** Ask for no more than the model's context has room for. */
  #fit(run) {
    if (run.room < 1) {
      const size = run.tree.origin.contextSize;
      throw new Hindrance(`There is no room left: this model reads ${size} tokens at most, and ${run.length} are there.`);
    }
    run.plan.limit = Math.min(run.plan.limit, run.room);
  }

  // ---- going about ------------------------------------------------------------------------------------------------

  /** Put `run` on display. */
  open(run) {
    if (run && run !== this.run) {
      this.#visited.splice(this.#at + 1, Infinity, run);
      this.#at = this.#visited.length - 1;
    }
    this.#display(run);
  }

  /** Put a tree on display that is not drawn yet. */
  preview(run) {
    this.#display(run);
  }

  #display(run) {
    this.run = run;
    this.#events.opened(run);
  }

  /** Whether there is a run `step` back (-1) or forth (1), and going there. */
  canGo(step) {
    return this.#at + step >= 0 && this.#at + step < this.#visited.length;
  }

  go(step) {
    if (!this.canGo(step)) return;
    this.#at += step;
    this.#display(this.#visited[this.#at]);
  }

  /** Take `run` and its branches away. */
  remove(run) {
    const gone = new Set([run, ...below(run)]);
    if (run.parent) run.tree.remove(run);
    else this.trees.splice(this.trees.indexOf(run.tree), 1);
    const here = this.#visited.slice(0, this.#at + 1).filter((each) => !gone.has(each));
    this.#visited = this.#visited.filter((each) => !gone.has(each));
    this.#at = here.length - 1;
    const next = run.parent ?? this.trees[this.trees.length - 1]?.root ?? null;
    if (next) this.open(next);
    else this.#display(null);
  }

  // ---- what was shared --------------------------------------------------------------------------------------------

  /** The model here that a shared tree is drawn with: the same, or one of its name, or the one chosen. */
  modelFor({ model, fingerprint }) {
    const named = this.#cards.find(({ id }) => id === model);
    if (named?.gpt2lab.fingerprint === fingerprint) return named;
    return this.#cards.find((card) => card.gpt2lab.fingerprint === fingerprint) ?? named ?? this.card;
  }

  /**
   * Draw all of a shared tree with the model of `card`.
   * @param {import("./permalink.js").Shared} shared
   * @returns {Promise<{same: number, of: number, stopped: boolean}|null>} how many runs came out as they were; null if
   *   something hindered it, which has been told
   */
  async replayShared(shared, card) {
    const ids = await withKey(() => tokenize(card.id, shared.prompt));
    const tree = new BranchTree(shared.prompt, ids, originOf(card), planOf(shared.first));
    this.trees.push(tree);
    this.open(tree.root);
    const made = [tree.root];
    const parts = [shared.first, ...shared.branches];
    let same = 0;
    for (const [number, part] of parts.entries()) {
      if (number) made.push(this.#attach(tree, made[part.parent], part));
      const run = made[number];
      this.#events.say(`Drawing ${number + 1} of ${parts.length} …`);
      if (run && part.check[0] && (await this.draw(run))) return null;
      if (run?.state === "stopped") return { same, of: parts.length, stopped: true };
      if (run && String(checkOf(run)) === String(part.check)) same += 1;
    }
    return { same, of: parts.length, stopped: false };
  }

  /** A shared branch; null where its parent turned out too short to have one there. */
  #attach(tree, parent, { place, token, ...part }) {
    if (!parent || place > parent.length) return null;
    return tree.branch(parent, { place, token }, planOf(part));
  }
}

function below(run) {
  return run.branches.flatMap((branch) => [branch, ...below(branch)]);
}

function planOf({ params, seed, limit }) {
  return { params, seed, limit };
}

function originOf({ id, gpt2lab }) {
  const { fingerprint, n_ctx: contextSize, end_of_text: endOfText } = gpt2lab;
  return { model: id, fingerprint, contextSize, endOfText };
}
