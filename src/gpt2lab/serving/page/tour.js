/**
 * The tour of the live page: a panel with a step's text and its one thing to do, while the page stays usable. The address
 * names the step (`#tour=3`); it never advances by itself.
 */

import { element, setEnabled } from "./elements.js";
import { STEPS } from "./tour_steps.js";

const HASH = /^#tour=(\d+)$/;

/** Return the step that an address names, from 1; null if it names none. @param {string} hash */
export function stepOf(hash) {
  const found = HASH.exec(hash);
  return found ? Math.min(Math.max(Number(found[1]), 1), STEPS.length) : null;
}

/** Show the tour whenever the address names a step of it. */
export function mountTour() {
  const tour = new Tour();
  const follow = () => tour.show(stepOf(location.hash));
  addEventListener("hashchange", follow);
  follow();
}

class Tour {
  #title = element("h2", { id: "tour-title", tabindex: -1 });
  #text = element("p", { id: "tour-text" });
  #task = element("p.tour-task", { id: "tour-task" });
  #back = element("button.button", { type: "button" }, "Back");
  #next = element("button.button.primary", { type: "button" }, "Next");
  #panel;
  /** @type {Element | null} */
  #came = null; // the element that had the focus before the tour

  constructor() {
    const end = element("button.button.quiet", { type: "button" }, "End the tour");
    this.#panel = element(
      "section.tour",
      { role: "dialog", "aria-labelledby": "tour-title", "aria-describedby": "tour-text tour-task", hidden: true },
      this.#title,
      this.#text,
      this.#task,
      element("div.tour-buttons", {}, this.#back, this.#next, end),
    );
    document.body.append(this.#panel);
    this.#back.addEventListener("click", () => this.#go(-1));
    this.#next.addEventListener("click", () => this.#go(1));
    end.addEventListener("click", () => this.#end());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.#panel.hidden) this.#end();
    });
  }

  /** Show a step; null closes the tour. @param {number | null} number */
  show(number) {
    document.querySelector(".toured")?.classList.remove("toured");
    if (number === null) {
      this.#close();
      return;
    }
    if (this.#panel.hidden) this.#came = document.activeElement;
    const { title, text, task, target } = STEPS[number - 1];
    this.#title.textContent = `${number} of ${STEPS.length}: ${title}`;
    this.#text.textContent = text;
    this.#task.textContent = task;
    setEnabled(this.#back, number > 1);
    setEnabled(this.#next, number < STEPS.length);
    this.#panel.hidden = false;
    document.body.classList.add("touring");
    this.#title.focus({ preventScroll: true });
    const part = document.querySelector(target);
    part?.closest("details")?.setAttribute("open", "");
    part?.classList.add("toured");
    part?.scrollIntoView({ block: "nearest" });
  }

  /** @param {number} step */
  #go(step) {
    location.hash = `#tour=${(stepOf(location.hash) ?? 1) + step}`;
  }

  #end() {
    history.replaceState(null, "", location.pathname + location.search);
    this.show(null);
  }

  #close() {
    if (this.#panel.hidden) return;
    this.#panel.hidden = true;
    document.body.classList.remove("touring");
    if (this.#came instanceof HTMLElement && this.#came !== document.body) this.#came.focus();
  }
}
