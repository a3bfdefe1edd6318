/**
 * What the page says: a line of status, and a box for what went wrong, with what to do about it.
 */

import { element } from "./elements.js";

/** @typedef {[string, () => void]} Action  what a button says and does */

export class Messages {
  #status;
  #box;

  /** @param {HTMLElement} status of role status @param {HTMLElement} box of role alert */
  constructor(status, box) {
    this.#status = status;
    this.#box = box;
  }

  /** A sentence that may be overlooked. @param {string} text */
  say(text) {
    this.#status.textContent = text;
  }

  /**
   * A sentence that must be seen; it stays until it is dismissed or something else is said.
   * @param {string} text
   * @param {{kind?: "warn"|"good", actions?: Action[]}} [options]
   */
  tell(text, { kind = "warn", actions = [] } = {}) {
    /** @type {Action} */
    const dismiss = ["Dismiss", () => {}];
    const buttons = [...actions, dismiss].map(([label, act]) => {
      const button = element("button.button.quiet", { type: "button" }, label);
      button.addEventListener("click", () => {
        this.clear();
        act();
      });
      return button;
    });
    this.#box.className = `message ${kind}`;
    this.#box.replaceChildren(element("p", {}, text), ...buttons);
    this.#box.hidden = false;
  }

  clear() {
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }
}
