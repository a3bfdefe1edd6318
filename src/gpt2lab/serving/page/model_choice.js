/**
 * The choice of a model in the page's header, and its size in words.
 */

import { byId } from "./elements.js";

/** @typedef {import("./api.js").ModelCard} ModelCard */

export class ModelChoice {
  #select = byId("model", HTMLSelectElement);
  #facts = byId("model-facts");
  #settings;
  /** @type {ModelCard[]} */
  #cards = [];

  /** @param {typeof import("./settings.js").settings} settings */
  constructor(settings) {
    this.#settings = settings;
    this.#select.addEventListener("change", () => settings.set({ model: this.#select.value }));
    settings.subscribe(() => this.#show());
  }

  /** Offer these models. @param {ModelCard[]} cards */
  offer(cards) {
    this.#cards = cards;
    this.#select.replaceChildren(...cards.map(({ id }) => new Option(id, id)));
    this.#select.disabled = cards.length < 2;
    this.#show();
  }

  #show() {
    const { model } = this.#settings.get();
    const card = this.#cards.find(({ id }) => id === model) ?? this.#cards[0];
    if (!card) return;
    this.#select.value = card.id;
    this.#facts.textContent = factsOf(card.gpt2lab);
  }
}

/** "11.4M parameters · 6 layers · context 256 · int8". @param {import("./api.js").ModelFacts} facts */
function factsOf({ n_parameters: n, n_layer: layers, n_ctx: context, precision }) {
  const size = n >= 1e9 ? `${(n / 1e9).toFixed(1)}B` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)}M` : n.toLocaleString("en");
  return `${size} parameters · ${layers} layers · context ${context.toLocaleString("en")} · ${precision}`;
}
