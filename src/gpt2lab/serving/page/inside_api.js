/**
 * The requests that look inside a model. Answers are kept for as long as the page is likely to show them again. This module
 * knows nothing of the document.
 */

import { post } from "./api.js";
import { withKey } from "./api_key.js";
import { busyText, withPatience } from "./patience.js";

const KEPT = 24; // answers; with 124M and 100 tokens, one has 100 kB

/** The longest text that can be looked into, in tokens. */
export const MOST_TOKENS = 512;

/**
 * @typedef {[number, number][]} Likeliest  ids and their probabilities, the likeliest first
 *
 * @typedef {object} LensRow
 * @property {number} probability
 * @property {number} rank  from 1
 * @property {Likeliest} top
 *
 * @typedef {object} Contributions
 * @property {number} logit
 * @property {number} embedding
 * @property {number} position
 * @property {number[]} attention  [n_layer]
 * @property {number[]} mlp  [n_layer]
 * @property {number[][]} heads  [n_layer][n_head]
 * @property {number} norm_bias
 * @property {number} rest
 *
 * @typedef {object} Inside
 * @property {number} token  whose logit is explained
 * @property {LensRow[]} lens  [n_layer + 1]: before each layer, and at the end
 * @property {number[][][]} attention  [n_layer][n_head][tokens]
 * @property {Contributions} contributions
 * @property {[number, number][]} neighbours  ids and cosines
 *
 * @typedef {{signal: AbortSignal, busy: (text: string) => void}} Options
 */

/** @type {Map<string, any>} */
const answered = new Map(); // the least recently used first

/**
 * Return what happens at the last of `tokens`.
 * @param {{model: string, tokens: number[], token: number | null, top: number}} body  token: null for the likeliest
 * @param {Options} options
 * @returns {Promise<Inside>}
 */
export async function inside(body, options) {
  return await ask("playground/inside", body, options);
}

/** @param {string} address @param {Record<string, unknown>} body @param {Options} options */
async function ask(address, body, { signal, busy }) {
  const key = `${address}\n${JSON.stringify(body)}`;
  const known = answered.get(key);
  if (known) {
    answered.delete(key);
    answered.set(key, known);
    return known;
  }
  const attempt = () => withKey(() => post(address, body, signal));
  const answer = await withPatience(attempt, { signal, busy: (seconds) => busy(busyText(seconds)) });
  const found = await answer.json();
  answered.set(key, found);
  for (const oldest of answered.keys()) if (answered.size > KEPT) answered.delete(oldest);
  return found;
}
