/**
 * The part of the page that looks inside the model. While it is closed it costs nothing: its modules are loaded, and the
 * server is asked, only once it is open.
 */

import { byId } from "./elements.js";

/**
 * @typedef {object} InsidePlace
 * @property {string} model
 * @property {number[]} context  the ids before the place
 * @property {number} contextSize  of the model
 * @property {number | null} chosen  the id at the place; null after the end
 * @property {string[]} vocabulary
 */

export class InsideSection {
  #details = byId("inside", HTMLDetailsElement);
  /** @type {InsidePlace | null} */
  #place = null;
  /** @type {Promise<import("./inside_panel.js").InsidePanel> | null} */
  #panel = null;

  constructor() {
    this.#details.addEventListener("toggle", () => this.#show());
  }

  /** Show the inside at a place, now or when the section is opened. @param {InsidePlace} place */
  look(place) {
    this.#place = place;
    this.#show();
  }

  async #show() {
    if (!this.#details.open || !this.#place) return;
    this.#panel ??= import("./inside_panel.js").then(({ InsidePanel }) => new InsidePanel());
    try {
      (await this.#panel).look(this.#place);
    } catch {
      this.#panel = null; // the next attempt loads it again
      byId("inside-note").textContent = "The server does not answer. Close this part and open it again to try once more.";
    }
  }
}
