/**
 * A run's numbers in words and as a table. This module knows nothing of the rest of the document.
 */

import { element } from "./elements.js";
import {
  COUNT, FIRST, HIGH, LAST, LOW, MEAN, RATE, SPEED,
  count, evenly, lossText, rateText, tickText, upTo,
} from "./watch_run.js";

const ROWS = 40;

/** @typedef {import("./watch_run.js").Run} Run */
/** @typedef {import("./watch_run.js").Row} Row */

/**
 * Return the numbers of one row of a run in a line.
 * @param {Row} row @param {number} mean  the smoothed loss @param {Row | null} held  the last validation up to it
 */
export function readout(row, mean, held) {
  const words = [`update ${span(row)}`, `loss ${lossText(row[MEAN])}`];
  if (row[COUNT] > 1) words[1] += ` (${lossText(row[LOW])} to ${lossText(row[HIGH])})`;
  words.push(`smoothed ${lossText(mean)}, perplexity ${perplexityText(mean)}`);
  if (held) words.push(`held out ${lossText(held[MEAN])} at ${span(held)}, perplexity ${perplexityText(held[MEAN])}`);
  if (row[RATE] !== null) words.push(`learning rate ${rateText(row[RATE])}`);
  if (row[SPEED] !== null) words.push(`${count(row[SPEED])} tokens per second`);
  return words.join(" · ");
}

/** Describe the chart of losses in a sentence or two. @param {Run} run @param {number[]} means */
export function lossTitle({ name, updates, validations, facts }, means) {
  const words = [`Loss of ${name} over updates.`];
  const [mean, last] = [means[means.length - 1], updates[updates.length - 1]];
  if (last) words.push(`Training loss, smoothed: ${tickText(means[0])} to ${tickText(mean)} after ${count(last[LAST])} updates.`);
  if (facts.best && validations.length) words.push(`Best held-out loss: ${lossText(facts.best.loss)} after ${count(facts.best.step)} updates.`);
  return words.join(" ");
}

/** Make a table of evenly spread rows of a run. @param {Run} run @param {number[]} means */
export function numbersTable({ name, updates, validations }, means) {
  const heads = ["Updates", "Training loss", "Smoothed", "Held-out loss", "Held-out perplexity", "Learning rate", "Tokens per second"];
  const rows = evenly(updates.length, ROWS).map((at) => {
    const row = updates[at];
    const held = upTo(validations, row[LAST])?.[MEAN];
    const cells = [lossText(row[MEAN]), lossText(means[at]), optional(held, lossText), optional(held, perplexityText),
      optional(row[RATE], rateText), optional(row[SPEED], count)];
    return element("tr", {}, element("th", { scope: "row" }, span(row)), ...cells.map((cell) => element("td", {}, cell)));
  });
  return element("table", {},
    element("caption", {}, `${name}: ${rows.length} of ${count(updates.length)} rows; held-out losses are the latest so far.`),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows));
}

/** Return the perplexity of a loss. @param {number} loss */
export function perplexityText(loss) {
  return lossText(Math.exp(loss));
}

/** @param {Row} row */
function span(row) {
  return row[FIRST] === row[LAST] ? count(row[FIRST]) : `${count(row[FIRST])}–${count(row[LAST])}`;
}

/** @param {number | null | undefined} value @param {(value: number) => string} text */
function optional(value, text) {
  return value === null || value === undefined ? "–" : text(value);
}
