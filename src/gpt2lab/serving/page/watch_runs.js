/**
 * The runs that share the chart: a switch and a colour for each, kept over visits.
 */

import { byId, element } from "./elements.js";

const STORED = "gpt2lab.watch.runs";
export const COLOURS = 8; // of watch.css
const AT_ONCE = 8; // runs that are drawn before the user chooses

/** @typedef {{shown?: boolean, colour?: number}} Choice  a missing value was never chosen */

export class RunList {
  #place = byId("runs");
  #list = byId("run-list");
  #changed;
  /** @type {string[]} */
  #names = [];
  /** @type {Record<string, Choice>} */
  #choices = stored();

  /** @param {() => void} changed  called when the user switches a run or changes its colour */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Return whether a run is drawn beside the one that is chosen. @param {string} name */
  isShown(name) {
    return this.#choices[name]?.shown ?? this.#names.indexOf(name) < AT_ONCE;
  }

  /** Return the class of a run's colour. @param {string} name */
  colour(name) {
    return `colour-${this.#number(name)}`;
  }

  /** List these runs; `main` is always drawn. @param {string[]} names @param {string} main */
  show(names, main) {
    const key = JSON.stringify([names, main]);
    if (this.#place.dataset.key === key) return;
    this.#place.dataset.key = key;
    this.#names = names;
    this.#place.hidden = names.length < 2;
    this.#list.replaceChildren(...names.map((name) => this.#item(name, name === main)));
  }

  /** @param {string} name @param {boolean} isMain */
  #item(name, isMain) {
    const box = element("input", { type: "checkbox", disabled: isMain });
    box.checked = isMain || this.isShown(name);
    box.addEventListener("change", () => this.#choose(name, { shown: box.checked }));
    const next = element("button.recolour", { type: "button", "aria-label": `Another colour for ${name}` }, element("span.swatch.smoothed"));
    const item = element("li", { class: this.colour(name) }, next, element("label", {}, box, name));
    next.addEventListener("click", () => {
      this.#choose(name, { colour: (this.#number(name) + 1) % COLOURS });
      item.className = this.colour(name);
    });
    return item;
  }

  /** @param {string} name */
  #number(name) {
    return this.#choices[name]?.colour ?? Math.max(0, this.#names.indexOf(name)) % COLOURS;
  }

  /** @param {string} name @param {Choice} choice */
  #choose(name, choice) {
    this.#choices[name] = { ...this.#choices[name], ...choice };
    try {
      localStorage.setItem(STORED, JSON.stringify(this.#choices));
    } catch {
      // storage failed: the user chooses again next time
    }
    this.#changed();
  }
}

/** Return the choices of earlier visits, as far as they are this page's. @returns {Record<string, Choice>} */
function stored() {
  try {
    const found = Object.entries(JSON.parse(localStorage.getItem(STORED) ?? "{}"));
    return Object.fromEntries(found.map(([name, choice]) => [name, checked(choice ?? {})]));
  } catch {
    return {};
  }
}

/** @param {any} choice @returns {Choice} */
function checked({ shown, colour }) {
  const known = Number.isInteger(colour) && colour >= 0 && colour < COLOURS;
  return { shown: typeof shown === "boolean" ? shown : undefined, colour: known ? colour : undefined };
}
