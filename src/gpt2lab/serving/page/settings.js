/**
 * One observable store of what a user has set. It survives a reload, and what it holds is always within its limits:
 * a stored value that is not is forgotten. Knows nothing of the document.
 */

import { PARAMETERS } from "./stages.js";

/**
 * @typedef {object} OtherSettings
 * @property {string|null} model  name of a served model; null: the first
 * @property {string} prompt
 * @property {number|string|null} seed  digits beyond 2^53 are a string; null: a new one for each run
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
 * The least and the largest value of each number, as the server takes them; whole numbers have `whole`.
 * @type {Readonly<Record<string, {least: number, most: number, whole?: boolean}>>}
 */
export const LIMITS = Object.freeze({
  ...sampling(({ least, most, whole }) => ({ least, most, whole })),
  max_tokens: { least: 1, most: 2 ** 20, whole: true },
  n: { least: 1, most: 64, whole: true },
});

/**
 * An entry for each sampling parameter.
 * @template T @param {(parameter: import("./stages.js").Parameter) => T} of @returns {Record<string, T>}
 */
function sampling(of) {
  return Object.fromEntries(PARAMETERS.map((each) => [each.name, of(each)]));
}

/**
 * Those of `values` that say how a token is drawn, for a completion and for `stages`.
 * @param {Readonly<Record<string, any>>} values @returns {Record<string, number>}
 */
export function samplingParams(values) {
  return sampling(({ name }) => values[name]);
}

/**
 * Whether two sets of sampling parameters draw alike.
 * @param {Record<string, number>} one @param {Record<string, number>} other
 */
export function sameSampling(one, other) {
  return PARAMETERS.every(({ name }) => one[name] === other[name]);
}

/** Whether `value` is a seed: a whole number below 2^63, or its digits. @param {unknown} value */
export function isSeed(value) {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0;
  return typeof value === "string" && /^\d{1,19}$/.test(value) && BigInt(value) < 2n ** 63n;
}

/** Whether a setting may have this value. @param {string} name @param {unknown} value */
export function isValid(name, value) {
  if (name === "seed") return value === null || isSeed(value);
  if (name === "model") return value === null || typeof value === "string";
  if (name === "prompt") return typeof value === "string";
  if (!(name in LIMITS)) return false;
  const { least, most, whole = false } = LIMITS[name];
  return typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
}

/** A seed for a run that names none; of 32 bits only, because it is to be read and typed again. */
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

  constructor() {
    addEventListener("pagehide", () => this.#write());
  }

  /** @returns {Readonly<Settings>} */
  get() {
    return this.#now;
  }

  /**
   * Change some; what is no possible value of its setting throws a RangeError. Listeners hear of real changes.
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

  /** Call `listener(now, before)` after each change. @param {Listener} listener @returns {() => void} what ends it */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #write() {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    try {
      localStorage.setItem(STORED, JSON.stringify(this.#now));
    } catch {
      // Storage is full or forbidden: the page works, and forgets.
    }
  }
}

/** What an earlier visit left, without what is no setting any more. @returns {Partial<Settings>} */
function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(STORED) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([name, value]) => name in DEFAULTS && isValid(name, value)));
  } catch {
    return {};
  }
}

export const settings = new Store();
