/**
 * A text as tokens, each on the tint of its probability. A mouse, a finger or the arrow keys point at a token.
 *
 * All tokens share one tab stop, the one where the arrow keys were last; a screen reader reads the word and the
 * probability of its token. This module knows nothing of where tokens come from.
 */

import { around, element } from "./elements.js";
import { probabilityText, tokenNodes } from "./token_spans.js";
import { Decoder, tokenName } from "./vocabulary.js";

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} Shown
 * @property {Run} run
 * @property {string[]} vocabulary
 * @property {Run["drawn"]} drawn  the run's list; drawing again replaces it
 * @property {Decoder} decoder
 * @property {number} length  tokens
 * @property {Run | null} base  the run that this one is compared with
 * @property {boolean} differs  a token differed from that run's
 */

const REST_MS = 70; // how long a pointer must rest on a token

/** The tokens of one run, and the place after the last. */
export class TokenView {
  #host;
  #events;
  /** @type {Shown | null} */
  #shown = null;
  #next = element("span.t.next", { role: "option", "aria-label": "What comes next" }, "\u200b"); // the place after the last token
  /** @type {HTMLElement | null} */
  #stop = null; // the token at the tab stop
  #timer = 0;

  /**
   * @param {HTMLElement} host
   * @param {{rest(place: number): void, choose(place: number): void, enter(place: number): void, leave(): void}} events
   *   rest: the pointer or the keyboard is on a place; choose: a click on it; enter: Enter on it; leave: Escape
   */
  constructor(host, events) {
    this.#host = host;
    this.#events = events;
    host.addEventListener("pointerover", (event) => this.#pointed(event));
    host.addEventListener("pointerleave", () => clearTimeout(this.#timer));
    host.addEventListener("click", (event) => this.#clicked(event));
    host.addEventListener("keydown", (event) => this.#pressed(event));
    host.addEventListener("focusin", (event) => this.#focused(event));
  }

  /**
   * Show `run`, or only its new tokens if it is already shown; mark what differs from `base`.
   * @param {Run} run @param {string[]} vocabulary @param {Run | null} [base]
   */
  show(run, vocabulary, base = null) {
    const old = this.#shown;
    const same = old?.run === run && old.vocabulary === vocabulary && old.drawn === run.drawn;
    const shown = same ? old : this.#begin(run, vocabulary, base);
    const added = document.createDocumentFragment();
    for (let entry = run.at(shown.length); entry; entry = run.at(shown.length)) added.append(...this.#made(entry, shown));
    if (this.#next === document.activeElement) this.#next.before(added);
    else this.#next.replaceWith(added, this.#next); // set down again: what is pushed counts as a shift of the page
    this.#next.classList.toggle("drawing", run.busy);
    this.#next.dataset.place = String(run.length);
  }

  /** Remove the tokens. */
  clear() {
    this.#shown = null;
    this.#host.replaceChildren();
    this.#host.setAttribute("role", "group"); // an empty list box is invalid, and so is a label without a role
  }

  /**
   * Mark `place` as the inspected one; `pinned` if it stays when the pointer leaves.
   * @param {number} place @param {boolean} pinned
   */
  mark(place, pinned) {
    for (const old of this.#host.querySelectorAll(".here")) {
      old.classList.remove("here", "pinned");
      old.setAttribute("aria-selected", "false");
    }
    const span = this.#span(place);
    if (!span) return;
    span.classList.add("here");
    span.classList.toggle("pinned", pinned);
    if (pinned) span.scrollIntoView({ block: "nearest" });
    span.setAttribute("aria-selected", "true");
    this.#lead(span);
  }

  /** Move the keyboard to `place`. @param {number} place */
  focus(place) {
    this.#span(place)?.focus();
  }

  /** @param {Run} run @param {string[]} vocabulary @param {Run | null} base */
  #begin(run, vocabulary, base) {
    const shown = { run, vocabulary, drawn: run.drawn, decoder: new Decoder(vocabulary), length: 0, base, differs: false };
    this.#shown = shown;
    clearTimeout(this.#timer); // the pointer rested on a token of another text
    this.#host.style.minHeight = base ? `${this.#host.offsetHeight}px` : ""; // no part below jumps while a text is drawn again
    this.#host.setAttribute("role", "listbox");
    this.#host.replaceChildren(this.#next);
    this.#lead(this.#next);
    return shown;
  }

  /** @param {import("./branches.js").Entry} entry @param {Shown} shown */
  #made({ id, logprob, kind, run }, shown) {
    const end = id === run.tree.origin.endOfText;
    const text = end ? `${shown.decoder.rest()}∎` : shown.decoder.push(id);
    const { nodes, span } = tokenNodes(text, kind === "given" || logprob === null ? null : Math.exp(logprob));
    span.classList.add(kind);
    if (end) span.classList.add("end");
    if (kind === "drawn" && run !== shown.run) span.classList.add("inherited");
    if (shown.base && kind === "drawn") {
      shown.differs ||= shown.base.at(shown.length)?.id !== id;
      span.classList.add(shown.differs ? "changed" : "stays");
    }
    span.dataset.place = String(shown.length);
    if (!text.trim()) span.setAttribute("aria-label", tokenName(shown.vocabulary, id)); // white space has no name of its own
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "false");
    span.tabIndex = -1;
    shown.length += 1;
    return nodes;
  }

  /** @param {number} place */
  #span(place) {
    return /** @type {HTMLElement | undefined} */ (this.#host.children[place]);
  }

  /** Make `span` the tab stop. @param {HTMLElement} span */
  #lead(span) {
    if (this.#stop) this.#stop.tabIndex = -1;
    span.tabIndex = 0;
    this.#stop = span;
  }

  /** Return a place's text for screen readers; on demand, as there may be thousands of places. @param {number} place */
  #name(place) {
    const token = this.#shown?.run.at(place);
    if (!this.#shown || !token) return "What comes next";
    const name = tokenName(this.#shown.vocabulary, token.id);
    if (token.logprob === null) return `${name}, ${token.kind === "given" ? "prompt" : "chosen"}`;
    const chosen = token.kind === "chosen" ? ", chosen" : "";
    return `${name}, ${probabilityText(Math.exp(token.logprob))}${chosen}`;
  }

  /** @param {Event} event */
  #placeOf(event) {
    const span = around(event, "[data-place]");
    return span instanceof HTMLElement && this.#shown ? Number(span.dataset.place) : null;
  }

  /** @param {PointerEvent} event */
  #pointed(event) {
    const place = this.#placeOf(event);
    clearTimeout(this.#timer);
    if (place === null || event.pointerType === "touch") return;
    this.#timer = setTimeout(() => this.#events.rest(place), REST_MS);
  }

  /** @param {Event} event */
  #clicked(event) {
    const place = this.#placeOf(event);
    if (place === null || !getSelection()?.isCollapsed) return; // text is being selected
    clearTimeout(this.#timer);
    this.#events.choose(place);
  }

  /** @param {Event} event */
  #focused(event) {
    const place = this.#placeOf(event);
    const span = event.target;
    if (place === null || !(span instanceof HTMLElement)) return;
    span.setAttribute("aria-label", this.#name(place));
    this.#lead(span);
    if (span.matches(":focus-visible")) this.#events.rest(place);
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const place = this.#placeOf(event);
    if (place === null || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.#events.enter(place);
    else if (event.key === "Escape" && this.#host.querySelector(".pinned")) this.#events.leave();
    else if (!this.#move(event, place)) return;
    event.preventDefault();
  }

  /** Move from `place` if the key of `event` does; return whether. @param {KeyboardEvent} event @param {number} place */
  #move(event, place) {
    const last = this.#host.children.length - 1;
    /** @type {Record<string, () => number>} */
    const targets = {
      ArrowLeft: () => place - 1,
      ArrowRight: () => place + 1,
      ArrowUp: () => this.#line(place, -1),
      ArrowDown: () => this.#line(place, 1),
      Home: () => (event.ctrlKey ? 0 : this.#edge(place, -1)),
      End: () => (event.ctrlKey ? last : this.#edge(place, 1)),
    };
    const target = targets[event.key]?.();
    if (target === undefined) return false;
    this.focus(Math.min(Math.max(target, 0), last));
    return true;
  }

  /** Return the place above or below `place`. @param {number} place @param {1 | -1} step */
  #line(place, step) {
    const spans = this.#host.children;
    const { left, top, height } = box(spans[place]);
    let best = place;
    let found = null;
    let distance = Infinity;
    for (let other = place + step; other >= 0 && other < spans.length; other += step) {
      const there = box(spans[other]);
      if (Math.abs(there.top - top) < height / 2) continue;
      found ??= there.top;
      if (Math.abs(there.top - found) > height / 2) break;
      if (Math.abs(there.left - left) < distance) [best, distance] = [other, Math.abs(there.left - left)];
    }
    return best;
  }

  /** Return the first or last place of the line. @param {number} place @param {1 | -1} step */
  #edge(place, step) {
    const spans = this.#host.children;
    const { top, height } = box(spans[place]);
    let other = place;
    while (spans[other + step] && Math.abs(box(spans[other + step]).top - top) < height / 2) other += step;
    return other;
  }
}

/** Return the box of a token's first line; a token with a newline has several boxes. @param {Element} span */
function box(span) {
  return span.getClientRects()[0] ?? span.getBoundingClientRect();
}
