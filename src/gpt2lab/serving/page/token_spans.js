/**
 * Tokens as elements on the tint of their probability, and the legend of the tints. The playground and the reports of
 * `gpt2lab explore`, which contain this file, share them.
 */

import { element } from "./elements.js";

/** Probabilities at which the next tint begins. */
const EDGES = Object.freeze([0.001, 0.01, 0.1, 0.5]);

/** Return the tint of a probability: 0 for the unlikeliest … 4 for the likely. @param {number} probability */
export function level(probability) {
  return EDGES.filter((edge) => probability >= edge).length;
}

/** Format a probability as "12.3 %", with the significant digits only. @param {number} probability */
export function probabilityText(probability) {
  const percent = 100 * probability;
  if (percent === 0) return "0 %";
  if (percent < 0.001) return "< 0.001 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  const digits = percent >= 99.95 ? 0 : percent >= 1 ? 1 : percent >= 0.1 ? 2 : 3;
  return `${percent.toFixed(digits)} %`;
}

/** Make a coloured token. @param {string} text @param {number | null} probability  null for no tint */
function tokenSpan(text, probability) {
  const span = element(probability === null ? "span.t" : `span.t.p${level(probability)}`, {}, text);
  if (text === "") span.classList.add("part"); // bytes of an incomplete character
  if (text.includes("\n")) span.classList.add("newline");
  return span;
}

/**
 * Make a token's nodes in a text, the last of which is its element. The space before a word stays outside the tint.
 * @param {string} text @param {number | null} probability
 */
export function tokenNodes(text, probability) {
  const word = /^ (?=\S)/.test(text);
  const span = tokenSpan(word ? text.slice(1) : text, probability);
  return { nodes: word ? [" ", span] : [span], span };
}

/** Fill `list` with the tints and their meanings. @param {HTMLElement} list */
export function showLegend(list) {
  const words = ["under 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 to 50 %", "50 % and more"];
  list.replaceChildren(...words.map((word, tint) => element(`li.t.p${tint}`, {}, word)));
}
