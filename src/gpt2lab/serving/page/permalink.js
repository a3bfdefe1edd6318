/**
 * A text with its branches as a link or a file. It holds the prompt, seeds and settings, not the drawn text: opening it
 * draws the text again, and a checksum for each run shows whether the tokens are the same. This module knows nothing of
 * the document or the network.
 */

import { DEFAULTS, isSeed, isValid, samplingParams } from "./settings.js";

const VERSION = 1;
const FIRST_CONTRACT = 1; // of links that were made before contracts had versions
const MAX_BRANCHES = 1000;
const MAX_ID = 2 ** 31;

/** The error for a link or file that holds no story; its message is for the user. */
export class ShareError extends Error {}

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} Part  the parameters of one run
 * @property {Record<string, number>} params
 * @property {number|string|null} seed
 * @property {number} limit
 * @property {[number, string]} check  the number of its tokens, and their checksum
 *
 * @typedef {Part & {parent: number, place: number, token: number|null}} SharedBranch  parent: 0 is the first run
 *
 * @typedef {object} Shared
 * @property {string} model
 * @property {string} fingerprint
 * @property {number} contract
 * @property {string} prompt
 * @property {Part} first
 * @property {SharedBranch[]} branches
 */

/** Return the checksum of token ids: FNV-1a of their 32-bit words. @param {number[]} ids */
export function checksum(ids) {
  let hash = 0x811c9dc5;
  for (const id of ids) {
    for (let shift = 0; shift < 32; shift += 8) hash = Math.imul(hash ^ ((id >>> shift) & 0xff), 0x01000193) >>> 0;
  }
  return hash.toString(16).padStart(8, "0");
}

/** Return the number and checksum of the tokens that `run` drew. @param {Run} run @returns {[number, string]} */
export function checkOf(run) {
  return [run.drawn.length, checksum(run.drawn.map(({ id }) => id))];
}

/** Return the shared form of `tree`. @param {import("./branches.js").BranchTree} tree @returns {object} for JSON */
export function pack(tree) {
  const runs = tree.runs();
  const branches = runs.slice(1).map((run) => {
    const from = { parent: runs.findIndex((each) => each === run.parent), place: run.place, token: run.token };
    return { ...from, ...packedPart(run) };
  });
  return {
    gpt2lab: VERSION,
    model: tree.origin.model,
    fingerprint: tree.origin.fingerprint,
    contract: tree.origin.contract,
    prompt: tree.prompt,
    ...packedPart(tree.root),
    branches,
  };
}

/** @param {Run} run */
function packedPart(run) {
  const { params, seed, limit } = run.plan;
  const initial = samplingParams(DEFAULTS);
  const changed = Object.entries(params).filter(([name, value]) => value !== initial[name]);
  // If a draw failed midway, only the tokens drawn so far can come out the same again.
  const most = run.state === "failed" ? Math.max(1, run.drawn.length) : limit;
  return { settings: Object.fromEntries(changed), seed, max_tokens: most, check: checkOf(run) };
}

/** Return the checked contents of `packed`, which may come from an untrusted source. @param {any} packed @returns {Shared} */
export function unpack(packed) {
  if (typeof packed !== "object" || packed === null || !("gpt2lab" in packed)) throw damaged();
  if (packed.gpt2lab !== VERSION) throw new ShareError("It was made by another version of gpt2lab.");
  const { model, fingerprint, contract = FIRST_CONTRACT, prompt, branches } = packed;
  if (![model, fingerprint, prompt].every((value) => typeof value === "string")) throw damaged();
  if (!isWhole(contract, MAX_ID)) throw damaged();
  if (!Array.isArray(branches) || branches.length > MAX_BRANCHES) throw damaged();
  return { model, fingerprint, contract, prompt, first: partOf(packed), branches: branches.map(branchOf) };
}

/** @param {any} packed @param {number} number @returns {SharedBranch} */
function branchOf(packed, number) {
  if (typeof packed !== "object" || packed === null) throw damaged();
  const { parent, place, token } = packed;
  if (!isWhole(parent, number + 1) || !isWhole(place, MAX_ID)) throw damaged();
  if (token !== null && !isWhole(token, MAX_ID)) throw damaged();
  return { parent, place, token, ...partOf(packed) };
}

/** @param {any} packed @returns {Part} */
function partOf({ settings = {}, seed, max_tokens: limit, check }) {
  const params = { ...samplingParams(DEFAULTS), ...settings };
  const known = Object.keys(samplingParams(DEFAULTS));
  if (Object.keys(params).length !== known.length) throw damaged();
  if (!known.every((name) => isValid(name, params[name])) || !isSeed(seed)) throw damaged();
  if (!isValid("max_tokens", limit)) throw damaged();
  if (!Array.isArray(check) || !isWhole(check[0], MAX_ID) || typeof check[1] !== "string") throw damaged();
  return { params, seed, limit, check: [check[0], check[1]] };
}

/** @param {any} value @param {number} below */
function isWhole(value, below) {
  return Number.isInteger(value) && value >= 0 && value < below;
}

function damaged() {
  return new ShareError("It is damaged, or not a gpt2lab story.");
}

/** Return a hash, `#…`, that holds all of `packed`. @param {object} packed */
export function toHash(packed) {
  const bytes = new TextEncoder().encode(JSON.stringify(packed));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return `#${btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** Return the contents of a link's hash. @param {string} hash @returns {Shared} */
export function fromHash(hash) {
  try {
    const text = atob(hash.slice(1).replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    return unpack(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch (problem) {
    throw problem instanceof ShareError ? problem : damaged();
  }
}

/**
 * Return a file's text: the link's contents, and below them the drawn texts for human readers.
 * @param {object} packed @param {string[]} texts
 */
export function toFile(packed, texts) {
  return `${JSON.stringify({ ...packed, texts }, null, 1)}\n`;
}

/** Return the contents of a file. @param {string} text @returns {Shared} */
export function fromFile(text) {
  try {
    return unpack(JSON.parse(text));
  } catch (problem) {
    throw problem instanceof ShareError ? problem : damaged();
  }
}
