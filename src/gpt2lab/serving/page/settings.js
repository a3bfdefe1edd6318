/**
 * One observable store of the user's settings. It survives a reload, and its values are always within their limits: it
 * ignores invalid stored values. This module knows nothing of the document.
 */

import { PARAMETERS } from "./stages.js";

/**
 * @typedef {object} OtherSettings
 * @property {string|null} model  name of a served model; null: the first
 * @property {string} prompt
 * @property {number|string|null} seed  a string of digits beyond 2^53; null: a new seed for each run
 * @property {number} max_tokens
 * @property {number} n  samples in a column of the sweep
 *
 * @typedef {OtherSettings & Required<Omit<import("./sampling.js").SamplingParams, "logit_bias">>} Settings
 */

const STORED = "gpt2lab.settings";
const WRITE_AFTER_MS = 150;

/** @type {Readonly<Settings>} */
export const DEFAULTS = Object.freeze({
  model: null,
  prompt: "Once upon a time",
  .../** @type {any} */ (sampling((each) => each.default)),
  seed: null,
  max_tokens: 120,
  n: 3,
});

/**
 * The smallest and the largest value of each number that the server accepts; whole numbers have `whole`.
 * @type {Readonly<Record<string, {least: number, most: number, whole?: boolean}>>}
 */
export const LIMITS = Object.freeze({
  ...sampling(({ least, most, whole }) => ({ least, most, whole })),
  max_tokens: { least: 1, most: 2 ** 20, whole: true },
  n: { least: 1, most: 64, whole: true },
});

/**
 * Return an object with an entry for each sampling parameter.
 * @template T @param {(parameter: import("./stages.js").Parameter) => T} of @returns {Record<string, T>}
 */
function sampling(of) {
  return Object.fromEntries(PARAMETERS.map((each) => [each.name, of(each)]));
}

/**
 * Return the sampling parameters among `values`, for a completion and for `stages`.
 * @param {Readonly<Record<string, any>>} values @returns {Record<string, number>}
 */
export function samplingParams(values) {
  return sampling(({ name }) => values[name]);
}

/**
 * Return whether two sets of sampling parameters are equal.
 * @param {Record<string, number>} one @param {Record<string, number>} other
 */
export function sameSampling(one, other) {
  return PARAMETERS.every(({ name }) => one[name] === other[name]);
}

/** Return whether `value` is a seed: a whole number below 2^63, or its digits. @param {unknown} value */
export function isSeed(value) {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0;
  return typeof value === "string" && /^\d{1,19}$/.test(value) && BigInt(value) < 2n ** 63n;
}

/** Return whether a setting may have this value. @param {string} name @param {unknown} value */
export function isValid(name, value) {
  if (name === "seed") return value === null || isSeed(value);
  if (name === "model") return value === null || typeof value === "string";
  if (name === "prompt") return typeof value === "string";
  if (!(name in LIMITS)) return false;
  const { least, most, whole = false } = LIMITS[name];
  return typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
}

/** Return a seed for a run without one; only 32 bits, so that users can read it and type it again. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** @typedef {(now: Readonly<Settings>, before: Readonly<Settings>) => void} Listener */

class Store {
  /** @type {Readonly<Settings>} */
  #now = Object.freeze({ ...DEFAULTS, ...stored() });
  /** @type {Set<Listener>} */
  #listeners = new Set();
  /** @type {number | null} */
  #timer = null;
  /** The user's settings while they are lent. @type {Readonly<Settings> | null} */
  #own = null;

  constructor() {
    addEventListener("pagehide", () => this.#write());
  }

  /** @returns {Readonly<Settings>} */
  get() {
    return this.#now;
  }

  /**
   * Change some settings; an invalid value throws a RangeError. Listeners are called only if something changed.
   * @param {Partial<Settings> & Record<string, unknown>} changes
   */
  set(changes) {
    const before = this.#now;
    const changed = Object.entries(changes).filter(([name, value]) => {
      if (!(name in DEFAULTS) || !isValid(name, value)) throw new RangeError(`${name} cannot be ${value}`);
      return before[/** @type {keyof Settings} */ (name)] !== value;
    });
    if (!changed.length) return;
    this.#now = Object.freeze({ ...before, ...Object.fromEntries(changed) });
    this.#timer ??= setTimeout(() => this.#write(), WRITE_AFTER_MS);
    for (const listener of [...this.#listeners]) listener(this.#now, before);
  }

  /** Let a guest change the settings, until {@link giveBack}: the user's stay stored, except for the model. */
  lend() {
    this.#own ??= this.#now;
  }

  /** Undo a guest's changes; the model stays. */
  giveBack() {
    const own = this.#users();
    this.#own = null;
    this.set(own);
  }

  /** Return the user's settings: a model chosen while they are lent is the user's choice. @returns {Readonly<Settings>} */
  #users() {
    return { ...(this.#own ?? this.#now), model: this.#now.model };
  }

  /** Call `listener(now, before)` after each change. @param {Listener} listener @returns {() => void} unsubscribes */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #write() {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    try {
      localStorage.setItem(STORED, JSON.stringify(this.#users()));
    } catch {
      // Storage is full or forbidden: the page works, but the settings are not stored.
    }
  }
}

/** Return the settings of an earlier visit, without any that no longer exist. @returns {Partial<Settings>} */
function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(STORED) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([name, value]) => name in DEFAULTS && isValid(name, value)));
  } catch {
    return {};
  }
}

export const settings = new Store();
