/**
 * The page's requests to its server: models, vocabularies, token ids, and completions as they are drawn.
 *
 * Addresses are relative to the page, so that it works behind a proxy's prefix. Every failure is an {@link ApiError}
 * with a message for the user. This module knows nothing of the document.
 */

import { serverEvents } from "./event_stream.js";
import { keep, kept } from "./tab_storage.js";

const KEY = "gpt2lab.key"; // in sessionStorage: the key goes when the tab closes
const TOP = 20; // the server's maximum

/** A request that the server refused, or that failed before an answer. */
export class ApiError extends Error {
  /**
   * @param {string} message  for the user
   * @param {object} [facts]
   * @param {number} [facts.status]  the HTTP status; 0 if there was no answer
   * @param {string|null} [facts.param]  the field of the request that is wrong
   * @param {number|null} [facts.retryAfter]  seconds until the next attempt
   */
  constructor(message, { status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

// ---- the key ---------------------------------------------------------------------------------------------------

/** Return the headers with this tab's key, if it has one. @returns {Record<string, string>} */
function headers() {
  const key = kept(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Use `key` from now on, in this tab. @param {string} key */
export function setKey(key) {
  keep(KEY, key);
}

// ---- small requests --------------------------------------------------------------------------------------------

/**
 * @typedef {object} ModelFacts
 * @property {string} fingerprint
 * @property {number} contract  its version: under one version, the same request gives the same text
 * @property {number} n_ctx
 * @property {number} n_vocab
 * @property {number} n_layer
 * @property {number} n_parameters
 * @property {string} precision
 * @property {number | null} end_of_text
 *
 * @typedef {{id: string, gpt2lab: ModelFacts}} ModelCard
 * @typedef {{signal?: AbortSignal}} Stop
 */

/** Return the served models. @returns {Promise<ModelCard[]>} */
export async function models() {
  return (await json("v1/models")).data;
}

/**
 * Return the token ids of a text.
 * @param {string} model @param {string} prompt @param {Stop} [stop] @returns {Promise<number[]>}
 */
export async function tokenize(model, prompt, { signal } = {}) {
  if (prompt === "") return [];
  return (await json("tokenize", { model, prompt }, signal)).tokens;
}

/**
 * Return the log-probabilities of `ids` under the unmodified model; null for the first.
 * @param {string} model @param {number[]} ids @param {Stop} [stop] @returns {Promise<(number|null)[]>}
 */
export async function score(model, ids, { signal } = {}) {
  const body = { model, prompt: ids, max_tokens: 0, echo: true, logprobs: 0, return_tokens_as_token_ids: true };
  return (await json("v1/completions", body, signal)).choices[0].logprobs.token_logprobs;
}

/** @type {Map<string, Promise<string[]>>} */
const vocabularies = new Map();

/**
 * Return the bytes of every token, as {@link module:vocabulary} takes them; requested once.
 * @param {string} model @returns {Promise<string[]>}
 */
export function vocabulary(model) {
  const known = vocabularies.get(model);
  if (known) return known;
  const found = json(`playground/vocabulary?model=${encodeURIComponent(model)}`).then((answer) => answer.tokens);
  found.catch(() => vocabularies.delete(model));
  vocabularies.set(model, found);
  return found;
}

// ---- completions -----------------------------------------------------------------------------------------------

/**
 * @typedef {object} Token
 * @property {number} id
 * @property {number} logprob  natural, under the unmodified model
 * @property {[number, number][]} top  the likeliest ids and their log-probabilities, the likeliest first
 *
 * @typedef {object} Piece
 * @property {number|null} index  of the sample; null for the last piece, which has the counts
 * @property {Token[]} tokens
 * @property {object} [usage]
 * @property {{queued: number, prompt: number, drawing: number}} [timings]  seconds
 * @property {string} [fingerprint]
 *
 * @typedef {object} CompletionRequest  the body of `/v1/completions`
 * @property {string} [model]
 * @property {string | number[]} prompt
 * @property {number} max_tokens
 * @property {number | string | null} [seed]
 * @property {number} [n]
 * @property {number} [logprobs]
 */

/**
 * Draw completions; each piece comes as soon as the server has it. Adds the fields that a stream of tokens needs. A seed is
 * a number, or a string of digits beyond 2^53.
 * @param {CompletionRequest & Record<string, unknown>} details @param {Stop} [stop]
 * @returns {AsyncGenerator<Piece>}
 */
export async function* complete(details, { signal } = {}) {
  const body = {
    logprobs: TOP,
    ...details,
    stream: true,
    stream_options: { include_usage: true },
    return_tokens_as_token_ids: true,
  };
  const answer = await post("v1/completions", body, signal);
  for await (const { data } of events(answer, { signal })) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw ofBody(chunk.error, chunk.error.code === "draining" ? 503 : 500);
    yield pieceOf(chunk);
  }
  throw new ApiError("The connection to the server ended before the text did.");
}

/** @param {any} chunk @returns {Piece} */
function pieceOf(chunk) {
  const [choice] = chunk.choices;
  return {
    index: choice?.index ?? null,
    tokens: choice?.logprobs ? tokensOf(choice.logprobs) : [],
    usage: chunk.usage ?? undefined,
    timings: chunk.timings ?? undefined,
    fingerprint: chunk.system_fingerprint,
  };
}

/** @param {any} logprobs @returns {Token[]} */
function tokensOf({ tokens, token_logprobs, top_logprobs }) {
  return tokens.map((/** @type {string} */ token, /** @type {number} */ place) => {
    /** @type {[number, number][]} */
    const top = Object.entries(top_logprobs?.[place] ?? {}).map(([name, logprob]) => [idOf(name), Number(logprob)]);
    return { id: idOf(token), logprob: token_logprobs[place], top: top.sort((a, b) => b[1] - a[1] || a[0] - b[0]) };
  });
}

/** @param {string} name */
function idOf(name) {
  return Number(name.slice("token_id:".length));
}

// ---- requests --------------------------------------------------------------------------------------------------

/**
 * Return the server-sent events of an answer; a lost connection throws an {@link ApiError}.
 * @param {Response} answer @param {Stop & {heard?: () => void}} [options]
 */
export async function* events(answer, { signal, heard } = {}) {
  const body = /** @type {NonNullable<Response["body"]>} */ (answer.body);
  try {
    yield* serverEvents(body, heard);
  } catch {
    throw signal?.aborted ? signal.reason : lost();
  }
}

/** @param {string} address @param {Record<string, unknown>} [body] @param {AbortSignal} [signal] @returns {Promise<any>} */
async function json(address, body, signal) {
  const answer = body ? await post(address, body, signal) : await request(address, { signal });
  return await answer.json();
}

/**
 * Send `body` as JSON.
 * @param {string} address @param {{seed?: number | string | null} & Record<string, unknown>} body @param {AbortSignal} [signal]
 */
export function post(address, body, signal) {
  const { seed, ...rest } = body;
  const digits = seed === undefined || seed === null ? "" : `"seed":${BigInt(seed)},`; // JSON's numbers have no limit, a double has
  return request(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: `{${digits}${JSON.stringify(rest).slice(1)}`,
    signal,
  });
}

/**
 * Send a request with this tab's key and return the server's answer.
 * @param {string} address @param {RequestInit} [options]
 * @throws {ApiError} for anything but an answer of status 2xx
 */
export async function request(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { ...options, headers: { ...options.headers, ...headers() } });
  } catch {
    throw options.signal?.aborted ? options.signal.reason : lost();
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw ofBody(body.error ?? {}, answer.status, answer.headers.get("Retry-After"));
}

function lost() {
  return new ApiError("The server does not answer. Is gpt2lab serve still running?");
}

/** @type {Record<number, string | null>} */
const SENTENCES = {
  401: "This server needs an API key.",
  404: null,
  413: "The request is longer than this server accepts.",
  429: "The server is busy: too many texts are waiting.",
  503: "The server is shutting down.",
};

/**
 * @param {{message?: string, param?: string | null}} body @param {number} status @param {string | null} [retryAfter]
 */
function ofBody({ message, param = null }, status, retryAfter = null) {
  const seconds = retryAfter === null ? NaN : Number(retryAfter);
  const facts = { status, param, retryAfter: Number.isFinite(seconds) ? seconds : null };
  return new ApiError(SENTENCES[status] ?? sentence(message) ?? `The server answered with status ${status}.`, facts);
}

/** Return the server's line as a sentence. @param {string} [message] */
function sentence(message) {
  if (!message) return null;
  return message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".");
}
