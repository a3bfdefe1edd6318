/**
 * The logit lens as a table: after each layer, and before the first, the probability and rank of one token, and the likeliest.
 */

import { bar, element } from "./elements.js";
import { probabilityText } from "./token_spans.js";

/**
 * @param {import("./inside_api.js").Inside} found
 * @param {(id: number) => string} label  returns a token's text
 */
export function lensTable({ lens, token }, label) {
  const heads = ["after layer", "likeliest", label(token), "rank"];
  return element(
    "table",
    {},
    element(
      "caption",
      {},
      "Each row: what the model would predict if it stopped there. The third column follows ",
      element("code", {}, label(token)),
      ": its probability, and its rank among all tokens. Rows where it ranks first are bold.",
    ),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...lens.map((row, layer) => rowOf(row, nameOf(layer, lens.length), label))),
  );
}

/** @param {number} layers  before the row @param {number} rows */
function nameOf(layers, rows) {
  if (layers === 0) return "none";
  return layers === rows - 1 ? `${layers - 1}, the last` : String(layers - 1);
}

/** @param {import("./inside_api.js").LensRow} row @param {string} name @param {(id: number) => string} label */
function rowOf({ probability, rank, top }, name, label) {
  const [likeliest, most] = top[0];
  return element(
    rank === 1 ? "tr.is-first" : "tr",
    {},
    element("th", { scope: "row" }, name),
    element("td", {}, element("code", {}, label(likeliest)), " ", element("small", {}, probabilityText(most))),
    element("td", {}, probabilityText(probability), bar(probability)),
    element("td", {}, rank.toLocaleString("en")),
  );
}
