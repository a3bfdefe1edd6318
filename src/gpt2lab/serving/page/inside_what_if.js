/**
 * What if a part of the model did something else: heads and MLPs are switched off, or do what they do in another text, or a
 * direction is added to the residual stream. Holds the changes, asks the server for their effect, and shows it. While an answer
 * is awaited, only the newest wish is kept, so the text follows a slider as fast as the server computes.
 */

import { ApiError } from "./api.js";
import { element, newId, setEnabled } from "./elements.js";
import { idsOf, patch } from "./inside_api.js";
import { Changes } from "./inside_changes.js";
import { effectColumns, effectText } from "./inside_effect.js";
import { SteerControls, steerWords } from "./inside_steer.js";
import { about } from "./terms.js";
import { textOf } from "./vocabulary.js";

const LENGTH = 30; // tokens of the greedy texts
const TOP = 5;
const TYPING_MS = 300;

/**
 * @typedef {import("./inside_section.js").InsidePlace} InsidePlace
 * @typedef {{place: InsidePlace, token: number}} Question  token: whose probability is compared
 */

export class WhatIf {
  #changes = new Changes();
  #marked;
  #steer = new SteerControls(() => this.#renew(), () => this.#soon());
  #source = element("input", { id: newId("source"), autocomplete: "off", placeholder: "empty: switched off" });
  #itself = element("button.button.quiet", { type: "button" }, "This text itself");
  #undo = element("button.button.quiet", { type: "button" }, "Undo all");
  #said = element("p.effect-said", { role: "status" });
  #columns = element("div");
  /** @type {Question | null} */
  #question = null;
  #asking = new AbortController();
  #running = false;
  #wanted = false;
  #timer = 0;

  /**
   * @param {HTMLElement} host
   * @param {() => void} marked  called when other parts are changed
   */
  constructor(host, marked) {
    this.#marked = marked;
    const field = element(
      "p.choice",
      {},
      element("label", { for: this.#source.id }, "Copy from another text"),
      this.#source,
      this.#itself,
      this.#undo,
    );
    const steering = element("p.headed", {}, element("strong", {}, "Steer"), about("steering"));
    host.replaceChildren(field, steering, this.#steer.node, this.#said, this.#columns);
    this.#source.addEventListener("input", () => this.#soon());
    this.#itself.addEventListener("click", () => this.#copyItself());
    this.#undo.addEventListener("click", () => this.#clear());
    this.#rest();
  }

  /** Return whether nothing is changed. */
  get #idle() {
    return this.#changes.empty && !this.#steer.value;
  }

  /**
   * Ask for the effect at another place, or on another token's probability.
   * @param {Question} question @param {number[][][]} attention  [n_layer][n_head][tokens]
   */
  look(question, attention) {
    if (this.#question && this.#question.place.model !== question.place.model) this.#changes.clear();
    this.#changes.shape(attention[0].length);
    this.#steer.shape(attention.length);
    this.#question = question;
    this.#columns.setAttribute("aria-busy", "true");
    this.#asking.abort();
    this.#renew();
  }

  /** Change a part, or change it back. @param {string} part */
  toggle(part) {
    this.#changes.toggle(part);
    this.#renew();
  }

  /** Return whether a part is changed. @param {string} part */
  state(part) {
    return this.#changes.state(part);
  }

  #copyItself() {
    if (this.#question) this.#source.value = textOf(this.#question.place.vocabulary, this.#question.place.context);
    this.#renew();
  }

  #clear() {
    this.#changes.clear();
    this.#steer.clear();
    this.#source.value = "";
    this.#renew();
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#renew(), TYPING_MS);
  }

  /** Show the changes, and ask for their effect once the question before is answered. */
  async #renew() {
    this.#show();
    this.#wanted = true;
    if (this.#running) return;
    this.#running = true;
    while (this.#wanted) {
      this.#wanted = false;
      this.#asking = new AbortController();
      await this.#ask(this.#asking.signal);
    }
    this.#running = false;
  }

  #show() {
    this.#marked();
    if (this.#idle) this.#rest();
    setEnabled(this.#undo, !this.#idle || this.#source.value !== "");
  }

  /** Show that nothing is changed. */
  #rest() {
    setEnabled(this.#undo, false);
    this.#said.textContent = "Nothing is changed. Click a bar above, or move the slider.";
    this.#columns.replaceChildren();
  }

  /** @param {AbortSignal} signal */
  async #ask(signal) {
    if (this.#idle || !this.#question) return;
    const { place, token } = this.#question;
    const options = { signal, busy: (/** @type {string} */ text) => this.#tell(text) };
    try {
      const { body, words } = await this.#wish(place, options);
      const effect = await patch({ model: place.model, tokens: place.context, token, top: TOP, length: LENGTH, ...body }, options);
      if (signal.aborted || this.#idle) return;
      this.#said.replaceChildren(...effectText(effect, place.vocabulary, words));
      this.#columns.replaceChildren(...effectColumns(effect, place.vocabulary));
      this.#columns.setAttribute("aria-busy", "false");
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof ApiError)) throw problem;
      this.#tell(problem.message);
    }
  }

  /**
   * Return the changes as a request names them, and in words.
   * @param {InsidePlace} place @param {import("./inside_api.js").Options} options
   */
  async #wish(place, options) {
    const [parts, words, steer] = [this.#changes.body(), this.#changes.words(), this.#steer.value];
    const text = words ? this.#source.value : "";
    const copied = text ? { source: await this.#sourceIds(text, place, options), method: "copy" } : {};
    const what = text ? `With ${words} as in the other text` : words && `Without ${words}`;
    if (!steer) return { body: { ...parts, ...copied }, words: what };
    const [positive, negative] = await Promise.all([steer.positive, steer.negative].map((each) => idsOf(place.model, each, options)));
    const added = steerWords(steer);
    return { body: { ...parts, ...copied, steer: { ...steer, positive, negative } }, words: what ? `${what}, and with ${added}` : `With ${added}` };
  }

  /** Say why there is no effect to see. @param {string} text */
  #tell(text) {
    this.#said.textContent = text;
    this.#columns.replaceChildren();
  }

  /**
   * Return the ids of the other text. The text itself has the ids that it was drawn with: other pieces may spell it as well.
   * @param {string} text @param {InsidePlace} place @param {import("./inside_api.js").Options} options
   */
  async #sourceIds(text, { model, context, vocabulary }, options) {
    return text === textOf(vocabulary, context) ? context : await idsOf(model, text, options);
  }
}
