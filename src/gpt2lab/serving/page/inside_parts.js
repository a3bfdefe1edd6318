/**
 * Direct logit attribution: what the embeddings, and each layer's attention and MLP, add to a token's logit, as bars to both
 * sides of zero; and the tokens whose embeddings are nearest to that token's.
 */

import { element } from "./elements.js";
import { logitText } from "./formula.js";

/** @typedef {import("./inside_api.js").Inside} Inside */

/** @param {Inside} found @param {(id: number) => string} label  returns a token's text */
export function contributionTable({ contributions: parts, token }, label) {
  const { embedding, position, attention, mlp } = parts;
  const rest = parts.norm_bias + parts.rest;
  const most = Math.max(...[embedding, position, ...attention, ...mlp, rest].map(Math.abs)) || 1;
  const cell = (/** @type {number} */ value) => element("td", {}, signed(value, Math.abs(value) / most));
  const name = (/** @type {string} */ text) => element("th", { scope: "row" }, text);
  const once = (/** @type {string} */ text, /** @type {Node} */ node, /** @type {string} */ meaning) =>
    element("tr", {}, name(text), node, element("td.meaning", {}, meaning));
  const part = (/** @type {string} */ id, /** @type {string} */ what, /** @type {number} */ value) =>
    element("td", {}, partButton(id, what, value, Math.abs(value) / most));
  const rows = attention.map((value, layer) =>
    element(
      "tr",
      {},
      name(`layer ${layer}`),
      part(`attention:${layer}`, `the attention of layer ${layer}`, value),
      part(`mlp:${layer}`, `the MLP of layer ${layer}`, mlp[layer]),
    ),
  );
  return element(
    "table",
    {},
    element("caption.visually-hidden", {}, `Contributions to the logit of ${label(token)}`),
    element("thead", {}, element("tr", {}, element("td"), ...["attention", "MLP"].map((head) => element("th", { scope: "col" }, head)))),
    element(
      "tbody",
      {},
      once("embedding", cell(embedding), "of the last token read"),
      once("position", cell(position), "the embedding of its position"),
      ...rows,
      once("the rest", cell(rest), "the bias of the last layer norm; rounding"),
    ),
    element("tfoot", {}, once("logit", element("td", {}, signed(parts.logit, 0)), "the sum of all")),
  );
}

/**
 * Make a number with its bar, as a button that changes the part.
 * @param {string} part  its name in inside_changes.js @param {string} what  the part in words
 * @param {number} value @param {number} share  of the longest bar
 */
export function partButton(part, what, value, share) {
  const label = `Change ${what}, which adds ${plus(value)}`;
  return element("button.part", { type: "button", "data-part": part, "aria-pressed": "false", "aria-label": label }, signed(value, share));
}

/**
 * Make a number with its bar to the left or right of zero.
 * @param {number} value @param {number} share  of the longest bar
 */
function signed(value, share) {
  const side = value < 0 ? "minus" : "plus";
  const made = element(`span.signed.${side}`, {}, element("span.number", {}, plus(value)), element("span.track", {}, element("span.bar")));
  made.style.setProperty("--share", String(share));
  return made;
}

/** @param {number} value */
function plus(value) {
  const text = logitText(value);
  if (Number(value.toFixed(2)) === 0) return "0.00";
  return value > 0 ? `+${text}` : text;
}

/** @param {Inside} found @param {(id: number) => string} label */
export function neighbourList({ neighbours }, label) {
  const items = neighbours.map(([id, cosine]) =>
    element("li", {}, element("code", {}, label(id)), " ", element("small", {}, cosine.toFixed(2).replace("-", "−"))),
  );
  return element("ol.nearest", { "aria-label": "Nearest tokens and their cosines" }, ...items);
}
