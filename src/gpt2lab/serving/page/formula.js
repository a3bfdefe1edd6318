/**
 * The formula from a token's logit to its probability, with the numbers of this place.
 */

import { element } from "./elements.js";
import { STAGES } from "./stages.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel } from "./vocabulary.js";

/** The stages that change logits; those after them cut. */
const BEFORE_CUTS = ["model", "logit_bias", "penalties", "temperature"];
/** @type {Record<string, string>} */
const TITLES = STAGES;
const LEAST_DIGITS = 3;
const MOST_DIGITS = 8;

/**
 * @typedef {(string | Node)[]} Line
 * @typedef {{line: Line, agrees: boolean}} Step  agrees: its result is that of the table
 *
 * @typedef {object} Start  what the formula begins with, for one token
 * @property {number} logit
 * @property {number} most  the largest logit
 * @property {number} temperature
 * @property {number} sum  of the weights of all tokens
 * @property {number} probability  before the cuts
 * @property {{measure: import("./sampling.js").Measure, left: number}[]} cuts  left: the probability after the cut
 */

/**
 * Return the formula for the token at the place, or else for the one drawn, or else the likeliest.
 * @param {import("./stage_table.js").View} view @returns {HTMLElement[]}
 */
export function formulaOf(view) {
  const id = view.chosen ?? view.drawn ?? view.stages[0].probabilities.indexOf(Math.max(...view.stages[0].probabilities));
  const title = element("p", {}, "The probability of ", element("code", {}, tokenLabel(view.vocabulary, id)), ":");
  return [element("div.formula", {}, title, element("ol", {}, ...stepsOf(view, id).map((step) => element("li", {}, ...step))))];
}

/**
 * Return the steps with the fewest digits at which their results are those of the table. Each step computes with the numbers
 * that are shown, so that a reader who does the same gets the same.
 * @param {import("./stage_table.js").View} view @param {number} id
 * @returns {Line[]}
 */
function stepsOf(view, id) {
  const start = startOf(view, id);
  let digits = LEAST_DIGITS;
  let steps = stepsWith(digits, start);
  while (!steps.every(({ agrees }) => agrees) && digits < MOST_DIGITS) {
    digits += 1;
    steps = stepsWith(digits, start);
  }
  return steps.map(({ line }) => line);
}

/** @param {import("./stage_table.js").View} view @param {number} id @returns {Start} */
function startOf({ stages, measures, params }, id) {
  const { temperature = 1 } = params;
  const changed = stages.filter(({ name }) => BEFORE_CUTS.includes(name));
  const untempered = changed.filter(({ name }) => name !== "temperature");
  const { logits } = untempered[untempered.length - 1];
  const { probabilities } = changed[changed.length - 1];
  const cuts = stages.slice(changed.length).map((stage, at) => ({ measure: measures[changed.length + at], left: stage.probabilities[id] }));
  const probability = probabilities[id];
  return { logit: logits[id], most: largest(logits), temperature, sum: 1 / largest(probabilities), probability, cuts };
}

/**
 * @param {number} digits  of each number; a logit has one less after the point
 * @param {Start} start
 * @returns {Step[]}
 */
function stepsWith(digits, { logit, most, temperature, sum, probability, cuts }) {
  const places = digits - 1;
  const [here, top] = [logit, most].map((value) => Number(value.toFixed(places)));
  const distance = Number((here - top).toFixed(places));
  const text = (/** @type {number} */ value) => logitText(value, places);
  const first = sure(`logit ${text(here)}, the largest is ${text(top)}: the distance is ${text(distance)}`);
  if (temperature === 0) return [first, sure("temperature 0 takes the largest logit; nothing is left to chance")];
  const weight = rounded(Math.exp(distance / temperature), digits);
  const all = rounded(sum, digits);
  const share = rounded(weight / all, digits);
  const power = temperature === 1 ? text(distance) : `${text(distance)} ÷ ${temperature}`;
  return [
    first,
    { line: ["e", element("sup", {}, power), ` = ${numberText(weight)}`], agrees: true },
    {
      line: [`${numberText(weight)} ÷ ${numberText(all)}, the sum of these for all tokens, = ${percentText(share)}`],
      agrees: agree(share, probability),
    },
    ...cutsWith(digits, share, cuts),
  ];
}

/**
 * @param {number} digits
 * @param {number} share  the token's probability before the cuts, as shown
 * @param {Start["cuts"]} cuts
 * @returns {Step[]}
 */
function cutsWith(digits, share, cuts) {
  /** @type {Step[]} */
  const steps = [];
  let before = share;
  for (const { measure, left } of cuts) {
    const { name, cut, cutProbability } = measure;
    const title = TITLES[name] ?? name;
    if (left === 0) return [...steps, sure(`${title} cuts it`)];
    const kept = rounded(1 - cutProbability, digits);
    const after = rounded(before / kept, digits);
    const line = `${percentText(before)} ÷ ${percentText(kept)}, which ${title} left, = ${percentText(after)}`;
    steps.push(cut ? { line: [line], agrees: agree(after, left) } : sure(`${title} cuts nothing`));
    if (cut) before = after;
  }
  return steps;
}

/** Return a step that computes nothing. @param {string} text @returns {Step} */
function sure(text) {
  return { line: [text], agrees: true };
}

/** Return whether a probability that was computed from shown numbers reads like the true one. @param {number} shown @param {number} probability */
function agree(shown, probability) {
  return rounded(shown, LEAST_DIGITS) === rounded(probability, LEAST_DIGITS) && probabilityText(shown) === probabilityText(probability);
}

/** @param {number} value @param {number} digits  significant ones */
function rounded(value, digits) {
  return Number(value.toPrecision(digits));
}

/** @param {import("./sampling.js").Doubles} values */
function largest(values) {
  return values.reduce((one, other) => Math.max(one, other), -Infinity);
}

/** Format a logit, with a minus sign as wide as a digit. @param {number} value @param {number} [places]  after the point */
export function logitText(value, places = 2) {
  return value === -Infinity ? "−∞" : value.toFixed(places).replace("-", "−");
}

/** Format a number that is rounded already. @param {number} value */
function numberText(value) {
  if (value === 0 || (value >= 0.001 && value < 1e6)) return String(value);
  return value.toExponential().replace("e+", " × 10^").replace("e-", " × 10^−");
}

/** Format a probability that is rounded already. @param {number} probability */
function percentText(probability) {
  return `${numberText(Number((100 * probability).toPrecision(MOST_DIGITS)))} %`;
}
