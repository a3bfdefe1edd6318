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
 * @param {import("./stage_table.js").View} view @param {number} id
 * @returns {(string | Node)[][]}
 */
function stepsOf({ stages, measures, params }, id) {
  const { temperature = 1 } = params;
  const changed = stages.filter(({ name }) => BEFORE_CUTS.includes(name));
  const untempered = changed.filter(({ name }) => name !== "temperature");
  const { logits } = untempered[untempered.length - 1];
  const most = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const distance = logits[id] - most;
  const first = [`logit ${logitText(logits[id])}, the largest is ${logitText(most)}: the distance is ${logitText(distance)}`];
  if (temperature === 0) return [first, ["temperature 0 takes the largest logit; nothing is left to chance"]];
  const { probabilities } = changed[changed.length - 1];
  const weight = Math.exp(distance / temperature);
  const sum = 1 / probabilities.reduce((one, other) => Math.max(one, other), 0);
  const power = temperature === 1 ? logitText(distance) : `${logitText(distance)} ÷ ${temperature}`;
  const steps = [
    first,
    ["e", element("sup", {}, power), ` = ${short(weight)}`],
    [`${short(weight)} ÷ ${short(sum)}, the sum of these for all tokens, = ${probabilityText(probabilities[id])}`],
  ];
  return [...steps, ...cutsOf({ stages, measures }, changed.length, id)];
}

/**
 * @param {Pick<import("./stage_table.js").View, "stages" | "measures">} view @param {number} begin  the first stage that cuts
 * @param {number} id @returns {string[][]}
 */
function cutsOf({ stages, measures }, begin, id) {
  const steps = [];
  for (let at = begin; at < stages.length && stages[at - 1].probabilities[id] > 0; at += 1) {
    const [before, after] = [stages[at - 1], stages[at]].map(({ probabilities }) => probabilities[id]);
    const { name, cut, cutProbability } = measures[at];
    const title = TITLES[name] ?? name;
    if (after === 0) steps.push([`${title} cuts it`]);
    else if (cut)
      steps.push([`${probabilityText(before)} ÷ ${probabilityText(1 - cutProbability)}, which ${title} left, = ${probabilityText(after)}`]);
    else steps.push([`${title} cuts nothing`]);
  }
  return steps;
}

/** Format a logit, with a minus sign as wide as a digit. @param {number} value */
export function logitText(value) {
  return value === -Infinity ? "−∞" : value.toFixed(2).replace("-", "−");
}

/** Format a weight or a sum. @param {number} value */
function short(value) {
  if (value === 0 || (value >= 0.001 && value < 1e6)) return String(Number(value.toPrecision(3)));
  return value.toExponential(1).replace("e+", " × 10^").replace("e-", " × 10^−");
}
