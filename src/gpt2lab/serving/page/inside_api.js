/**
 * The requests that look inside a model. Answers are kept for as long as the page is likely to show them again. This module
 * knows nothing of the document.
 */

import { post, tokenize } from "./api.js";
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
 * @typedef {object} Outcome
 * @property {number | null} logit
 * @property {number} probability
 * @property {Likeliest} top
 * @property {number[]} tokens  the ids of the greedy text
 *
 * @typedef {object} Effect
 * @property {number} token  the one that logit and probability are of
 * @property {number} kl  nats
 * @property {Outcome} before
 * @property {Outcome} after
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

/**
 * Return the next token without and with a change.
 * @param {Record<string, unknown>} body @param {Options} options
 * @returns {Promise<Effect>}
 */
export async function patch(body, options) {
  return await ask("playground/patch", body, options);
}

/** Return the ids of a text. @param {string} model @param {string} text @param {Options} options @returns {Promise<number[]>} */
export async function idsOf(model, text, { signal }) {
  return await remembered(`ids\n${model}\n${text}`, () => withKey(() => tokenize(model, text, { signal })));
}

/** @param {string} address @param {Record<string, unknown>} body @param {Options} options */
async function ask(address, body, { signal, busy }) {
  const attempt = () => withKey(() => post(address, body, signal));
  return await remembered(`${address}\n${JSON.stringify(body)}`, async () => {
    const answer = await withPatience(attempt, { signal, busy: (seconds) => busy(busyText(seconds)) });
    return await answer.json();
  });
}

/** @param {string} key @param {() => Promise<any>} fetcher */
async function remembered(key, fetcher) {
  const found = answered.get(key) ?? (await fetcher());
  answered.delete(key);
  answered.set(key, found);
  for (const oldest of answered.keys()) if (answered.size > KEPT) answered.delete(oldest);
  return found;
}
