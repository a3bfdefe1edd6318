/**
 * Texts with their branches in the browser's IndexedDB: they come back after a reload, a visit to another page, or a
 * crash. Each text is a record of its own, so that two tabs do not overwrite each other's. This module knows nothing of
 * the document.
 */

import { BranchTree } from "./branches.js";

const NAME = "gpt2lab";
const VERSION = 1;
const STORE = "texts";
const MOST = 300; // texts; the oldest are deleted

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} RunRecord
 * @property {number} parent  index of its parent; -1 for the first
 * @property {number} place
 * @property {number | null} token
 * @property {number | null} logprob  of the token
 * @property {import("./branches.js").Plan} plan
 * @property {[number, number | null, [number, number][] | null][]} drawn  id, logprob and likeliest
 * @property {Record<string, any>} facts  state, times, fingerprint
 *
 * @typedef {{id: string, madeAt: number, prompt: string, promptIds: number[], origin: import("./branches.js").Origin,
 *   runs: RunRecord[]}} TextRecord
 */

const FACTS = /** @type {const} */ (["state", "problem", "firstTokenMs", "drawingMs", "timings", "fingerprint"]);

/** Return `tree` as data. @param {BranchTree} tree @returns {TextRecord} */
export function recordOf(tree) {
  const { id, madeAt, prompt, promptIds, origin } = tree;
  const runs = tree.runs();
  const packed = runs.map((run) => ({
    parent: run.parent ? runs.indexOf(run.parent) : -1,
    place: run.place,
    token: run.token,
    logprob: run.token === null ? null : (run.at(run.place)?.logprob ?? null),
    plan: { ...run.plan, limit: run.busy ? Math.max(1, run.drawn.length) : run.plan.limit },
    drawn: run.drawn.map((entry) => /** @type {RunRecord["drawn"][number]} */ ([entry.id, entry.logprob, entry.top])),
    facts: { ...Object.fromEntries(FACTS.map((name) => [name, run[name]])), ...(run.busy ? { state: "stopped" } : {}) },
  }));
  return { id, madeAt, prompt, promptIds, origin, runs: packed };
}

/** Return the tree of a record. @param {TextRecord} record @returns {BranchTree} */
export function treeOf({ id, madeAt, prompt, promptIds, origin, runs }) {
  const tree = new BranchTree(prompt, promptIds, origin, runs[0].plan);
  Object.assign(tree, { id, madeAt });
  /** @type {Run[]} */
  const made = [];
  for (const { parent, place, token, logprob, plan, drawn, facts } of runs) {
    const run = parent < 0 ? tree.root : tree.branch(made[parent], { place, token, logprob }, plan);
    run.push(drawn.map(([each, own, top]) => ({ id: each, logprob: /** @type {number} */ (own), top: top ?? [] })));
    Object.assign(run, facts);
    made.push(run);
  }
  return tree;
}

/** @param {TextRecord} record */
function isReadable(record) {
  try {
    return treeOf(record).root.tree.origin.vocabularySize > 0;
  } catch {
    return false;
  }
}

/** Texts in the browser's storage; without storage, or if it is full, none are kept. */
export class Stories {
  #database;

  constructor() {
    this.#database = open().catch(() => null);
  }

  /** Return the kept texts, the oldest first; those of another version of the page that this one cannot read are left out. */
  async all() {
    const found = await this.#done("readonly", (store) => store.getAll());
    return /** @type {TextRecord[]} */ (found ?? []).filter(isReadable).sort((one, other) => one.madeAt - other.madeAt);
  }

  /** Keep `records`, in place of those with the same ids. @param {TextRecord[]} records */
  async put(records) {
    await this.#done("readwrite", (store) => {
      for (const record of records) store.put(record);
      const keys = store.index("madeAt").getAllKeys();
      keys.onsuccess = () => {
        for (const key of keys.result.slice(0, Math.max(0, keys.result.length - MOST))) store.delete(key);
      };
      return keys;
    });
  }

  /** Forget a text. @param {string} id */
  async delete(id) {
    await this.#done("readwrite", (store) => store.delete(id));
  }

  /**
   * Return the result of a request once its transaction is complete; null if that fails.
   * @param {IDBTransactionMode} mode @param {(store: IDBObjectStore) => IDBRequest} begin @returns {Promise<any>}
   */
  async #done(mode, begin) {
    const database = await this.#database;
    if (!database) return null;
    try {
      const transaction = database.transaction(STORE, mode);
      const request = begin(transaction.objectStore(STORE));
      return await new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve(request.result);
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
    } catch {
      return null; // full, or closed by the browser: the page works without
    }
  }
}

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("madeAt", "madeAt");
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
