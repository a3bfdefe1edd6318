/**
 * The prompt as tokens: their boundaries, white space made visible, how much each one surprises the model, and ids on demand.
 * A prompt that ends with a space gets a hint.
 */

import { score } from "./api.js";
import { byId, element } from "./elements.js";
import { level } from "./token_spans.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

const MOST = 60; // tokens shown; the last ones

export class PromptTokens {
  #host = byId("prompt-tokens");
  #ids = byId("prompt-ids", HTMLInputElement);
  #hint = byId("space-hint");
  #list = element("ol.prompt-list", { "aria-label": "Tokens of the prompt" });
  #before = element("span.hint");
  /** @type {{ids: number[], vocabulary: string[], scores: (number | null)[] | null} | null} */
  #shown = null;
  #asking = new AbortController();

  /** @param {typeof import("./settings.js").settings} settings */
  constructor(settings) {
    this.#host.append(this.#before, this.#list);
    this.#ids.addEventListener("change", () => this.#list.classList.toggle("with-ids", this.#ids.checked));
    byId("remove-space").addEventListener("click", () => {
      settings.set({ prompt: settings.get().prompt.replace(/ +$/, "") });
      byId("prompt").focus();
    });
  }

  /**
   * Show a prompt, and its surprisals once the model has read it.
   * @param {import("./branches.js").BranchTree} tree @param {string[]} vocabulary @param {string} model  spells and reads them
   */
  async show({ prompt, promptIds: ids, origin }, vocabulary, model) {
    this.#hint.hidden = !/\S +$/.test(prompt);
    if (this.#shown && this.#shown.vocabulary === vocabulary && String(this.#shown.ids) === String(ids)) return;
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const shown = { ids, vocabulary, scores: null };
    this.#shown = shown;
    this.#fill(shown);
    if (ids.length < 2 || ids.length > origin.contextSize) return; // nothing to read, or more than the model reads
    const scores = await score(model, ids, { signal }).catch(() => null); // busy: the tokens are there without them
    if (scores && this.#shown === shown) this.#fill({ ...shown, scores });
  }

  /** @param {{ids: number[], vocabulary: string[], scores: (number | null)[] | null}} prompt */
  #fill({ ids, vocabulary, scores }) {
    const first = Math.max(0, ids.length - MOST);
    this.#before.textContent = first ? `${first.toLocaleString("en")} earlier ${first === 1 ? "token" : "tokens"} … ` : "";
    const items = ids.slice(first).map((id, at) => item(vocabulary, id, first + at ? scores?.[first + at] : null));
    this.#list.replaceChildren(...items);
  }
}

/**
 * @param {string[]} vocabulary @param {number} id
 * @param {number | null | undefined} logprob  null: nothing precedes the token; undefined: not known yet
 */
function item(vocabulary, id, logprob) {
  const known = typeof logprob === "number";
  const surprisal = known ? (-logprob).toFixed(1) : logprob === null ? "–" : "";
  const spoken = `${tokenName(vocabulary, id)}, id ${id}${known ? `, surprisal ${surprisal} nats` : ""}`;
  return element(
    known ? `li.p${level(Math.exp(logprob))}` : "li",
    { title: spoken },
    element("span.visually-hidden", {}, spoken),
    element("code", { "aria-hidden": "true" }, tokenLabel(vocabulary, id)),
    element("small.surprisal", { "aria-hidden": "true" }, surprisal || "\u00a0"),
    element("small.id", { "aria-hidden": "true" }, String(id)),
  );
}
