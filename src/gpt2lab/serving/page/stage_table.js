/**
 * The next token, stage by stage: a table with the logits, a column for each stage of sampling that is on, and a bar for each
 * of the likeliest tokens; each stage's cut and entropy; below it the formula with its numbers, and the draw.
 *
 * Everything is computed here from the logits, so that moving a slider needs nothing from the server.
 */

import { drawOf } from "./draw_line.js";
import { bar, element } from "./elements.js";
import { formulaOf, logitText } from "./formula.js";
import { cutBy, draw, measured, possible } from "./sampling.js";
import { STAGES } from "./stages.js";
import { defined } from "./terms.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel } from "./vocabulary.js";

const TOP = 10; // rows for the likeliest tokens of the model
const TOP_LEFT = 3; // and for the likeliest after the last stage, where penalties moved others up
/** @type {Record<string, string>} */
const TITLES = { model: "model", ...STAGES };

/**
 * @typedef {object} Place
 * @property {Stage[]} stages
 * @property {Set<number> | null} [known]  the ids whose numbers are exact; null: all
 * @property {import("./sampling.js").SamplingParams} params
 * @property {string[]} vocabulary
 * @property {number | null} u  the random number of the draw; null if there is none yet
 * @property {number | null} chosen  the id at the place
 *
 * @typedef {import("./sampling.js").Stage} Stage
 * @typedef {import("./sampling.js").Measure} Measure
 *
 * @typedef {object} View
 * @property {Stage[]} stages
 * @property {Measure[]} measures
 * @property {boolean} exact  the numbers of all tokens are known
 * @property {Record<string, any>} params
 * @property {string[]} vocabulary
 * @property {number | null} chosen
 * @property {number | null} u
 * @property {number | null} drawn  the id that u draws; null if it is not known
 * @property {import("./sampling.js").Doubles} left  probabilities after the last stage
 *
 * @typedef {{name: string, setting: string, at: number, stage: Stage, measure: Measure}} Column  at: index of the stage
 */

export class StageTable {
  #host;
  #place = element("p.stage-place");
  #wide = element("div.stage-table-scroll", { tabindex: 0, role: "region", "aria-label": "Stages of sampling" });
  #units = element("p.hint", {}, defined("Entropies", "entropy"), " are in ", defined("nats", "nat"), ".");
  #formula = element("div");
  #drawn = element("div");
  #order = orderHint();
  #draw = element("div.draw-part", {}, this.#drawn, this.#order);

  /** @param {HTMLElement} host  the table takes it over */
  constructor(host) {
    this.#host = host;
    host.classList.add("stage-table");
    this.clear();
  }

  clear() {
    this.#host.replaceChildren(
      element("p.hint", {}, "Point at a token, or move to it with the arrow keys, to see how it was drawn."),
    );
  }

  /** Hide the numbers until those of the token `label` arrive; the space stays. @param {string} label  "" after the end */
  wait(label) {
    this.#host.setAttribute("aria-busy", "true");
    this.#title(label);
  }

  /** @param {Place} place */
  show({ stages, known = null, params, vocabulary, u, chosen }) {
    const left = stages[stages.length - 1].probabilities;
    const certain = !known || left.every((probability, id) => probability === 0 || known.has(id));
    const drawn = u === null || !certain ? null : draw(left, u);
    const view = { stages, measures: measured(stages), exact: !known, params, vocabulary, chosen, u, drawn, left };
    const rows = rowsOf(view);
    this.#wide.replaceChildren(table(view, rows));
    this.#formula.replaceChildren(...formulaOf(view));
    this.#drawn.replaceChildren(...drawOf(view, rows));
    this.#order.hidden = drawn === null;
    this.#host.setAttribute("aria-busy", "false");
    this.#title(chosen === null ? "" : tokenLabel(vocabulary, chosen));
    const parts = [this.#place, this.#wide, this.#units, this.#formula, this.#draw];
    if (!this.#wide.isConnected) this.#host.replaceChildren(...parts); // once: keeps focus and scroll
  }

  /** @param {string} label */
  #title(label) {
    this.#place.replaceChildren(...(label ? ["At ", element("code", {}, label)] : ["After the last token"]));
  }
}

/** Make the explanation of the line of the draw. */
function orderHint() {
  const ids = defined("ids", "token_id");
  return element("p.hint", {}, "The tokens lie in order of their ", ids, ". The gaps belong to tokens without a row in the table.");
}

/** Return the ids of the rows, the model's likeliest first. @param {View} view */
function rowsOf({ stages, left, chosen, drawn }) {
  const model = stages[0].probabilities;
  const ids = new Set([...possible(model, TOP), ...possible(left, TOP_LEFT)]);
  if (chosen !== null) ids.add(chosen);
  if (drawn !== null) ids.add(drawn);
  return [...ids].sort((a, b) => model[b] - model[a] || a - b);
}

// ---- the table ------------------------------------------------------------------------------------------------------

/** @param {View} view @param {number[]} rows */
function table(view, rows) {
  const columns = columnsOf(view);
  const longest = Math.max(...view.stages.flatMap(({ probabilities }) => rows.map((id) => probabilities[id])));
  const others = view.left.length - rows.length;
  const about = view.exact ? "" : "≈ ";
  const made = element(
    "table",
    {},
    element("caption.visually-hidden", {}, "Logits of the likeliest tokens, and their probability after each stage of sampling"),
    element("colgroup", {}, element("col.token"), element("col.logit"), ...columns.map(() => element("col.on"))),
    element("thead", {}, element("tr", {}, element("td"), logitHead(), ...columns.map(heading))),
    element("tbody", {}, ...rows.map((id) => tokenRow(view, columns, id, longest))),
    element(
      "tfoot",
      {},
      row(`${count(others)} others`, columns, ({ kept }, stage) => probabilityText(restOf(stage, rows, kept))),
      row("left", columns, ({ kept }) => `${count(kept)} ${kept === 1 ? "token" : "tokens"}`),
      row("cut here", columns, cutText),
      row("entropy", columns, ({ entropy }) => `${about}${entropy.toFixed(2)} nats`),
    ),
  );
  made.style.setProperty("--stages", String(columns.length));
  return made;
}

/** Return a column for each stage that is on. @param {View} view @returns {Column[]} */
function columnsOf({ stages, measures, params }) {
  return stages.map((stage, at) => ({ name: stage.name, setting: settingOf(stage.name, params), stage, measure: measures[at], at }));
}

/** @param {string} name @param {Record<string, any>} params */
function settingOf(name, params) {
  if (name !== "penalties") return params[name] === undefined ? "" : String(params[name]);
  const { repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0 } = params;
  const parts = [
    repetition_penalty === 1 ? "" : `×${repetition_penalty}`,
    presence_penalty === 0 ? "" : `−${presence_penalty}`,
    frequency_penalty === 0 ? "" : `−${frequency_penalty}·n`,
  ];
  return parts.filter(Boolean).join(" ").replaceAll("−-", "+");
}

function logitHead() {
  return element("th", { scope: "col", "data-stage": "logit" }, "logit", element("small", {}, "\u00a0"));
}

/** @param {Column} column */
function heading({ name, setting }) {
  return element("th", { scope: "col", "data-stage": name }, TITLES[name], element("small", {}, setting || "\u00a0"));
}

/** @param {View} view @param {Column[]} columns @param {number} id @param {number} longest */
function tokenRow(view, columns, id, longest) {
  const isDrawn = id === view.drawn;
  const label = element("th", { scope: "row" }, element("code", {}, tokenLabel(view.vocabulary, id)));
  if (isDrawn) label.append(element("small.drawn", {}, "drawn"));
  else if (id === view.chosen) label.append(element("small", {}, "here"));
  const cutAt = view.stages.findIndex(({ name }) => name === cutBy(view.stages, id));
  const cells = columns.map(({ stage, at }) => {
    if (cutAt >= 0 && at >= cutAt) return element("td.cut", {}, at === cutAt ? "✕ cut" : "–");
    const probability = stage.probabilities[id];
    return element("td", {}, probabilityText(probability), bar(probability / longest));
  });
  const state = isDrawn ? "tr.is-drawn" : id === view.chosen ? "tr.is-chosen" : "tr";
  const logit = element("td.logit", {}, logitText(view.stages[0].logits[id]));
  return element(state, { "data-id": id }, label, logit, ...cells);
}

/** @param {string} title @param {Column[]} columns @param {(measure: Measure, stage: Stage) => string} textOf */
function row(title, columns, textOf) {
  const cells = columns.map(({ measure, stage }) => element("td", {}, textOf(measure, stage)));
  return element("tr", {}, element("th", { scope: "row" }, title), element("td.logit"), ...cells);
}

/** @param {Measure} measure */
function cutText({ cut, cutProbability }) {
  return cut ? `${probabilityText(cutProbability)}: ${count(cut)} ${cut === 1 ? "token" : "tokens"}` : "–";
}

/** @param {Stage} stage @param {number[]} rows @param {number} kept  tokens that the stage leaves */
function restOf({ probabilities }, rows, kept) {
  if (rows.filter((id) => probabilities[id] > 0).length === kept) return 0;
  return Math.max(0, 1 - rows.reduce((sum, id) => sum + probabilities[id], 0));
}

/** @param {number} number */
function count(number) {
  return number.toLocaleString("en");
}
