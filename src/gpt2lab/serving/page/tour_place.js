/**
 * Where the tour's panel stands, and the parts of the page that a step is about: they get a ring and are scrolled into view,
 * again whenever the page grows, until the user scrolls. The panel covers none of them.
 */

import { byId } from "./elements.js";

const GAP = 16; // pixels between a part and the panel or an edge of the window
const FLASH_MS = 1600; // teach.css: three flashes
const SCROLL_KEYS = new Set(["PageUp", "PageDown", "Home", "End", "ArrowUp", "ArrowDown", " ", "Tab"]);

/** Whether the page has one column, with the alternatives in a sheet at the bottom. */
export const NARROW = matchMedia("(max-width: 63.99rem)");

/** @typedef {import("./tour_steps.js").Step} Step */

export class Placement {
  #panel;
  /** @type {readonly string[]} */
  #selectors = [];
  /** @type {Element[]} */
  #parts = [];
  #following = false; // the parts are kept in view
  #withSheet = false; // the step needs the sheet of alternatives, which is about to open
  #asked = false;
  #sizes = new ResizeObserver(() => this.#soon());
  #arrivals = new MutationObserver(() => this.#soon());

  /** @param {HTMLElement} panel */
  constructor(panel) {
    this.#panel = panel;
    const left = (/** @type {Event} */ event) => {
      if (!(event.target instanceof Node && panel.contains(event.target))) this.#following = false;
    };
    for (const type of ["wheel", "touchmove"]) addEventListener(type, left, { passive: true });
    addEventListener("keydown", (event) => {
      if (SCROLL_KEYS.has(event.key)) left(event);
    });
    addEventListener("resize", () => this.#soon());
  }

  /** Ring the first visible element of each part of a step and bring all of them into view. @param {Step} step */
  show({ parts, narrowParts, pinned, inside = false }) {
    this.#selectors = (NARROW.matches && narrowParts) || parts;
    this.#withSheet = pinned !== undefined;
    this.#panel.classList.toggle("aside", inside);
    this.#open();
    for (const part of [this.#panel, ...document.querySelectorAll("main, .side > *")]) this.#sizes.observe(part);
    this.#arrivals.observe(byId("main"), { childList: true, subtree: true });
    this.follow();
  }

  /** Bring the parts into view, and make their rings flash. */
  flash() {
    this.#open();
    this.follow();
    const parts = this.#parts;
    for (const part of parts) part.classList.add("flashing");
    setTimeout(() => parts.forEach((part) => part.classList.remove("flashing")), FLASH_MS);
  }

  /** Open what contains the parts. */
  #open() {
    for (const selector of this.#selectors) document.querySelector(selector)?.closest("details")?.setAttribute("open", "");
  }

  /** Bring the parts into view, now and whenever they move, until the user scrolls. */
  follow() {
    this.#following = true;
    this.#update();
  }

  /** Return the parts on the page, first what the user acts on. */
  get parts() {
    return this.#parts;
  }

  hide() {
    this.#sizes.disconnect();
    this.#arrivals.disconnect();
    this.#selectors = [];
    this.#ring([]);
    document.querySelector(".side")?.scrollTo(0, 0);
    document.documentElement.style.scrollPaddingBlock = "";
  }

  #soon() {
    if (this.#asked || !this.#selectors.length) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      if (this.#selectors.length) this.#update();
    });
  }

  #update() {
    const sheet = NARROW.matches ? document.querySelector("#inspector.open") : null;
    this.#panel.classList.toggle("at-top", sheet !== null || (this.#withSheet && NARROW.matches));
    this.#ring(this.#selectors.flatMap((selector) => firstVisible(selector) ?? []));
    const covers = sheet ? [this.#panel, sheet] : [this.#panel];
    const [above, below] = freeOf(covers);
    document.documentElement.style.scrollPaddingBlock = `${above}px ${innerHeight - below}px`; // for what the keyboard reaches
    if (this.#following) for (const part of [...this.#parts].reverse()) bringIntoView(part, covers);
  }

  /** @param {Element[]} parts */
  #ring(parts) {
    for (const part of this.#parts) part.classList.toggle("toured", parts.includes(part));
    for (const part of parts) part.classList.add("toured");
    this.#parts = parts;
  }
}

/** @param {string} selector */
function firstVisible(selector) {
  return [...document.querySelectorAll(selector)].find((each) => each.checkVisibility());
}

/** Return the top and the bottom of the part of the window that nothing covers. @param {Element[]} covers */
function freeOf(covers) {
  let [above, below] = [GAP, innerHeight - GAP];
  for (const cover of covers) {
    const { top, bottom } = cover.getBoundingClientRect();
    if (top < innerHeight - bottom) above = Math.max(above, bottom + GAP);
    else below = Math.min(below, top - GAP);
  }
  return [above, below];
}

/**
 * Scroll everything around `part` that scrolls, as little as possible.
 * @param {Element} part @param {Element[]} covers  of the window
 */
function bringIntoView(part, covers) {
  const scroller = part.parentElement?.closest(".side, #inspector.open");
  if (scroller && scroller.scrollHeight > scroller.clientHeight) {
    const { top, bottom } = scroller.getBoundingClientRect();
    scroller.scrollBy(0, distance(part, top + GAP / 2, bottom - GAP / 2));
  }
  if (covers.some((cover) => cover.contains(part))) return; // it is fixed
  const { left, right } = part.getBoundingClientRect();
  const above = covers.filter((cover) => {
    const box = cover.getBoundingClientRect();
    return box.left < right && left < box.right;
  });
  const [top, bottom] = freeOf(above);
  const by = distance(part, top, bottom);
  scrollBy(0, scroller ? untilStuck(by, scroller) : by);
}

/**
 * Return how much of a scroll by `by` moves `scroller`: a sticky one stays once it has reached its place.
 * @param {number} by @param {Element} scroller
 */
function untilStuck(by, scroller) {
  const { position, top } = getComputedStyle(scroller);
  if (position !== "sticky") return by;
  return Math.min(Math.max(0, by), Math.max(0, scroller.getBoundingClientRect().top - parseFloat(top)));
}

/**
 * Return how far to scroll until `part`, or at least its beginning, is between two lines.
 * @param {Element} part @param {number} from @param {number} to
 */
function distance(part, from, to) {
  const { top, bottom, height } = part.getBoundingClientRect();
  if (top < from || height > to - from) return top - from;
  return Math.max(0, bottom - to);
}
