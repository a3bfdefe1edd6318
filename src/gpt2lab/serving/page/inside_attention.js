/**
 * Attention of one head, or the mean of a layer's heads, at the last token read: arcs to the tokens that it reads, with their
 * weights. Begins with the sharpest head; what the user chooses stays chosen at other tokens.
 */

import { around, bar, element, newId, svgElement } from "./elements.js";
import { partButton } from "./inside_parts.js";

const MOST_ROWS = 16; // tokens with their own line; the others are summed up
const MATTER = 6; // heads that are listed
const ALL = "all"; // in the list of heads

/**
 * @typedef {import("./inside_api.js").Inside} Inside
 * @typedef {{layer: number, head: number | null}} Choice  null: all heads of the layer
 * @typedef {{at: number, weight: number}} Read  a token's line
 * @typedef {{skipped: number, weight: number}} Gap  tokens without a line of their own
 */

export class AttentionView {
  #layer = element("select", { id: newId("layer") });
  #head = element("select", { id: newId("head") });
  #sharp = element("button.button.quiet", { type: "button" }, "Sharpest head");
  #change = element("button.button.quiet", { type: "button", "aria-pressed": "false" }, "Change this head");
  #said = element("p.hint", { role: "status" });
  #arcs = element("div.arcs");
  #matter = element("p.hint");
  #list = element("ol.heads-that-matter", { "aria-label": "Heads that matter" });
  /** The user's choice; null: the sharpest. @type {Choice | null} */
  #chosen = null;
  /** @type {{found: Inside, labels: string[], predicted: string} | null} */
  #shown = null;

  #drawn;

  /** @param {HTMLElement} host @param {() => void} drawn  called when a head has been drawn */
  constructor(host, drawn) {
    this.#drawn = drawn;
    const choice = element(
      "div.choice",
      {},
      element("label", { for: this.#layer.id }, "Layer"),
      this.#layer,
      element("label", { for: this.#head.id }, "Head"),
      this.#head,
      this.#sharp,
      this.#change,
    );
    this.#sharp.title = "The head with the largest weight on an earlier token other than the first";
    host.replaceChildren(choice, this.#said, element("div.attention", {}, this.#arcs, element("div", {}, this.#matter, this.#list)));
    const chosen = () => {
      const head = this.#head.value === ALL ? null : Number(this.#head.value);
      this.#choose({ layer: Number(this.#layer.value), head });
    };
    this.#layer.addEventListener("change", chosen);
    this.#head.addEventListener("change", chosen);
    this.#sharp.addEventListener("click", () => this.#choose(null));
    this.#list.addEventListener("click", (event) => {
      const button = around(event, "[data-head]");
      if (!(button instanceof HTMLElement)) return;
      const [layer, head] = (button.dataset.head ?? "").split(":").map(Number);
      this.#choose({ layer, head });
    });
  }

  /**
   * @param {Inside} found @param {string[]} labels  of the tokens read
   * @param {string} predicted  the token whose logit is explained
   */
  show(found, labels, predicted) {
    this.#shown = { found, labels, predicted };
    const { attention } = found;
    const { layer, head } = this.#chosen ?? { layer: 0, head: 0 };
    if (layer >= attention.length || (head ?? 0) >= attention[0].length) this.#chosen = null; // of another model
    offer(this.#layer, numbers(attention.length));
    offer(this.#head, [...numbers(attention[0].length), ALL]);
    this.#matter.replaceChildren("The heads that add most to the logit of ", element("code", {}, predicted), ", or take most from it:");
    this.#list.replaceChildren(...matterRows(found));
    this.#draw();
  }

  /** @param {Choice | null} choice */
  #choose(choice) {
    this.#chosen = choice;
    this.#draw();
  }

  #draw() {
    if (!this.#shown) return;
    const { found, labels, predicted } = this.#shown;
    const { layer, head } = this.#chosen ?? sharpest(found.attention);
    const weights = head === null ? meanOf(found.attention[layer]) : found.attention[layer][head];
    this.#layer.value = String(layer);
    this.#head.value = head === null ? ALL : String(head);
    this.#change.dataset.part = head === null ? `attention:${layer}` : `head:${layer}:${head}`;
    this.#change.textContent = head === null ? "Change these heads" : "Change this head";
    for (const button of this.#list.querySelectorAll("[data-head]"))
      button.setAttribute("aria-pressed", String(button.getAttribute("data-head") === `${layer}:${head}`));
    const most = weights.indexOf(Math.max(...weights));
    const quoted = (/** @type {string} */ label) => element("code", {}, label);
    const read = most === labels.length - 1 ? "the last token" : quoted(labels[most]);
    const who = head === null ? `the heads of layer ${layer} on average read` : `head ${head} of layer ${layer} reads`;
    this.#said.replaceChildren("To predict ", quoted(predicted), `, ${who} `, read, ` most: ${weightText(weights[most])}.`);
    this.#arcs.replaceChildren(...arcsOf(linesOf(weights), labels));
    this.#drawn();
  }
}

/**
 * Return the head with the largest weight on an earlier token other than the first. Many heads rest on the first token when they
 * find nothing to read, and a head that reads its own token moves nothing.
 * @param {number[][][]} attention @returns {{layer: number, head: number}}
 */
export function sharpest(attention) {
  const n = attention[0][0].length;
  const [first, end] = n > 2 ? [1, n - 1] : [0, n];
  let best = { layer: 0, head: 0, weight: -1 };
  attention.forEach((heads, layer) =>
    heads.forEach((weights, head) => {
      const weight = Math.max(...weights.slice(first, end));
      if (weight > best.weight) best = { layer, head, weight };
    }),
  );
  return best;
}

/** Return the mean of each token's weights. @param {number[][]} heads @returns {number[]} */
function meanOf(heads) {
  return heads[0].map((_, at) => heads.reduce((sum, weights) => sum + weights[at], 0) / heads.length);
}

/** @param {number} n */
function numbers(n) {
  return Array.from({ length: n }, (_, number) => String(number));
}

/** Fill a list, unless it has these values. @param {HTMLSelectElement} list @param {string[]} values */
function offer(list, values) {
  if (list.options.length === values.length) return;
  list.replaceChildren(...values.map((value) => element("option", { value }, value)));
}

/**
 * Return the lines to show: the last token, those with the largest weights, and the sums of those between.
 * @param {number[]} weights @returns {(Read | Gap)[]}
 */
export function linesOf(weights) {
  const last = weights.length - 1;
  const order = weights.map((_, at) => at).sort((one, other) => weights[other] - weights[one]);
  const own = new Set([last, ...order.filter((at) => at !== last).slice(0, MOST_ROWS - 1)]);
  /** @type {(Read | Gap)[]} */
  const lines = [];
  weights.forEach((weight, at) => {
    const before = lines[lines.length - 1];
    if (own.has(at)) lines.push({ at, weight });
    else if (before && "skipped" in before) Object.assign(before, { skipped: before.skipped + 1, weight: before.weight + weight });
    else lines.push({ skipped: 1, weight });
  });
  return lines;
}

/** @param {(Read | Gap)[]} lines @param {string[]} labels */
function arcsOf(lines, labels) {
  const last = lines.length - 1;
  const drawing = svgElement("svg", { viewBox: `0 0 96 ${24 * lines.length}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  lines.forEach((line, row) => {
    if ("at" in line && row < last && line.weight >= 0.005) drawing.append(arc(24 * row + 12, 24 * last + 12, line.weight));
  });
  const items = lines.map((line, row) => {
    const share = element("span.share", {}, bar(line.weight));
    const weight = element("span.weight", {}, weightText(line.weight));
    if ("skipped" in line) return element("li.gap", {}, `${line.skipped} ${line.skipped === 1 ? "token" : "tokens"}`, share, weight);
    const label = element("span.token-label", {}, labels[line.at]);
    return element(row === last ? "li.reader" : "li", {}, label, share, weight);
  });
  return [drawing, element("ol", { "aria-label": "Tokens read, with their weights" }, ...items)];
}

/** @param {number} to @param {number} from @param {number} weight */
function arc(to, from, weight) {
  const depth = 75 - (from - to) * 0.22; // distant tokens have wider arcs
  const path = svgElement("path", { d: `M 95 ${from} C ${depth} ${from} ${depth} ${to} 95 ${to}`, "stroke-width": 1 + 7 * weight });
  path.setAttribute("opacity", String(0.35 + 0.65 * weight));
  return path;
}

/** Format a weight, of which the server sends four decimal places. @param {number} weight */
function weightText(weight) {
  return `${(100 * weight).toFixed(1)} %`;
}

/** @param {Inside} found */
function matterRows({ contributions: { heads } }) {
  const all = heads.flatMap((row, layer) => row.map((value, head) => ({ layer, head, value })));
  const most = all.sort((one, other) => Math.abs(other.value) - Math.abs(one.value)).slice(0, MATTER);
  return most.map(({ layer, head, value }) => {
    const name = `layer ${layer}, head ${head}`;
    const button = element("button.button.quiet", { type: "button", "data-head": `${layer}:${head}`, "aria-pressed": "false" }, name);
    const share = Math.abs(value) / Math.abs(most[0].value || 1);
    return element("li", {}, button, partButton(`head:${layer}:${head}`, `head ${head} of layer ${layer}`, value, share));
  });
}
