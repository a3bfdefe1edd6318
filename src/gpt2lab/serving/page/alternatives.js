/**
 * What might have stood at a place: its likeliest tokens, what the settings leave of each, and which cut takes it away.
 * A token's button begins a branch with it. Knows nothing of runs or of the network.
 */

import { cutBy, likeliest } from "./sampling.js";
import { STAGES } from "./stages.js";
import { probabilityText } from "./tokens.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

const SHOWN = 10;

const CUTS = { model: "never", ...STAGES };

/**
 * @typedef {object} View
 * @property {string[]} vocabulary
 * @property {{id: number, logprob: number|null, kind: string}|null} token  what stands there; null after the end
 * @property {[number, number][]|null} top  the likeliest ids and their log-probabilities, if they are known already
 * @property {import("./sampling.js").Stage[]|null} stages  of this place, once its logits are there
 * @property {number|null} u  the random number of the draw
 * @property {boolean} pinned
 * @property {string} [note]  a sentence about the settings
 */

export class Alternatives {
  #element;
  #events;
  #title = make("p", "inspector-title");
  #facts = make("p", "hint");
  #head = make("p", "alternative-head");
  #list = make("ol", "alternatives");
  #note = make("p", "hint");

  /**
   * @param {HTMLElement} element
   * @param {{branch(id: number): void, leave(): void}} events  a token is chosen; Escape is pressed
   */
  constructor(element, events) {
    this.#element = element;
    this.#events = events;
    this.#head.append(make("span", "", "token"), make("span", "", "model"), make("span", "", "as set"));
    this.#head.setAttribute("aria-hidden", "true"); // each button says it
    this.#list.setAttribute("aria-label", "Likeliest tokens here");
    this.#list.addEventListener("click", (event) => this.#clicked(event));
    this.#list.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** @param {View} view */
  show(view) {
    const parts = [this.#title, this.#facts, this.#head, this.#list, this.#note];
    if (!this.#list.isConnected) this.#element.replaceChildren(...parts); // once: what is moved loses the focus
    const rows = rowsOf(view);
    this.#showTitle(view, rows);
    this.#note.textContent = view.note ?? "";
    this.#note.hidden = !view.note;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    while (this.#list.children.length < rows.length) this.#list.append(newRow());
    while (this.#list.children.length > rows.length) this.#list.lastChild.remove();
    rows.forEach((row, place) => fillRow(this.#list.children[place], row, view));
    this.#lead(this.#buttons().find((button) => button.dataset.id === focused) ?? this.#buttons()[0]);
  }

  /** Move the keyboard to the list. */
  focus() {
    this.#buttons()
      .find((button) => button.tabIndex === 0)
      ?.focus();
  }

  #showTitle({ vocabulary, token, u, stages }, rows) {
    if (!token) {
      this.#title.replaceChildren(make("span", "hint", "What comes next?"));
      this.#facts.textContent = rows.length ? `Likeliest: ${tokenName(vocabulary, rows[0].id)}` : "Asking the model …";
      return;
    }
    this.#title.replaceChildren(make("span", "token-label", tokenLabel(vocabulary, token.id)));
    const own = rows.find(({ id }) => id === token.id);
    const probability = own?.probability ?? (token.logprob === null ? null : Math.exp(token.logprob));
    const facts = [
      probability === null ? null : probabilityText(probability),
      own?.rank ? (own.rank === 1 ? "the likeliest" : `rank ${own.rank.toLocaleString("en")}${size(stages)}`) : null,
      { given: "in the prompt", chosen: "chosen by you", drawn: u === null ? "drawn" : `drawn by ${u.toFixed(4)}` }[token.kind],
    ];
    this.#facts.textContent = facts.filter(Boolean).join(" · ");
  }

  #buttons() {
    return [...this.#list.querySelectorAll("button")];
  }

  #lead(button) {
    for (const other of this.#buttons()) other.tabIndex = other === button ? 0 : -1;
  }

  #clicked(event) {
    const button = event.target.closest("button");
    if (button) this.#events.branch(Number(button.dataset.id));
  }

  #pressed(event) {
    const buttons = this.#buttons();
    const place = buttons.indexOf(event.target);
    const target = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Escape") this.#events.leave();
    else if (target === undefined || place < 0) return;
    const button = buttons[target];
    if (button) {
      this.#lead(button);
      button.focus();
    }
    event.preventDefault();
  }
}

/** Rows of the list: the likeliest tokens, and the one that stands there if it is not among them. */
function rowsOf({ top, stages, token }) {
  const model = stages?.[0].probabilities;
  const ids = model ? likeliest(model, SHOWN) : (top ?? []).slice(0, SHOWN).map(([id]) => id);
  const known = new Map(top ?? []);
  const of = (id) => (model ? model[id] : known.has(id) ? Math.exp(known.get(id)) : null);
  const rows = ids.map((id, place) => ({ id, rank: place + 1, probability: of(id) }));
  if (token && !ids.includes(token.id)) {
    const probability = model ? model[token.id] : token.logprob === null ? null : Math.exp(token.logprob);
    rows.push({ id: token.id, rank: model ? rankOf(model, token.id) : null, probability });
  }
  const last = stages?.[stages.length - 1].probabilities;
  return rows.map((row) => ({ ...row, left: last?.[row.id] ?? null, cut: stages ? cutBy(stages, row.id) : null }));
}

function rankOf(values, id) {
  let rank = 1;
  for (let other = 0; other < values.length; other += 1) {
    if (values[other] > values[id] || (values[other] === values[id] && other < id)) rank += 1;
  }
  return rank;
}

function size(stages) {
  return stages ? ` of ${stages[0].probabilities.length.toLocaleString("en")}` : "";
}

function newRow() {
  const row = make("li");
  const button = make("button", "alternative");
  button.type = "button";
  button.append(make("span", "bar"), make("span", "token-label"), make("span", "model"), make("span", "left"));
  row.append(button);
  return row;
}

function fillRow(row, { id, probability, left, cut }, { vocabulary, token }) {
  const button = row.firstChild;
  const [bar, label, model, rest] = button.children;
  const own = id === token?.id;
  button.dataset.id = id;
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

function spoken({ vocabulary, id, own, probability, left, cut }) {
  const parts = [`${tokenName(vocabulary, id)}${own ? ", as it stands" : ""}`];
  if (probability !== null) parts.push(`${probabilityText(probability)} by the model`);
  if (cut) parts.push(`cut by ${CUTS[cut]}`);
  else if (left !== null) parts.push(`${probabilityText(left)} with the settings`);
  return `${parts.join(", ")}. Branch with it.`;
}

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
