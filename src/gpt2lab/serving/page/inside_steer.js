/**
 * The controls of steering: two texts, between which a direction lies, a layer, and a scale with a slider. This module knows
 * nothing of the network.
 */

import { element, newId } from "./elements.js";

const MOST = 3; // of the slider: beyond it, most models repeat one token
const LIMIT = 1000; // of the server

/** @typedef {{layer: number, positive: string, negative: string, scale: number}} Steer */

export class SteerControls {
  #positive = field("Toward", " happy");
  #negative = field("Away from", " sad");
  #layer = element("select", { id: newId("steer-layer") });
  #slider = element("input", { type: "range", min: -MOST, max: MOST, step: 0.1, value: 0, "aria-label": "Scale, slider" });
  #scale = element("input", { id: newId("scale"), type: "number", min: -LIMIT, max: LIMIT, step: "any", value: 0 });
  node;

  /** @param {() => void} moved  the scale or the layer changes @param {() => void} typed  a text changes */
  constructor(moved, typed) {
    const layer = element("span", {}, element("label", { for: this.#layer.id }, "Before layer "), this.#layer);
    const texts = element("div.choice", {}, ...this.#positive.nodes, ...this.#negative.nodes, layer);
    const label = element("label", { for: this.#scale.id }, "Scale");
    this.node = element("div.steer.controls", {}, texts, element("div.field", {}, label, this.#slider, this.#scale));
    for (const { input } of [this.#positive, this.#negative]) input.addEventListener("input", typed);
    this.#layer.addEventListener("change", moved);
    this.#slider.addEventListener("input", () => {
      this.#scale.value = this.#slider.value;
      moved();
    });
    this.#scale.addEventListener("input", () => {
      this.#slider.value = this.#scale.value || "0";
      const good = this.#scale.validity.valid;
      this.#scale.setAttribute("aria-invalid", String(!good));
      if (good) moved();
    });
  }

  /** Say how many layers the model has. @param {number} nLayer */
  shape(nLayer) {
    if (this.#layer.options.length === nLayer) return;
    this.#layer.replaceChildren(...Array.from({ length: nLayer }, (_, layer) => element("option", { value: layer }, String(layer))));
    this.#layer.value = String(Math.floor(nLayer / 4));
  }

  /** Stop steering. */
  clear() {
    this.#scale.value = this.#slider.value = "0";
  }

  /** Return what is added to the residual stream; null for nothing. @returns {Steer | null} */
  get value() {
    const [scale, positive, negative] = [this.#scale.valueAsNumber, this.#positive.input.value, this.#negative.input.value];
    if (!scale || !this.#scale.validity.valid || !positive || !negative) return null;
    return { layer: Number(this.#layer.value), positive, negative, scale };
  }
}

/** Return the change in words. @param {Steer} steer */
export function steerWords({ layer, positive, negative, scale }) {
  const factor = String(scale).replace("-", "−");
  return `${factor} × the direction from “${visible(negative)}” to “${visible(positive)}” before layer ${layer}`;
}

/** @param {string} text */
function visible(text) {
  return text.replaceAll(" ", "␣");
}

/** @param {string} title @param {string} value */
function field(title, value) {
  const input = element("input", { id: newId("steer"), autocomplete: "off", value });
  return { input, nodes: [element("label", { for: input.id }, title), input] };
}
