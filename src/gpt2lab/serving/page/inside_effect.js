/**
 * The effect of a change inside the model: the next token and the greedy text, as they are and changed, side by side.
 */

import { bar, element } from "./elements.js";
import { about } from "./terms.js";
import { probabilityText } from "./token_spans.js";
import { textOf, tokenLabel } from "./vocabulary.js";

/**
 * @typedef {import("./inside_api.js").Effect} Effect
 * @typedef {import("./inside_api.js").Outcome} Outcome
 */

/**
 * Return the effect in a sentence.
 * @param {Effect} effect @param {string[]} vocabulary @param {string} what  the change @returns {(string | Node)[]}
 */
export function effectText({ token, kl, before, after }, vocabulary, what) {
  if (equal(before, after)) return [`${what}: nothing changes. All numbers are the same, to the bit.`];
  const [from, to] = [before, after].map(({ probability }) => probabilityText(probability));
  const change = from === to ? `stays ${from}` : `goes from ${from} to ${to}`;
  const quoted = element("code", {}, tokenLabel(vocabulary, token));
  return [`${what}: the probability of `, quoted, ` ${change}. The distributions differ by ${klText(kl)}.`];
}

/** @param {number} kl */
function klText(kl) {
  return kl > 0 && kl < 0.001 ? "less than 0.001 nats" : `${Math.max(0, kl).toFixed(3)} nats`;
}

/** Return whether a change has no effect at all. @param {Outcome} one @param {Outcome} other */
function equal(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Show both cases. @param {Effect} effect @param {string[]} vocabulary */
export function effectColumns({ before, after }, vocabulary) {
  const differs = before.tokens.findIndex((id, at) => id !== after.tokens[at]);
  const first = differs < 0 ? Math.min(before.tokens.length, after.tokens.length) : differs;
  const column = (/** @type {string} */ title, /** @type {Outcome} */ { top, tokens }) =>
    element(
      "div.effect-column",
      {},
      element("h4", {}, title),
      element("ol.likely", { "aria-label": `Likeliest tokens, ${title.toLowerCase()}` }, ...top.map((each) => likely(each, vocabulary))),
      greedy(tokens, first, vocabulary),
    );
  const meaning = "Below the likeliest tokens: the text at temperature 0, what differs is marked. Nats: the Kullback–Leibler divergence";
  const words = element("p.hint", {}, meaning, about("kl"));
  return [element("div.effect", {}, column("As it is", before), column("Changed", after)), words];
}

/** @param {number[]} ids @param {number} first  the first that differs @param {string[]} vocabulary */
function greedy(ids, first, vocabulary) {
  const [same, changed] = [ids.slice(0, first), ids.slice(first)].map((part) => textOf(vocabulary, part));
  return element("p.greedy", {}, same, changed ? element("mark.changed", {}, changed) : null);
}

/** @param {[number, number]} each @param {string[]} vocabulary */
function likely([id, probability], vocabulary) {
  return element(
    "li",
    {},
    element("span.token-label", {}, tokenLabel(vocabulary, id)),
    element("span.share", {}, bar(probability)),
    element("span.weight", {}, probabilityText(probability)),
  );
}
