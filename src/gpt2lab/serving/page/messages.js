/**
 * What the page says: a line of status, and a box for what went wrong, with what to do about it.
 */

export class Messages {
  #status;
  #box;

  /** @param {HTMLElement} status of role status @param {HTMLElement} box of role alert */
  constructor(status, box) {
    this.#status = status;
    this.#box = box;
  }

  /** A sentence that may be overlooked. */
  say(text) {
    this.#status.textContent = text;
  }

  /**
   * A sentence that must be seen; it stays until it is dismissed or something else is said.
   * @param {string} text
   * @param {{kind?: "warn"|"good", actions?: [string, () => void][]}} [options]
   */
  tell(text, { kind = "warn", actions = [] } = {}) {
    const words = document.createElement("p");
    words.textContent = text;
    const buttons = [...actions, ["Dismiss", () => {}]].map(([label, act]) =>
      button(label, () => {
        this.clear();
        act();
      }),
    );
    this.#box.className = `message ${kind}`;
    this.#box.replaceChildren(words, ...buttons);
    this.#box.hidden = false;
  }

  clear() {
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }
}

function button(label, act) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "button quiet";
  element.textContent = label;
  element.addEventListener("click", act);
  return element;
}
