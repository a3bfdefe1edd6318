/**
 * A text as tokens, each on the tint of its probability: pointed at with a mouse, a finger or the arrow keys.
 *
 * One tab stop for all tokens, wherever the arrow keys have gone last; a screen reader hears the word and its
 * probability of the token that it is on. Knows nothing of where tokens come from.
 */

import { Decoder, tokenName } from "./vocabulary.js";

/** Probabilities at which the next tint begins. */
export const EDGES = Object.freeze([0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8]);

const REST_MS = 70; // how long a pointer rests on a token before it counts

/** The tint of a probability: 0 for the unlikeliest … 9 for what is nearly certain. */
export function level(probability) {
  return EDGES.filter((edge) => probability >= edge).length;
}

/** "12.3 %", with as many digits as say something. */
export function probabilityText(probability) {
  const percent = 100 * probability;
  if (percent === 0) return "0 %";
  if (percent < 0.001) return "< 0.001 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  const digits = percent >= 99.95 ? 0 : percent >= 1 ? 1 : percent >= 0.1 ? 2 : 3;
  return `${percent.toFixed(digits)} %`;
}

/** A coloured token. */
export function tokenSpan(text, probability) {
  const span = document.createElement("span");
  span.className = probability === null ? "t" : `t p${level(probability)}`;
  if (text === "") span.classList.add("part"); // bytes of a character that is not whole yet
  if (text.includes("\n")) span.classList.add("newline");
  span.textContent = text;
  return span;
}

/** A token as nodes of a text: the space before a word stays outside the tint, which hugs the word. */
export function tokenNodes(text, probability) {
  const word = /^ (?=\S)/.test(text);
  const span = tokenSpan(word ? text.slice(1) : text, probability);
  return word ? [" ", span] : [span];
}

/** The tokens of one run, and the place after the last. */
export class TokenView {
  #element;
  #events;
  #run = null;
  #vocabulary = null;
  #decoder = null;
  #shown = 0;
  #drawn = null; // the run's list; another one once it is drawn anew
  #next; // the place after the last token
  #stop = null; // the token that Tab leads to
  #timer = null;

  /**
   * @param {HTMLElement} element
   * @param {{rest(place: number): void, choose(place: number): void, enter(place: number): void, leave(): void}} events
   *   a pointer rests on a place or the keyboard is on it; it is clicked; Enter is pressed on it; Escape is
   */
  constructor(element, events) {
    this.#element = element;
    this.#events = events;
    this.#next = document.createElement("span");
    this.#next.className = "t next";
    this.#next.setAttribute("role", "option");
    this.#next.textContent = "\u200b";
    element.addEventListener("pointerover", (event) => this.#pointed(event));
    element.addEventListener("pointerleave", () => clearTimeout(this.#timer));
    element.addEventListener("click", (event) => this.#clicked(event));
    element.addEventListener("keydown", (event) => this.#pressed(event));
    element.addEventListener("focusin", (event) => this.#focused(event));
  }

  /** Show `run`, or what is new of it if it is there already. */
  show(run, vocabulary) {
    if (run !== this.#run || vocabulary !== this.#vocabulary || run.drawn !== this.#drawn) this.#begin(run, vocabulary);
    const added = document.createDocumentFragment();
    for (; this.#shown < run.length; this.#shown += 1) added.append(...this.#made(this.#shown));
    this.#next.before(added);
    this.#next.classList.toggle("drawing", run.busy);
    this.#next.dataset.place = run.length;
  }

  /** Nothing is shown any more. */
  clear() {
    this.#run = null;
    this.#element.replaceChildren();
    this.#element.setAttribute("role", "group"); // a list box without options is none, a label without a role neither
  }

  /** Mark `place` as the one that is looked into; `pinned` if it stays when the pointer goes. */
  mark(place, pinned) {
    for (const old of this.#element.querySelectorAll(".here")) {
      old.classList.remove("here", "pinned");
      old.setAttribute("aria-selected", "false");
    }
    const span = place === null ? null : this.#span(place);
    if (!span) return;
    span.classList.add("here");
    span.classList.toggle("pinned", pinned);
    if (pinned) span.scrollIntoView({ block: "nearest" });
    span.setAttribute("aria-selected", "true");
    this.#lead(span);
  }

  /** Move the keyboard to `place`. */
  focus(place) {
    this.#span(place)?.focus();
  }

  #begin(run, vocabulary) {
    this.#run = run;
    this.#vocabulary = vocabulary;
    this.#decoder = new Decoder(vocabulary);
    this.#drawn = run.drawn;
    this.#shown = 0;
    this.#element.setAttribute("role", "listbox");
    this.#element.replaceChildren(this.#next);
    this.#lead(this.#next);
  }

  #made(place) {
    const { id, logprob, kind, run } = this.#run.at(place);
    const end = id === run.tree.origin.endOfText;
    const text = end ? this.#decoder.rest() + "∎" : this.#decoder.push(id);
    const nodes = tokenNodes(text, kind === "given" || logprob === null ? null : Math.exp(logprob));
    const span = nodes[nodes.length - 1];
    span.classList.add(kind);
    if (end) span.classList.add("end");
    if (kind === "drawn" && run !== this.#run) span.classList.add("inherited");
    span.dataset.place = place;
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "false");
    span.tabIndex = -1;
    return nodes;
  }

  #span(place) {
    return this.#element.children[place];
  }

  /** Make `span` the one that Tab leads to. */
  #lead(span) {
    if (this.#stop) this.#stop.tabIndex = -1;
    span.tabIndex = 0;
    this.#stop = span;
  }

  /** What a screen reader says of a place; made when it is needed, for there may be thousands. */
  #name(place) {
    const token = this.#run.at(place);
    if (!token) return "What comes next";
    const name = tokenName(this.#vocabulary, token.id);
    if (token.logprob === null) return `${name}, ${token.kind === "given" ? "prompt" : "chosen"}`;
    const chosen = token.kind === "chosen" ? ", chosen" : "";
    return `${name}, ${probabilityText(Math.exp(token.logprob))}${chosen}`;
  }

  #placeOf(event) {
    const span = event.target.closest?.("[data-place]");
    return span && this.#run ? Number(span.dataset.place) : null;
  }

  #pointed(event) {
    const place = this.#placeOf(event);
    clearTimeout(this.#timer);
    if (place === null || event.pointerType === "touch") return;
    this.#timer = setTimeout(() => this.#events.rest(place), REST_MS);
  }

  #clicked(event) {
    const place = this.#placeOf(event);
    if (place === null || !getSelection().isCollapsed) return; // text is being selected
    clearTimeout(this.#timer);
    this.#events.choose(place);
  }

  #focused(event) {
    const place = this.#placeOf(event);
    if (place === null) return;
    event.target.setAttribute("aria-label", this.#name(place));
    this.#lead(event.target);
    if (event.target.matches(":focus-visible")) this.#events.rest(place);
  }

  #pressed(event) {
    const place = this.#placeOf(event);
    if (place === null || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.#events.enter(place);
    else if (event.key === "Escape") this.#events.leave();
    else if (!this.#move(event, place)) return;
    event.preventDefault();
  }

  #move(event, place) {
    const last = this.#run.length;
    const target = {
      ArrowLeft: () => place - 1,
      ArrowRight: () => place + 1,
      ArrowUp: () => this.#line(place, -1),
      ArrowDown: () => this.#line(place, 1),
      Home: () => (event.ctrlKey ? 0 : this.#edge(place, -1)),
      End: () => (event.ctrlKey ? last : this.#edge(place, 1)),
    }[event.key]?.();
    if (target === undefined) return false;
    this.focus(Math.min(Math.max(target, 0), last));
    return true;
  }

  /** The place above or below `place`. */
  #line(place, step) {
    const { left, top, height } = box(this.#span(place));
    let best = place;
    let found = null;
    let distance = Infinity;
    for (let other = place + step; other >= 0 && other <= this.#run.length; other += step) {
      const there = box(this.#span(other));
      if (Math.abs(there.top - top) < height / 2) continue;
      found ??= there.top;
      if (Math.abs(there.top - found) > height / 2) break;
      if (Math.abs(there.left - left) < distance) [best, distance] = [other, Math.abs(there.left - left)];
    }
    return best;
  }

  /** The first or last place of the line. */
  #edge(place, step) {
    const { top, height } = box(this.#span(place));
    let other = place;
    while (this.#span(other + step) && Math.abs(box(this.#span(other + step)).top - top) < height / 2) other += step;
    return other;
  }
}

/** Where a token begins: its first line's box, for one that holds a new line has several. */
function box(span) {
  return span.getClientRects()[0] ?? span.getBoundingClientRect();
}

/** Fill `element` with the tints and what they stand for. */
export function showLegend(element) {
  const words = ["under 0.1 %", "0.1", "0.5", "2", "5", "10", "20", "40", "60", "80 % and more"];
  element.replaceChildren(
    ...words.map((word, tint) => {
      const item = document.createElement("li");
      item.className = `t p${tint}`;
      item.textContent = word;
      return item;
    }),
  );
}
