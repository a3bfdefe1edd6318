/**
 * The page's messages: a status line, and a box for problems with actions that solve them.
 */

import { element } from "./elements.js";

/** @typedef {[string, () => void]} Action  a button's label and action */

export class Messages {
  #status;
  #box;
  #home;

  /**
   * @param {HTMLElement} status  has the role status
   * @param {HTMLElement} box  has the role alert
   * @param {HTMLElement} home  takes the focus of a box that goes
   */
  constructor(status, box, home) {
    this.#status = status;
    this.#box = box;
    this.#home = home;
  }

  /** Show a sentence that the user may overlook. @param {string} text */
  say(text) {
    this.#status.textContent = text;
  }

  /**
   * Show a sentence that the user must see; it stays until it is dismissed or replaced.
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
    if (this.#box.contains(document.activeElement)) this.#home.focus();
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }
}
