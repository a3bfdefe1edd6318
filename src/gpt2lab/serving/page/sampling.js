/**
 * The sampling rules: how the next token is chosen from the logits. They repeat gpt2lab/sampling/rules.py in float64, so that
 * the page can show them without another request. tests/browser/test_sampling.py checks that the two files agree.
 *
 * The stages and their parameters are declared in gpt2lab/sampling/declaration.py; the server makes stages.js from it.
 * This module knows nothing of text or of the page.
 *
 * @typedef {{temperature?: number, top_k?: number, top_p?: number, min_p?: number, repetition_penalty?: number,
 *            presence_penalty?: number, frequency_penalty?: number, logit_bias?: Record<string, number>}} SamplingParams
 * @typedef {Required<SamplingParams> & Record<string, any>} All
 * @typedef {Float64Array<ArrayBuffer>} Doubles  [n_vocab]
 * @typedef {{name: string, logits: Doubles, probabilities: Doubles}} Stage  ruled out: -Infinity and 0
 * @typedef {{name: string, kept: number, cut: number, cutProbability: number, entropy: number}} Measure
 */

import { PARAMETERS, STAGES } from "./stages.js";

/** @type {Record<string, any>} */
const DEFAULTS = { ...Object.fromEntries(PARAMETERS.map((parameter) => [parameter.name, parameter.default])), logit_bias: {} };

/** Top-p and min-p ignore smaller relative differences between probabilities or their sums: rounding may cause them. */
const ROUNDING = 1e-12;

export class SamplingError extends Error {}

/**
 * Return the stages from a model's logits [n_vocab] to the final distribution: "model", then the stages that `params` turn
 * on. Each stage works on the renormalised result of the one before. From "temperature" on, logits are relative to the
 * largest.
 *
 * @param {ArrayLike<number>} logits  never changed in place
 * @param {SamplingParams} params
 * @param {Iterable<number>} history  ids of the prompt and the completion so far
 * @returns {Stage[]}
 * @throws {SamplingError} for NaN or Infinity among the logits, if no token is left, or for a value out of range
 */
export function stages(logits, params = {}, history = []) {
  const p = checkedParams(params);
  if (logits !== latest?.logits) latest = { logits, model: stageOf("model", new Float64Array(logits)) };
  const result = [latest.model];
  for (const name of Object.keys(STAGES)) {
    const changed = turnsOn(p, name) ? RULES[name](result[result.length - 1], p, history) : null;
    if (changed) result.push(stageOf(name, changed));
  }
  return result;
}

/** The first stage of the last logits, which is the same while a slider moves. @type {{logits: ArrayLike<number>, model: Stage} | null} */
let latest = null;

/** @param {string} name @param {Doubles} logits @returns {Stage} */
function stageOf(name, logits) {
  check(logits, name);
  return { name, logits, probabilities: softmax(logits) };
}

/**
 * Return the smallest id whose cumulative probability exceeds `u` times the total.
 * @param {Doubles} probabilities @param {number} u  in [0, 1)
 */
export function draw(probabilities, u) {
  const threshold = u * total(probabilities);
  let cumulative = 0;
  for (let id = 0; id < probabilities.length; id++) {
    cumulative += probabilities[id];
    if (cumulative > threshold) return id;
  }
  throw new SamplingError(`nothing to draw from with the number ${u}`);
}

/**
 * Return the stretch [low, high) of [0, 1) in which a number draws `id`: stretches lie in order of ids.
 * @param {Doubles} probabilities @param {number} id
 */
export function stretch(probabilities, id) {
  let low = 0;
  for (let other = 0; other < id; other++) low += probabilities[other];
  const sum = total(probabilities);
  return [low / sum, (low + probabilities[id]) / sum];
}

/**
 * Return the name of the first stage that leaves `id` a probability of 0, or null if none does.
 * @param {Stage[]} made @param {number} id
 */
export function cutBy(made, id) {
  return made.find((stage) => stage.probabilities[id] === 0)?.name ?? null;
}

/** Return the entropy in nats; probabilities of 0 add nothing. @param {ArrayLike<number>} probabilities */
export function entropy(probabilities) {
  let sum = 0;
  for (let id = 0; id < probabilities.length; id++) if (probabilities[id] > 0) sum -= probabilities[id] * Math.log(probabilities[id]);
  return sum;
}

/**
 * Count the tokens that each stage kept and cut, and compute the entropy that it left.
 *
 * @param {Stage[]} made
 * @returns {Measure[]}  `cutProbability` is the earlier probability of the tokens cut
 */
export function measured(made) {
  let before = made[0].probabilities;
  return made.map(({ name, probabilities }) => {
    let [kept, cut, cutProbability] = [0, 0, 0];
    for (let id = 0; id < probabilities.length; id++) {
      if (probabilities[id] > 0) kept++;
      else if (before[id] > 0) [cut, cutProbability] = [cut + 1, cutProbability + before[id]];
    }
    before = probabilities;
    return { name, kept, cut, cutProbability, entropy: entropy(probabilities) };
  });
}

/**
 * Return the `n` ids of the highest values; among equal values the lower id comes first.
 * @param {ArrayLike<number>} values @param {number} n
 */
export function likeliest(values, n) {
  /** @type {number[]} */
  const found = []; // highest first; n is small
  for (let id = 0; id < values.length; id++) {
    if (found.length === n && !(values[id] > values[found[n - 1]])) continue;
    let place = found.length;
    while (place > 0 && values[found[place - 1]] < values[id]) place--;
    found.splice(place, 0, id);
    if (found.length > n) found.pop();
  }
  return found;
}

/**
 * Return the `n` likeliest ids, without those of probability 0: among zeros there is no order.
 * @param {ArrayLike<number>} probabilities @param {number} n
 */
export function possible(probabilities, n) {
  return likeliest(probabilities, n).filter((id) => probabilities[id] > 0);
}

// ---- the stages -----------------------------------------------------------------------------------------------------

/**
 * Each stage's rule, which returns the new logits from the stage before; null if it changes nothing.
 * @type {Record<string, (before: Stage, params: All, history: Iterable<number>) => Doubles | null>}
 */
const RULES = {
  logit_bias: biased,
  penalties: penalised,
  temperature: tempered,
  top_k: topK,
  top_p: topP,
  min_p: minP,
};

/** @param {All} params @param {string} name */
function turnsOn(params, name) {
  if (name === "logit_bias") return Object.keys(params.logit_bias).length > 0;
  return PARAMETERS.some((parameter) => parameter.stage === name && params[parameter.name] !== parameter.default);
}

/** @param {Stage} before @param {All} params */
function biased({ logits }, { logit_bias }) {
  const result = logits.slice();
  for (const [id, added] of Object.entries(logit_bias)) {
    if (!(id in result))
      throw new SamplingError(`logit_bias names token ${id}, but the vocabulary ends at ${logits.length - 1}`);
    result[Number(id)] += added;
  }
  return result;
}

/** @param {Stage} before @param {All} params @param {Iterable<number>} history */
function penalised({ logits }, params, history) {
  const result = logits.slice();
  const counts = new Map();
  for (const id of history) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, times] of counts) {
    if (!(id in result)) throw new SamplingError(`the history has token ids outside 0 to ${logits.length - 1}`);
    const repeated = logits[id] > 0 ? logits[id] / params.repetition_penalty : logits[id] * params.repetition_penalty;
    result[id] = repeated - params.presence_penalty - params.frequency_penalty * times;
  }
  return result;
}

/** @param {Stage} before @param {All} params */
function tempered({ logits }, { temperature }) {
  if (temperature === 0) {
    const greedy = new Float64Array(logits.length).fill(-Infinity);
    greedy[likeliest(logits, 1)[0]] = 0; // the lowest id on ties
    return greedy;
  }
  // Subtracting the largest first changes no probability, and a temperature of 1e-300 cannot overflow.
  const most = largest(logits);
  return each(logits, (logit) => (logit - most) / temperature);
}

/** @param {Stage} before @param {All} params */
function topK({ logits }, { top_k }) {
  if (top_k >= logits.length) return null;
  const least = kthLargest(logits, top_k);
  return each(logits, (logit) => (logit >= least ? logit : -Infinity));
}

/** @param {Stage} before @param {All} params */
function topP({ logits }, { top_p }) {
  const most = largest(logits);
  const weight = (/** @type {number} */ logit) => exponential(logit - most); // equal weights of 1 add up without rounding
  const enough = top_p * (1 - ROUNDING) * total(each(logits, weight));
  const [least, kept] = nucleus(logits, weight, enough);
  let ties = kept - count(logits, (logit) => logit > least); // at `least`: the lower ids stay
  return each(logits, (logit) => (logit > least || (logit === least && ties-- > 0) ? logit : -Infinity));
}

/**
 * Return the lowest logit among the most likely tokens whose weights add up to `enough`, and their number. The logits order
 * the tokens: whether two weights tie depends on their rounding. This selection by weight searches only the part where
 * the sum is reached, because sorting all takes ten times as long.
 * @param {Doubles} logits @param {(logit: number) => number} weightOf @param {number} enough
 */
function nucleus(logits, weightOf, enough) {
  const part = logits.slice();
  let weight = 0; // of the tokens known to be kept, which lie after `high`
  let [low, high] = [0, part.length - 1];
  while (low < high) {
    const [i, j] = partition(part, low, high);
    let upper = 0;
    for (let place = high; place >= i; place--) upper += weightOf(part[place]);
    if (weight + upper >= enough) low = i;
    else {
      weight += upper;
      high = i - 1;
      if (high > j && weight + weightOf(part[high]) >= enough) low = high;
      else if (high > j) weight += weightOf(part[high--]);
    }
  }
  return [part[low], part.length - low];
}

/** @param {Doubles} values @param {number} k */
function kthLargest(values, k) {
  const part = values.slice();
  const place = part.length - k;
  let [low, high] = [0, part.length - 1];
  while (low < high) {
    const [i, j] = partition(part, low, high);
    if (place >= i) low = i;
    else if (place <= j) high = j;
    else break;
  }
  return part[place];
}

/**
 * Partition as Hoare does: afterwards part[low..j] <= part[i..high], and a single element between the two parts, if any,
 * has a value between theirs.
 * @param {Doubles} part @param {number} low @param {number} high
 */
function partition(part, low, high) {
  const pivot = part[(low + high) >> 1];
  let [i, j] = [low, high];
  while (i <= j) {
    while (part[i] < pivot) i++;
    while (part[j] > pivot) j--;
    if (i > j) break;
    const swapped = part[i];
    part[i++] = part[j];
    part[j--] = swapped;
  }
  return [i, j];
}

/** @param {Stage} before @param {All} params */
function minP({ logits, probabilities }, { min_p }) {
  const least = min_p * (1 - ROUNDING) * largest(probabilities);
  return each(logits, (logit, id) => (probabilities[id] >= least ? logit : -Infinity));
}

/** Return e^x for a number of 0 or less; 0 below -708, as in Python. @param {number} x */
function exponential(x) {
  return x < -708 ? 0 : Math.exp(x);
}

/** @param {Doubles} logits */
function softmax(logits) {
  const most = largest(logits);
  const result = new Float64Array(logits.length); // a plain loop, because most of the time is spent here
  for (let id = 0; id < logits.length; id++) result[id] = exponential(logits[id] - most);
  const sum = total(result);
  for (let id = 0; id < result.length; id++) result[id] /= sum;
  return result;
}

/**
 * Do the same as Float64Array.map, which in V8 is several times slower than a loop.
 * @param {Doubles} values @param {(value: number, id: number) => number} change
 */
function each(values, change) {
  const result = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) result[i] = change(values[i], i);
  return result;
}

// Loops with an index: until V8 has compiled them, `for (… of …)` takes several times as long.

/** @param {Doubles} values */
function total(values) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

/** @param {Doubles} values */
function largest(values) {
  let most = -Infinity;
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}

/** @param {Doubles} values @param {(value: number) => boolean} condition */
function count(values, condition) {
  let n = 0;
  for (let i = 0; i < values.length; i++) if (condition(values[i])) n++;
  return n;
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/** @param {Doubles} logits @param {string} stage */
function check(logits, stage) {
  for (let id = 0; id < logits.length; id++)
    if (!(logits[id] < Infinity))
      throw new SamplingError(`the logit of token ${id} is ${logits[id]} after ${stage}: nothing can be sampled`);
  if (largest(logits) === -Infinity) throw new SamplingError(`no token is left after ${stage}: every logit is -inf`);
}

/** @param {SamplingParams} params @returns {All} */
function checkedParams(params) {
  const all = /** @type {All} */ ({ ...DEFAULTS, ...params });
  for (const { name, low, high, whole, allowed } of PARAMETERS)
    if (!(whole ? Number.isInteger(all[name]) : typeof all[name] === "number") || !(low <= all[name] && all[name] <= high))
      throw new SamplingError(`${name} must be ${allowed}, got ${all[name]}`);
  return all;
}

// ---- random numbers -------------------------------------------------------------------------------------------------

/**
 * Return a number in [0, 1) with 53 random bits, the same for the same three arguments on every machine.
 *
 * @param {number | string | bigint} seed  below 2^63; a number only up to 2^53
 * @param {number | string | bigint} stream  index of the sample, below 2^64
 * @param {number | string | bigint} position  number of tokens before the one drawn, with an implicit start token; below 2^32
 * @throws {SamplingError}
 */
export function uniform(seed, stream, position) {
  const [s, t, p] = [wholeNumber("seed", seed, 63n), wholeNumber("stream", stream, 64n), wholeNumber("position", position, 32n)];
  const [x0, x1] = philox4x32([p, 0n, t & LOW, t >> 32n], [s & LOW, s >> 32n]);
  return (Number(x0 >> 5n) * 2 ** 26 + Number(x1 >> 6n)) / 2 ** 53;
}

/**
 * Compute Philox4x32-10: four random 32-bit words from a counter and a key (Salmon et al., SC 2011).
 * @param {bigint[]} counter @param {bigint[]} key
 */
export function philox4x32(counter, key) {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const product0 = 0xd2511f53n * c0;
    const product1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(product1 >> 32n) ^ c1 ^ k0, product1 & LOW, (product0 >> 32n) ^ c3 ^ k1, product0 & LOW];
    [k0, k1] = [(k0 + 0x9e3779b9n) & LOW, (k1 + 0xbb67ae85n) & LOW];
  }
  return [c0, c1, c2, c3];
}

const LOW = 0xffffffffn;

/** @param {string} name @param {number | string | bigint} value @param {bigint} bits */
function wholeNumber(name, value, bits) {
  const natural =
    typeof value === "number" ? Number.isSafeInteger(value) : typeof value === "bigint" || /^\d+$/.test(value);
  const number = natural ? BigInt(value) : -1n;
  if (number < 0n || number >= 1n << bits)
    throw new SamplingError(`${name} must be a whole number from 0 to 2^${bits} - 1, got ${value}`);
  return number;
}
