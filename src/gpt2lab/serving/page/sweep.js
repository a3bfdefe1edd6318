/**
 * One prompt at several temperatures, with a column for each: samples coloured by their probability under the unmodified
 * model, and figures on how surprising, varied and repetitive they are. All columns use the same random numbers.
 */

import { element, newId } from "./elements.js";
import { busyText, withPatience } from "./patience.js";
import { runForm } from "./run_form.js";
import { ARTICLE } from "./scales.js";
import { LIMITS, isValid, newSeed, samplingParams } from "./settings.js";
import { textFigures } from "./text_figures.js";
import { tokenNodes } from "./token_spans.js";
import { Decoder } from "./vocabulary.js";

const AT_ONCE = 3; // requests: browsers open six connections to a server, and the rest of the page needs some
const MOST = 16; // columns
const HINT =
  "The prompt, the length and the other settings are those above. Every column uses the same random numbers. " +
  "At temperature 0 nothing is random, so there is one sample.";

/**
 * @typedef {typeof import("./api.js")} Api
 * @typedef {typeof import("./settings.js").settings} Store
 *
 * @typedef {object} Plan
 * @property {number[]} temperatures
 * @property {number | string} seed
 * @property {string} prompt
 * @property {number} max_tokens
 * @property {number} n  samples in a column
 * @property {Record<string, number>} params
 */

/** @param {HTMLElement} host @param {{settings: Store, api: Api}} parts */
export function mountSweep(host, { settings, api }) {
  const [list, number] = [temperaturesField(), samplesField(settings)];
  const columns = element("div.sweep-columns");
  const form = runForm("sweep-form", {
    label: "Sweep",
    attributes: { novalidate: true },
    fields: [list.node, number],
    after: [list.hint],
    plan: (say) => {
      const temperatures = list.temperatures();
      if (temperatures) return planOf(temperatures, settings.get());
      say(`Enter up to ${MOST} temperatures from 0 to ${LIMITS.temperature.most}, with spaces between them.`);
      return null;
    },
    work: (plan, { say, signal }) => sweep(columns, plan, { settings, api, say, signal }),
    done: ({ temperatures, seed }) => `Done: ${temperatures.length} temperatures, seed ${seed}.`,
  });
  host.classList.add("sweep");
  host.replaceChildren(form, columns);
}

/** @param {number[]} temperatures @param {Readonly<import("./settings.js").Settings>} now @returns {Plan} */
function planOf(temperatures, now) {
  const { seed, prompt, max_tokens, n } = now;
  return { temperatures, seed: seed ?? newSeed(), prompt, max_tokens, n, params: samplingParams(now) };
}

/**
 * @param {HTMLElement} host
 * @param {Plan} plan
 * @param {{settings: Store, api: Api, say: (text: string) => void, signal: AbortSignal}} parts
 */
async function sweep(host, plan, { settings, api, say, signal }) {
  const cards = await withPatience(api.models, { signal, busy: (seconds) => say(busyText(seconds)) });
  const card = cards.find(({ id }) => id === settings.get().model) ?? cards[0];
  const vocabulary = await api.vocabulary(card.id);
  const columns = plan.temperatures.map((temperature) => new Column(temperature, plan, { card, vocabulary, settings }));
  host.replaceChildren(...columns.map(({ node }) => node));
  const waiting = [...columns];
  let done = 0;
  const work = async () => {
    for (let column = waiting.shift(); column; column = waiting.shift()) {
      await withPatience(() => column.draw(api, signal), { signal, begun: () => column.begun, busy: (seconds) => say(busyText(seconds)) });
      done += 1;
      say(`${done} of ${columns.length} temperatures`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

// ---- the form -------------------------------------------------------------------------------------------------------

function temperaturesField() {
  const [id, hintId] = [newId("sweep-temperatures"), newId("sweep-hint")];
  const value = ARTICLE.join(" ");
  const input = element("input", { id, value, autocomplete: "off", "aria-describedby": hintId });
  const temperatures = () => {
    const found = parsed(input.value);
    input.setAttribute("aria-invalid", String(!found));
    return found;
  };
  const node = element("div.field", {}, element("label", { for: id }, "Temperatures"), input);
  return { node, hint: element("p.hint", { id: hintId }, HINT), temperatures };
}

/** @param {Store} settings */
function samplesField(settings) {
  const id = newId("sweep-n");
  const number = element("input", { id, type: "number", min: 1, max: 16, step: 1 });
  number.addEventListener("input", () => {
    if (isValid("n", number.valueAsNumber)) settings.set({ n: number.valueAsNumber });
  });
  const show = (/** @type {{n: number}} */ { n }) => {
    if (number.valueAsNumber !== n) number.value = String(n);
  };
  settings.subscribe(show);
  show(settings.get());
  return element("div.field", {}, element("label", { for: id }, "Samples each"), number);
}

/** @param {string} text @returns {number[] | null} */
function parsed(text) {
  const numbers = [
    ...new Set(
      text
        .split(/[\s,;]+/)
        .filter(Boolean)
        .map(Number),
    ),
  ];
  const good =
    numbers.length > 0 && numbers.length <= MOST && numbers.every((number) => isValid("temperature", number));
  return good ? numbers : null;
}

// ---- a column -------------------------------------------------------------------------------------------------------

class Column {
  /** @type {import("./text_figures.js").Sample[]} */
  #samples;
  #texts;
  #decoders;
  #figures = element("dl.text-figures");
  #endOfText;

  /**
   * @param {number} temperature
   * @param {Plan} plan
   * @param {{card: import("./api.js").ModelCard, vocabulary: string[], settings: Store}} parts
   */
  constructor(temperature, { seed, prompt, max_tokens, n: most, params }, { card, vocabulary, settings }) {
    const n = temperature === 0 ? 1 : most; // without chance all samples are the same
    this.request = { model: card.id, prompt, max_tokens, n, seed, ...params, temperature, logprobs: 0 };
    this.#endOfText = card.gpt2lab?.end_of_text ?? null;
    this.#samples = Array.from({ length: n }, () => []);
    this.#decoders = this.#samples.map(() => new Decoder(vocabulary));
    this.#texts = this.#samples.map((_, at) =>
      element("p.sample", { "aria-label": `Sample ${at + 1}`, role: "group", dir: "auto" }),
    );
    const use = element("button.button.quiet", { type: "button" }, "Use");
    use.setAttribute("aria-label", `Use temperature ${temperature} and this seed above`);
    use.addEventListener("click", () => settings.set({ temperature, seed }));
    const head = element(
      "header",
      {},
      element("h3", {}, element("small", {}, "temperature "), String(temperature)),
      use,
    );
    this.node = element(
      "article.sweep-column",
      { "data-temperature": temperature },
      head,
      this.#figures,
      ...this.#texts,
    );
    this.#count();
  }

  /** Return whether any token has arrived. */
  get begun() {
    return this.#samples.some(({ length }) => length > 0);
  }

  /** Draw the samples. @param {Api} api @param {AbortSignal} signal */
  async draw(api, signal) {
    for await (const piece of api.complete(this.request, { signal })) this.#add(piece);
    this.#end();
  }

  /** @param {import("./api.js").Piece} piece */
  #add({ index, tokens }) {
    if (index === null) return;
    for (const { id, logprob } of tokens) {
      const text = id === this.#endOfText ? "∎" : this.#decoders[index].push(id);
      this.#samples[index].push({ id, logprob });
      this.#texts[index].append(...tokenNodes(text, Math.exp(logprob)).nodes);
    }
  }

  #end() {
    this.#decoders.forEach((decoder, at) => this.#texts[at].append(decoder.rest()));
    this.#count();
  }

  #count() {
    const { tokens, surprisal, distinct, repeated } = textFigures(this.#samples);
    const pairs = [
      ["surprisal", surprisal === null ? "–" : `${surprisal.toFixed(2)} nats`],
      ["distinct-1, -2", `${percent(distinct[0])}, ${percent(distinct[1])}`],
      ["repeated 4-grams", percent(repeated)],
      ["tokens", tokens ? String(tokens) : "–"],
    ];
    this.#figures.replaceChildren(
      ...pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }
}

/** @param {number | null} share */
function percent(share) {
  return share === null ? "–" : `${(100 * share).toFixed(0)} %`;
}
