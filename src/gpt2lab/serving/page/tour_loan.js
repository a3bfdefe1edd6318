/**
 * What the tour borrows from the user: the settings and the text on display. It shows its steps with its own, and gives
 * the user's back.
 */

import { DEFAULTS, samplingParams } from "./settings.js";
import { NARROW } from "./tour_place.js";

/**
 * @typedef {import("./tour_steps.js").Step} Step
 *
 * @typedef {object} Page
 * @property {typeof import("./settings.js").settings} settings
 * @property {import("./text_panel.js").TextPanel} panel
 * @property {Promise<unknown>} begun  the page shows its first text
 */

const OWN = { ...samplingParams(DEFAULTS), seed: 1, max_tokens: 40 };

export class TourLoan {
  #page;
  /** @type {(() => void) | null} */
  #textBack = null;
  #begins = 0;

  /** @param {Page} page */
  constructor(page) {
    this.#page = page;
  }

  /**
   * Give a step what it needs. Return whether it is still the step on display by then.
   * @param {Step} step
   */
  async begin({ example = false, after = 0, pinned }) {
    const { settings, panel, begun } = this.#page;
    const mine = (this.#begins += 1);
    await begun;
    if (mine !== this.#begins) return false;
    const first = !this.#textBack;
    if (first) {
      this.#textBack = panel.lendText();
      settings.lend();
      settings.set({ prompt: DEFAULTS.prompt });
    }
    settings.set(OWN);
    if (example || first || panel.isEmpty) await panel.showExample();
    if (mine !== this.#begins) return false;
    panel.inspect(after, pinned === "always" || (pinned === "narrow" && NARROW.matches));
    return true;
  }

  giveBack() {
    this.#begins += 1;
    if (!this.#textBack) return;
    this.#page.settings.giveBack();
    this.#textBack();
    this.#textBack = null;
  }
}
