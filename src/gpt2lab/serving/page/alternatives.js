/**
 * The alternatives at a place: its likeliest tokens, the probability that the settings leave to each, and the stage
 * that cuts it. A token's button begins a branch with it. This module knows nothing of runs or of the network.
 */

import { around, element } from "./elements.js";
import { cutBy, possible } from "./sampling.js";
import { STAGES } from "./stages.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

const SHOWN = 10;

/** @type {Record<string, string>} */
const CUTS = { model: "never", ...STAGES };

/**
 * @typedef {object} View
 * @property {string[]} vocabulary
 * @property {{id: number, logprob: number|null, kind: string}|null} token  the token there; null after the end
 * @property {[number, number][]|null} top  the likeliest ids and their log-probabilities, if already known
 * @property {import("./sampling.js").Stage[]|null} stages  of this place, once its logits are known
 * @property {Set<number>|null} known  the ids whose numbers are exact; null: all
 * @property {number|null} u  the random number of the draw
 * @property {string} note  a sentence about the settings
 *
 * @typedef {object} Row
 * @property {number} id
 * @property {number | null} rank  from 1; null if not known
 * @property {number | null} probability  under the model
 * @property {number | null} left  probability with the settings
 * @property {string | null} cut  the stage that cuts it
 */

export class Alternatives {
  #host;
  #events;
  #title = element("p.inspector-title");
  #facts = element("p.hint");
  #head = element(
    "p.alternative-head",
    { "aria-hidden": "true" }, // each button's label says it
    element("span", {}, "token"),
    element("span", {}, "model"),
    element("span", {}, "with settings"),
  );
  #list = element("ol.alternatives", { "aria-label": "Likeliest tokens here" });
  #note = element("p.hint.inspector-note", { role: "status" });

  /**
   * @param {HTMLElement} host
   * @param {{branch(id: number): void, leave(): void}} events  branch: a token is chosen; leave: Escape
   */
  constructor(host, events) {
    this.#host = host;
    this.#events = events;
    this.#list.addEventListener("click", (event) => this.#clicked(event));
    this.#list.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** @param {View} view */
  show(view) {
    const parts = [this.#title, this.#facts, this.#head, this.#list, this.#note];
    if (!this.#list.isConnected) this.#host.replaceChildren(...parts); // once: moved elements lose the focus
    const rows = rowsOf(view);
    this.#showTitle(view, rows);
    this.#note.textContent = view.note;
    const focused = this.#buttons().find((button) => button === document.activeElement)?.dataset.id;
    while (this.#list.children.length < rows.length) this.#list.append(newRow());
    while (this.#list.children.length > rows.length) this.#list.lastElementChild?.remove();
    const buttons = this.#buttons();
    rows.forEach((row, place) => fillButton(buttons[place], row, view));
    this.#lead(buttons.find((button) => button.dataset.id === focused) ?? buttons[0]);
  }

  /** Report a delay. @param {string} text */
  wait(text) {
    this.#note.textContent = text;
  }

  /** Move the keyboard focus to the list. */
  focus() {
    this.#buttons()
      .find((button) => button.tabIndex === 0)
      ?.focus();
  }

  /** @param {View} view @param {Row[]} rows */
  #showTitle({ vocabulary, token, u, stages }, rows) {
    if (!token) {
      this.#title.replaceChildren(element("span.hint", {}, "What comes next?"));
      const [likeliest] = rows;
      const known = likeliest && ["Likeliest: ", element("code", {}, tokenLabel(vocabulary, likeliest.id))];
      this.#facts.replaceChildren(...(known ?? ["Asking the model …"]));
      return;
    }
    this.#title.replaceChildren(element("span.token-label", {}, tokenLabel(vocabulary, token.id)));
    const own = rows.find(({ id }) => id === token.id);
    const probability = own?.probability ?? (token.logprob === null ? null : Math.exp(token.logprob));
    const facts = [
      probability === null ? null : probabilityText(probability),
      own?.rank ? (own.rank === 1 ? "the likeliest" : `rank ${own.rank.toLocaleString("en")}${size(stages)}`) : null,
      { given: "in the prompt", chosen: "chosen by you", drawn: u === null ? "drawn" : `random number ${u.toFixed(4)}` }[token.kind],
    ];
    this.#facts.textContent = facts.filter(Boolean).join(" · ");
  }

  #buttons() {
    return [...this.#list.querySelectorAll("button")];
  }

  /** @param {HTMLButtonElement} [button] */
  #lead(button) {
    for (const other of this.#buttons()) other.tabIndex = other === button ? 0 : -1;
  }

  /** @param {Event} event */
  #clicked(event) {
    const button = around(event, "button");
    if (button instanceof HTMLElement) this.#events.branch(Number(button.dataset.id));
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const buttons = this.#buttons();
    const place = buttons.findIndex((button) => button === event.target);
    /** @type {Record<string, number | undefined>} */
    const targets = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: buttons.length - 1 };
    const target = targets[event.key];
    if (event.key === "Escape") this.#events.leave();
    else if (target === undefined || place < 0) return;
    const button = buttons[target ?? -1];
    if (button) {
      this.#lead(button);
      button.focus();
    }
    event.preventDefault();
  }
}

/**
 * Return the rows of the list: the likeliest tokens, and the token at the place if it is not among them.
 * @param {View} view @returns {Row[]}
 */
function rowsOf({ top, stages, known: exact, token }) {
  const model = stages?.[0].probabilities;
  const last = stages?.[stages.length - 1].probabilities;
  const ids = model ? possible(model, SHOWN) : (top ?? []).slice(0, SHOWN).map(([id]) => id);
  const known = new Map(top ?? []);
  /** @type {(id: number, rank: number | null, logprob?: number | null) => Row} */
  const rowOf = (id, rank, logprob = null) => {
    const probability = model ? model[id] : logprob === null ? null : Math.exp(logprob);
    return { id, rank, probability, left: last?.[id] ?? null, cut: stages ? cutBy(stages, id) : null };
  };
  const rows = ids.map((id, place) => rowOf(id, place + 1, known.get(id)));
  if (token && !ids.includes(token.id)) rows.push(ownRow());
  return rows;

  /** Return the row of the token at the place, with its model's probability as it was drawn if that is all that is known. */
  function ownRow() {
    const { id, logprob } = /** @type {NonNullable<typeof token>} */ (token);
    if (!exact || exact.has(id)) return rowOf(id, model ? rankOf(model, id) : null, logprob);
    return { id, rank: null, probability: logprob === null ? null : Math.exp(logprob), left: null, cut: null };
  }
}

/** @param {ArrayLike<number>} values @param {number} id */
function rankOf(values, id) {
  let rank = 1;
  for (let other = 0; other < values.length; other += 1) {
    if (values[other] > values[id] || (values[other] === values[id] && other < id)) rank += 1;
  }
  return rank;
}

/** @param {import("./sampling.js").Stage[] | null} stages */
function size(stages) {
  return stages ? ` of ${stages[0].probabilities.length.toLocaleString("en")}` : "";
}

function newRow() {
  const parts = [element("span.bar"), element("span.token-label"), element("span.model"), element("span.left")];
  return element("li", {}, element("button.alternative", { type: "button" }, ...parts));
}

/** @param {HTMLButtonElement} button @param {Row} row @param {View} view */
function fillButton(button, { id, probability, left, cut }, { vocabulary, token }) {
  const [bar, label, model, rest] = button.querySelectorAll("span");
  const own = id === token?.id;
  button.dataset.id = String(id);
  button.classList.toggle("own", own);
  button.classList.toggle("cut", cut !== null);
  button.setAttribute("aria-current", String(own));
  bar.style.setProperty("--part", String(probability ?? 0));
  bar.style.setProperty("--rest", String(left ?? 0));
  label.textContent = tokenLabel(vocabulary, id);
  model.textContent = probability === null ? "…" : probabilityText(probability);
  rest.textContent = cut ? `cut: ${CUTS[cut]}` : left === null ? "…" : probabilityText(left);
  button.setAttribute("aria-label", spoken({ vocabulary, id, own, probability, left, cut }));
}

/** @param {{vocabulary: string[], own: boolean} & Omit<Row, "rank">} row */
function spoken({ vocabulary, id, own, probability, left, cut }) {
  const parts = [`${tokenName(vocabulary, id)}${own ? ", in the text" : ""}`];
  if (probability !== null) parts.push(`model ${probabilityText(probability)}`);
  if (cut) parts.push(`cut by ${CUTS[cut]}`);
  else if (left !== null) parts.push(`with the settings ${probabilityText(left)}`);
  return `${parts.join(", ")}. Start a branch.`;
}
