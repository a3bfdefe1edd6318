/**
 * The tour of the live page: a panel with a step's text and its one thing to do, while the page stays usable. The address
 * names the step (`#tour=3`); it never advances by itself.
 */

import { byId, element, setEnabled } from "./elements.js";
import { defined } from "./terms.js";
import { TourLoan } from "./tour_loan.js";
import { Placement } from "./tour_place.js";
import { STEPS } from "./tour_steps.js";

const HASH = /^#tour=(\d+)$/;

/** @typedef {import("./tour_loan.js").Page} Page */

/** Return the step that an address names, from 1; null if it names none. @param {string} hash */
export function stepOf(hash) {
  const found = HASH.exec(hash);
  return found ? Math.min(Math.max(Number(found[1]), 1), STEPS.length) : null;
}

/** Show the tour whenever the address names a step of it. @param {Page} page */
export function mountTour(page) {
  const tour = new Tour(page);
  const follow = () => tour.show(stepOf(location.hash));
  addEventListener("hashchange", follow);
  follow();
}

class Tour {
  #title = element("h2", { id: "tour-title", tabindex: -1, "aria-describedby": "tour-text tour-task" }); // read out at every step
  #text = element("p", { id: "tour-text" });
  #task = element("p.tour-task", { id: "tour-task" });
  #note = element("p.hint", {}, "Your own prompt, settings and text come back when the tour ends.");
  #back = element("button.button", { type: "button" }, "Previous");
  #next = element("button.button.primary", { type: "button" }, "Next");
  #look = element("button.button.quiet", { type: "button" }, "Show me");
  #end = element("button.button.quiet", { type: "button", "aria-label": "End the tour" }, "End");
  #panel = element(
    "section.tour",
    { role: "dialog", "aria-labelledby": "tour-title", hidden: true },
    this.#title,
    this.#text,
    this.#task,
    this.#note,
    element("div.tour-buttons", {}, this.#back, this.#next, this.#look, this.#end),
  );
  #placement = new Placement(this.#panel);
  #loan;
  #number = 0; // of the step on display
  /** @type {Element | null} */
  #came = null; // the element that had the focus before the tour

  /** @param {Page} page */
  constructor(page) {
    this.#loan = new TourLoan(page);
    document.body.append(this.#panel);
    this.#back.addEventListener("click", () => this.#go(-1));
    this.#next.addEventListener("click", () => (this.#number < STEPS.length ? this.#go(1) : this.#leave()));
    this.#look.addEventListener("click", () => this.#showParts());
    this.#end.addEventListener("click", () => this.#leave());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !this.#panel.hidden) this.#leave();
    });
  }

  /** Show a step; null closes the tour. @param {number | null} number */
  show(number) {
    if (number === null) {
      this.#close();
      return;
    }
    if (this.#panel.hidden) this.#came = document.activeElement;
    const step = STEPS[number - 1];
    this.#number = number;
    this.#title.textContent = `${number} of ${STEPS.length}: ${step.title}`;
    this.#text.replaceChildren(...withTerms(step.text));
    this.#task.textContent = step.task;
    this.#note.hidden = !this.#panel.hidden;
    setEnabled(this.#back, number > 1);
    this.#next.textContent = number < STEPS.length ? "Next" : "Finish";
    this.#end.hidden = number === STEPS.length;
    this.#panel.hidden = false;
    document.body.classList.add("touring");
    this.#title.focus({ preventScroll: true });
    this.#placement.show(step);
    this.#loan.begin(step).then((ready) => ready && this.#placement.follow());
  }

  /** @param {number} step */
  #go(step) {
    location.hash = `#tour=${this.#number + step}`;
  }

  /** Bring the step's parts into view, make their rings flash, and move the focus to the first one that the user can act on. */
  #showParts() {
    this.#placement.flash();
    const [control] = this.#placement.parts.flatMap((part) => (part.matches(CONTROL) ? part : (part.querySelector(CONTROL) ?? [])));
    if (control instanceof HTMLElement) control.focus({ preventScroll: true });
  }

  #leave() {
    history.replaceState(null, "", location.pathname + location.search);
    this.show(null);
  }

  #close() {
    if (this.#panel.hidden) return;
    this.#panel.hidden = true;
    this.#placement.hide();
    document.body.classList.remove("touring");
    this.#loan.giveBack();
    const came = this.#came instanceof HTMLElement && this.#came !== document.body && this.#came.checkVisibility();
    (came ? /** @type {HTMLElement} */ (this.#came) : byId("run")).focus();
  }
}

/** What a step's part is used with; not the buttons that explain it. */
const CONTROL = "textarea, input, select, [tabindex='0'], .button";

/** Return the nodes of a text in which `{word|term}` is a word that opens a definition. @param {string} text */
function withTerms(text) {
  return text.split(/(\{[^}]+\})/).map((part) => {
    const [, word, term] = /^\{(.+)\|(.+)\}$/.exec(part) ?? [];
    return word ? defined(word, term) : part;
  });
}
