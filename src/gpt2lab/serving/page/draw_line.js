/**
 * The draw of a token: the stretch of [0, 1) into which its random number fell, in a sentence and as a line.
 */

import { element } from "./elements.js";
import { stretch } from "./sampling.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

/** @typedef {import("./stage_table.js").View} View */

/**
 * Return the sentence about the draw, and its line if the number and all probabilities are known.
 * @param {View} view @param {number[]} rows
 */
export function drawOf(view, rows) {
  const { u, drawn } = view;
  if (u === null) return [element("p.draw", {}, "No seed is set, so the random number for this token is not known yet.")];
  if (drawn === null) return [element("p.draw", {}, "Choose this token to see its draw, which needs the logits of all tokens.")];
  return [element("p.draw", {}, ...sentence(view, u, drawn)), line(view, u, drawn, rows)];
}

/** @param {View} view @param {number} u @param {number} drawn */
function sentence({ chosen, vocabulary, left }, u, drawn) {
  const [low, high] = stretch(left, drawn);
  const quoted = (/** @type {number} */ id) => element("code", {}, tokenLabel(vocabulary, id));
  const places = placesFor(low, high, u);
  /** @type {(string | Node)[]} */
  const parts = ["The number ", element("b", {}, u.toFixed(Math.max(places, 6))), " draws ", quoted(drawn)];
  parts.push(
    `, which covers ${low.toFixed(places)} to ${high.toFixed(places)} on the line below (${probabilityText(left[drawn])}).`,
  );
  if (chosen !== null && chosen !== drawn) parts.push(" The text has ", quoted(chosen), " here.");
  return parts;
}

/**
 * Return the digits after the point with which `u` still lies in its stretch, and the stretch has its length.
 * @param {number} low @param {number} high @param {number} u
 */
function placesFor(low, high, u) {
  const holds = (/** @type {number} */ places) => {
    const [from, to] = [low, high].map((value) => Number(value.toFixed(places)));
    const number = Number(u.toFixed(Math.max(places, 6)));
    return from <= number && number < to && probabilityText(to - from) === probabilityText(high - low);
  };
  let places = 4;
  while (!holds(places) && places < 12) places += 1;
  return places;
}

/**
 * Draw the line from 0 to 1: tokens in order of their ids, each as long as its probability, and the number on it.
 * @param {View} view @param {number} u @param {number} drawn @param {number[]} rows
 */
function line({ left, vocabulary }, u, drawn, rows) {
  const name = `From 0 to 1, in order of token ids; ${u.toFixed(3)} falls on ${tokenName(vocabulary, drawn)}`;
  const strip = element("div.draw-line", { role: "img", "aria-label": name });
  const ends = cumulative(left, rows);
  for (const id of rows.filter((each) => left[each] > 0)) {
    const [low, high] = ends.get(id) ?? [0, 0];
    const part = element(id === drawn ? "span.part.is-drawn" : "span.part", { title: tokenLabel(vocabulary, id) });
    if (high - low > 0.045) part.append(tokenLabel(vocabulary, id));
    part.style.setProperty("--from", String(low));
    part.style.setProperty("--share", String(high - low));
    strip.append(part);
  }
  const mark = element("span.mark");
  mark.style.setProperty("--from", String(u));
  strip.append(mark);
  return strip;
}

/**
 * Return the stretch of each of `ids`, in one pass.
 * @param {import("./sampling.js").Doubles} probabilities @param {number[]} ids @returns {Map<number, [number, number]>}
 */
function cumulative(probabilities, ids) {
  const wanted = new Set(ids);
  const found = new Map();
  let sum = 0;
  for (let id = 0; id < probabilities.length; id++) {
    const low = sum;
    sum += probabilities[id];
    if (wanted.has(id)) found.set(id, [low, sum]);
  }
  return found;
}
