/**
 * The inside of the model at the token that is looked at: the logit lens, attention, contributions to a token's logit, the
 * effect of changes, and the nearest tokens. The parts show themselves; this module asks for their numbers.
 */

import { ApiError } from "./api.js";
import { around, byId, element } from "./elements.js";
import { MOST_TOKENS, inside } from "./inside_api.js";
import { AttentionView } from "./inside_attention.js";
import { lensTable } from "./inside_lens.js";
import { contributionTable, neighbourList } from "./inside_parts.js";
import { WhatIf } from "./inside_what_if.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel } from "./vocabulary.js";

const REST_MS = 120; // no request for a place that the pointer only passes
const TOP = 5;

/**
 * @typedef {import("./inside_section.js").InsidePlace} InsidePlace
 * @typedef {import("./inside_api.js").Inside} Inside
 */

export class InsidePanel {
  #note = byId("inside-note");
  #body = byId("inside-body");
  #token = byId("inside-token", HTMLSelectElement);
  #attention = new AttentionView(byId("inside-attention"), () => this.#mark());
  #whatIf = new WhatIf(byId("inside-what-if"), () => this.#mark());
  /** @type {InsidePlace | null} */
  #place = null;
  #asking = new AbortController();

  constructor() {
    this.#token.addEventListener("change", () => this.#ask(Number(this.#token.value)));
    this.#body.addEventListener("click", (event) => {
      const button = around(event, "[data-part]");
      if (button instanceof HTMLElement) this.#whatIf.toggle(button.dataset.part ?? "");
    });
  }

  /** Show the inside at `place`. @param {InsidePlace} place */
  look(place) {
    if (place === this.#place) return;
    this.#place = place;
    this.#body.setAttribute("aria-busy", "true");
    this.#ask(place.chosen, REST_MS);
  }

  /** Request the numbers for the logit of `token`, and show them. @param {number | null} token @param {number} [delay] */
  async #ask(token, delay = 0) {
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const place = /** @type {InsidePlace} */ (this.#place);
    const problem = hindrance(place);
    if (problem) {
      this.#refuse(problem);
      return;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, delay);
    });
    if (signal.aborted) return;
    try {
      const body = { model: place.model, tokens: place.context, token, top: TOP };
      const found = await inside(body, { signal, busy: (text) => this.#say(text) });
      if (!signal.aborted) this.#show(found, place);
    } catch (refused) {
      if (signal.aborted) return;
      if (!(refused instanceof ApiError)) throw refused;
      this.#refuse(refused.message);
    }
  }

  /** @param {Inside} found @param {InsidePlace} place */
  #show(found, place) {
    const label = (/** @type {number} */ id) => tokenLabel(place.vocabulary, id);
    this.#fillTokens(found, place);
    this.#say("");
    byId("inside-place").replaceChildren(...placeText(place));
    byId("inside-lens").replaceChildren(lensTable(found, label));
    this.#attention.show(found, place.context.map(label), label(found.token));
    byId("inside-parts").replaceChildren(contributionTable(found, label));
    this.#whatIf.look({ place, token: found.token }, found.attention);
    byId("inside-near").replaceChildren(neighbourList(found, label));
    this.#body.hidden = false;
    this.#body.setAttribute("aria-busy", "false");
  }

  /** Mark the parts that are changed. */
  #mark() {
    for (const button of this.#body.querySelectorAll("[data-part]"))
      button.setAttribute("aria-pressed", this.#whatIf.state(button.getAttribute("data-part") ?? ""));
  }

  /** Offer the token at the place and the likeliest ones, whose logits can be explained. @param {Inside} found @param {InsidePlace} place */
  #fillTokens({ token, lens }, { chosen, vocabulary }) {
    const { top } = lens[lens.length - 1];
    const known = new Map(top);
    const ids = new Set([...(chosen === null ? [] : [chosen]), ...known.keys(), token]);
    const options = [...ids].map((id) => {
      const probability = known.get(id);
      const more = [id === chosen ? "in the text" : "", probability === undefined ? "" : probabilityText(probability)];
      const text = [tokenLabel(vocabulary, id), ...more.filter(Boolean)].join(" · ");
      return element("option", { value: id, selected: id === token }, text);
    });
    this.#token.replaceChildren(...options);
  }

  /** Say why there is nothing to see. @param {string} text */
  #refuse(text) {
    this.#body.hidden = true;
    byId("inside-place").replaceChildren();
    this.#say(text);
  }

  /** @param {string} text */
  #say(text) {
    this.#note.textContent = text;
    this.#note.hidden = text === "";
  }
}

/** Return the reason why a place has no inside, or "". @param {InsidePlace} place */
function hindrance({ context, contextSize }) {
  const most = Math.min(MOST_TOKENS, contextSize);
  if (context.length > most) return `There are ${context.length.toLocaleString("en")} tokens before this one; a look inside takes at most ${most}.`;
  if (!context.length) return "This model has no token to start from, so there is nothing inside before the first token.";
  return "";
}

/** @param {InsidePlace} place @returns {(string | Node)[]} */
function placeText({ context, chosen, vocabulary }) {
  const code = (/** @type {number} */ id) => element("code", {}, tokenLabel(vocabulary, id));
  const last = code(context[context.length - 1]);
  if (chosen === null) return ["The model reads ", last, " and predicts the token after it."];
  return ["The model reads ", last, " and predicts the token after it: here ", code(chosen), "."];
}
