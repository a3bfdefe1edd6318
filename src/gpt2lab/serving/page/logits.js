/**
 * The logits of the next token after any tokens: the whole row, or first the likeliest tokens, a twelfth of the bytes.
 *
 * Equal requests at the same time are sent once; a request is aborted when no caller waits for it any more. This module
 * knows nothing of the document.
 */

import { post } from "./api.js";
import { busyText, withPatience } from "./patience.js";

const TOP = 2000; // tokens of a partial row
const KEPT = 64; // rows; with GPT-2's vocabulary a whole one has 200 kB

/**
 * @typedef {object} Row
 * @property {Float32Array} values  [n_vocab]
 * @property {Set<number> | null} known  the ids whose logits are exact; null: all. The others share one logit, at which they
 *   have the right probability together as long as nothing changes the logits
 *
 * @typedef {{promise: Promise<Row>, controller: AbortController, waiting: number}} Question
 * @typedef {{signal?: AbortSignal, busy?: (text: string) => void}} Options
 */

/** @type {Map<string, Row>} */
const answered = new Map(); // the least recently used first
/** @type {Map<string, Question>} */
const asked = new Map();

/**
 * Return the logits of the token after `ids`, `[n_vocab]`. They equal, to the last bit, those from which a completion draws
 * the next token.
 * @param {string} model @param {number[]} ids @param {Options} [options]
 * @returns {Promise<Float32Array>}
 */
export async function logits(model, ids, options = {}) {
  const { values } = await row(`${model}\n${ids}`, (signal) => fetchWhole({ model, tokens: ids }, signal), options);
  return values;
}

/**
 * Return the same with exact logits for the likeliest ids only, unless the whole row is known.
 * @param {string} model @param {number[]} ids @param {number} size  n_vocab
 * @param {Options} [options]
 * @returns {Promise<Row>}
 */
export async function likeliestLogits(model, ids, size, options = {}) {
  const key = `${model}\n${ids}`;
  if (answered.has(key)) return { values: await logits(model, ids, options), known: null };
  if (size <= TOP) return { values: await logits(model, ids, options), known: null };
  return await row(`${key}\n${TOP}`, (signal) => fetchTop({ model, tokens: ids, top: TOP }, size, signal), options);
}

/** @param {string} key @param {(signal: AbortSignal) => Promise<Row>} fetcher @param {Options} options */
async function row(key, fetcher, { signal, busy = () => {} }) {
  const known = answered.get(key);
  if (known) {
    answered.delete(key);
    answered.set(key, known);
    return known;
  }
  signal?.throwIfAborted();
  const question = asked.get(key) ?? ask(key, fetcher, busy);
  question.waiting += 1;
  const leave = () => {
    question.waiting -= 1;
    if (!question.waiting) {
      asked.delete(key);
      question.controller.abort();
    }
  };
  signal?.addEventListener("abort", leave, { once: true });
  try {
    return await unlessAborted(question.promise, signal);
  } finally {
    signal?.removeEventListener("abort", leave);
  }
}

/** @param {string} key @param {(signal: AbortSignal) => Promise<Row>} fetcher @param {(text: string) => void} busy */
function ask(key, fetcher, busy) {
  const controller = new AbortController();
  const { signal } = controller;
  const promise = withPatience(() => fetcher(signal), { signal, busy: (seconds) => busy(busyText(seconds)) })
    .then((values) => {
      answered.set(key, values);
      for (const oldest of answered.keys()) if (answered.size > KEPT) answered.delete(oldest);
      return values;
    })
    .finally(() => {
      if (asked.get(key) === question) asked.delete(key);
    });
  promise.catch(() => {}); // the waiting callers get the error
  const question = { controller, promise, waiting: 0 };
  asked.set(key, question);
  return question;
}

/** @param {Record<string, unknown>} body @param {AbortSignal} signal @returns {Promise<Row>} */
async function fetchWhole(body, signal) {
  const answer = await post("playground/logits", body, signal);
  return { values: new Float32Array(await answer.arrayBuffer()), known: null }; // little-endian, like every machine with a browser
}

/** @param {Record<string, unknown>} body @param {number} size @param {AbortSignal} signal @returns {Promise<Row>} */
async function fetchTop(body, size, signal) {
  const answer = await post("playground/logits", body, signal);
  const bytes = await answer.arrayBuffer();
  const n = (bytes.byteLength - 4) / 8;
  const ids = new Uint32Array(bytes, 0, n);
  const found = new Float32Array(bytes, 4 * n, n + 1);
  const values = new Float32Array(size).fill(found[n]);
  ids.forEach((id, place) => {
    values[id] = found[place];
  });
  return { values, known: new Set(ids) };
}

/** @template T @param {Promise<T>} promise @param {AbortSignal} [signal] @returns {Promise<T>} */
function unlessAborted(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}
