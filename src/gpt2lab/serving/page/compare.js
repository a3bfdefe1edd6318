/**
 * The same prompt and seed on two models, and each model's rating of the other's text. Marks show how much likelier a token's
 * own model found it. Where the two texts diverge, both models' distributions are side by side.
 */

import { bar, element, newId } from "./elements.js";
import { logits } from "./logits.js";
import { busyText, withPatience } from "./patience.js";
import { runForm } from "./run_form.js";
import { possible, stages } from "./sampling.js";
import { newSeed, samplingParams } from "./settings.js";
import { probabilityText, tokenNodes } from "./token_spans.js";
import { Decoder, tokenLabel } from "./vocabulary.js";

/**
 * @typedef {typeof import("./api.js")} Api
 * @typedef {import("./api.js").ModelCard} ModelCard
 * @typedef {import("./settings.js").Settings} Settings
 *
 * @typedef {object} Plan
 * @property {[ModelCard, ModelCard]} cards
 * @property {Readonly<Settings>} now
 * @property {number | string} seed
 *
 * @typedef {object} Drawn  a token of one model's text
 * @property {number} id
 * @property {number} logprob  under its own model
 * @property {number} ratio  difference from the other model's logprob, in nats
 * @property {HTMLElement} span
 */

const SHOWN = 6; // tokens in a table
const STEPS = [0.7, 1.6, 3]; // nats: about 2, 5 and 20 times as likely

/**
 * Return whether two of the served models have the same vocabulary size, so that their tokens can be compared.
 * @param {ModelCard[]} models
 */
export function comparable(models) {
  const sizes = models.map((card) => card.gpt2lab?.n_vocab);
  return sizes.some((size, at) => size !== undefined && sizes.indexOf(size) !== at);
}

/**
 * @param {HTMLElement} host
 * @param {{settings: typeof import("./settings.js").settings, api: Api, models: ModelCard[], pair: (string | undefined)[]}} parts
 *   `pair` names the two models that are chosen at first; an unknown one is left to the page
 */
export function mountCompare(host, { settings, api, models, pair }) {
  const at = (/** @type {number} */ place) => models.findIndex(({ id }) => id === pair[place]);
  const begin = Math.max(0, at(0));
  const beside = at(1) >= 0 ? at(1) : Number(begin === 0);
  const [one, other] = [modelField(models, "Compare", begin), modelField(models, "and", beside)];
  const result = element("div.compare-result");
  const form = runForm("compare-form", {
    label: "Write with both",
    fields: [one.node, other.node],
    plan: (say) => {
      const [first, second] = [one.card(), other.card()];
      const hindrance = hindranceOf(first, second);
      if (hindrance) say(hindrance);
      const now = settings.get();
      return hindrance ? null : { cards: [first, second], now, seed: now.seed ?? newSeed() };
    },
    work: (plan, parts) => compare(result, plan, { api, ...parts }),
    done: ({ seed }) => `Done: seed ${seed}.`,
  });
  host.classList.add("compare");
  host.replaceChildren(form, result);
}

/** Make the field for one of the two models. @param {ModelCard[]} models @param {string} label @param {number} initial */
function modelField(models, label, initial) {
  const id = newId("compare-model");
  const options = models.map((card, at) => element("option", { value: card.id, selected: at === initial }, card.id));
  const select = element("select", { id }, ...options);
  const card = () => models[select.selectedIndex];
  return { node: element("div.field", {}, element("label", { for: id }, label), select), card };
}

/** Return why two models cannot be compared; "" if they can. @param {ModelCard} one @param {ModelCard} other */
function hindranceOf(one, other) {
  if (one === other) return "Choose two different models.";
  if (one.gpt2lab.n_vocab === other.gpt2lab.n_vocab) return "";
  return "These two have different vocabularies: their tokens cannot be compared.";
}

// ---- the comparison -------------------------------------------------------------------------------------------------

/**
 * @param {HTMLElement} host
 * @param {Plan} plan
 * @param {{api: Api, say: (text: string) => void, signal: AbortSignal}} parts
 */
async function compare(host, { cards, now, seed }, { api, say, signal }) {
  const busy = (/** @type {number} */ seconds) => say(busyText(seconds));
  const vocabulary = await api.vocabulary(cards[0].id);
  const prompt = await api.tokenize(cards[0].id, now.prompt, { signal });
  const columns = cards.map((card, at) => new Column(card, cards[1 - at], vocabulary));
  host.replaceChildren(element("div.compare-columns", {}, ...columns.map(({ node }) => node)));
  const room = Math.min(...cards.map((card) => card.gpt2lab.n_ctx)) - Math.max(1, prompt.length);
  const max_tokens = room > 0 ? Math.min(room, now.max_tokens) : now.max_tokens; // the server reports the problem
  const request = { prompt: prompt.length ? prompt : "", max_tokens, seed, ...samplingParams(now), logprobs: 0 };
  const write = async (/** @type {Column} */ column) => {
    for await (const { index, tokens } of api.complete({ model: column.card.id, ...request }, { signal }))
      if (index !== null) column.add(tokens);
    column.end();
  };
  const patient = (/** @type {Column} */ column) =>
    withPatience(() => write(column), { signal, busy, begun: () => column.ids.length > 0 });
  try {
    await Promise.all(columns.map(patient));
    await Promise.all(columns.map((column) => withPatience(() => column.judge(prompt, api, signal), { signal, busy })));
  } finally {
    columns.forEach((column) => column.settle());
  }
  host.append(await parting(cards, columns, { prompt, vocabulary, signal }));
}

/**
 * Show where the texts diverge, and both models' distributions at that place.
 * @param {ModelCard[]} cards @param {Column[]} columns
 * @param {{prompt: number[], vocabulary: string[], signal: AbortSignal}} parts
 */
async function parting(cards, columns, { prompt, vocabulary, signal }) {
  const [one, other] = columns.map(({ ids }) => ids);
  const at = one.findIndex((id, place) => id !== other[place]);
  if (at < 0) return element("p", {}, `Both drew the same ${one.length} ${one.length === 1 ? "token" : "tokens"}.`);
  const ask = (/** @type {ModelCard} */ card) =>
    logits(card.id, [...orStart(prompt, card), ...one.slice(0, at)], { signal });
  const rows = await Promise.all(cards.map(ask));
  const [p, q] = rows.map((row) => stages(row)[0].probabilities);
  const title = at === 0 ? "They diverge at the first token" : `They diverge after ${at} ${at === 1 ? "token" : "tokens"}`;
  const [there, back] = [divergence(p, q), divergence(q, p)].map((nats) => nats.toFixed(2));
  const said = `Kullback–Leibler divergence of the distributions there: ${there} nats one way, ${back} the other.`;
  return element(
    "section.parting",
    {},
    element("h3", {}, title),
    element("p.hint", {}, said),
    partingTable(cards, columns, { p, q, at, vocabulary }),
  );
}

/**
 * Make the table of both models' likeliest tokens at the place and of the drawn ones.
 * @param {ModelCard[]} cards @param {Column[]} columns
 * @param {{p: Float64Array, q: Float64Array, at: number, vocabulary: string[]}} place
 */
function partingTable(cards, columns, { p, q, at, vocabulary }) {
  const drawn = columns.map(({ ids }) => ids[at]).filter((id) => id !== undefined);
  const ids = [...new Set([...possible(p, SHOWN), ...possible(q, SHOWN), ...drawn])];
  ids.sort((a, b) => Math.max(p[b], q[b]) - Math.max(p[a], q[a]));
  const longest = Math.max(p[ids[0]], q[ids[0]]);
  const cell = (/** @type {number} */ share) => element("td", {}, probabilityText(share), bar(share / longest));
  const rows = ids.map((id) => {
    const by = columns.filter((column) => column.ids[at] === id).map(({ card }) => card.id);
    const label = tokenHead(vocabulary, id);
    if (by.length) label.append(element("small", {}, `drawn by ${by.join(" and ")}`));
    return element("tr", {}, label, cell(p[id]), cell(q[id]), element("td", {}, ratioText(Math.log(p[id] / q[id]))));
  });
  return table("Both models where the texts diverge", null, [...cards.map(({ id }) => id), `for ${cards[0].id}`], rows);
}

/** Return `prompt` or, if it is empty, the id that starts a text. @param {number[]} prompt @param {ModelCard} card */
function orStart(prompt, { gpt2lab: { end_of_text: start } }) {
  return prompt.length || start === null ? prompt : [start];
}

/** Return the Kullback–Leibler divergence of p from q, in nats. @param {Float64Array} p @param {Float64Array} q */
function divergence(p, q) {
  let sum = 0;
  for (let id = 0; id < p.length; id++) if (p[id] > 0) sum += p[id] * Math.log(p[id] / q[id]);
  return sum;
}

/** A text of one model, marked once the other model has scored it. */
class Column {
  /** @type {number[]} */
  ids = [];
  /** @type {Drawn[]} */
  #tokens = [];
  #other;
  #vocabulary;
  #decoder;
  #text = element("p.sample", { dir: "auto" });
  #below = element("div.judged", {}, element("p.hint.waits", {}, "Drawing …"));

  /** @param {ModelCard} card @param {ModelCard} other @param {string[]} vocabulary */
  constructor(card, other, vocabulary) {
    this.card = card;
    this.#other = other;
    this.#vocabulary = vocabulary;
    this.#decoder = new Decoder(vocabulary);
    this.node = element(
      "article.compare-column",
      { "data-model": card.id },
      element("h3", {}, card.id),
      this.#text,
      this.#below,
    );
  }

  /** @param {import("./api.js").Token[]} tokens */
  add(tokens) {
    for (const { id, logprob } of tokens) {
      const text = id === this.card.gpt2lab.end_of_text ? "∎" : this.#decoder.push(id);
      const { nodes, span } = tokenNodes(text, null);
      this.ids.push(id);
      this.#tokens.push({ id, logprob, ratio: 0, span });
      this.#text.append(...nodes);
    }
  }

  end() {
    this.#text.append(this.#decoder.rest());
  }

  /** Finish the text: no more tokens come. */
  settle() {
    this.#below.querySelector(".waits")?.remove();
  }

  /** Let the other model score it. @param {number[]} prompt @param {Api} api @param {AbortSignal} signal */
  async judge(prompt, api, signal) {
    const before = orStart(prompt, this.card);
    const scores = await api.score(this.#other.id, [...before, ...this.ids], { signal });
    this.#tokens.forEach((token, at) => {
      token.ratio = token.logprob - (scores[before.length + at] ?? 0);
      token.span.classList.add(...marks(token.ratio));
      token.span.title = this.#words(token);
    });
    const most = [...this.#tokens].sort((a, b) => Math.abs(b.ratio) - Math.abs(a.ratio)).slice(0, SHOWN);
    this.#below.replaceChildren(element("p", {}, this.#average()), this.#table(most));
  }

  #average() {
    const mean = this.#tokens.reduce((sum, { ratio }) => sum + ratio, 0) / this.#tokens.length;
    const times = alike(mean) ? "as likely as" : `${ratioText(mean)} than`;
    return `On average ${this.card.id} finds these tokens ${times} ${this.#other.id} does (${mean.toFixed(2)} nats).`;
  }

  /** @param {Drawn} token */
  #words({ id, logprob, ratio }) {
    const [own, theirs] = [Math.exp(logprob), Math.exp(logprob - ratio)].map(probabilityText);
    return `${tokenLabel(this.#vocabulary, id)}: ${this.card.id} ${own}, ${this.#other.id} ${theirs}`;
  }

  /** @param {Drawn[]} tokens */
  #table(tokens) {
    const rows = tokens.map(({ id, logprob, ratio }) =>
      element(
        "tr",
        {},
        tokenHead(this.#vocabulary, id),
        ...[logprob, logprob - ratio].map((log) => element("td", {}, probabilityText(Math.exp(log)))),
        element("td", {}, ratioText(ratio)),
      ),
    );
    const names = [this.card.id, this.#other.id];
    const label = `Where ${names.join(" and ")} disagree most about this text`;
    return table(label, "Where they disagree most", [...names, `for ${this.card.id}`], rows);
  }
}

/** @param {string[]} vocabulary @param {number} id */
function tokenHead(vocabulary, id) {
  return element("th", { scope: "row" }, element("code", {}, tokenLabel(vocabulary, id)));
}

/**
 * Make a table of tokens in a box that scrolls.
 * @param {string} label @param {string | null} caption @param {string[]} heads @param {HTMLElement[]} rows
 */
function table(label, caption, heads, rows) {
  const head = element("tr", {}, element("td"), ...heads.map((text) => element("th", { scope: "col" }, text)));
  return element(
    "div.scrolling",
    { tabindex: 0, role: "region", "aria-label": label },
    element(
      "table",
      {},
      caption && element("caption", {}, caption),
      element("thead", {}, head),
      element("tbody", {}, ...rows),
    ),
  );
}

/** Return the classes of a token that its own model finds `ratio` nats likelier than the other. @param {number} ratio */
function marks(ratio) {
  const strength = STEPS.filter((step) => Math.abs(ratio) >= step).length;
  return strength ? [`${ratio > 0 ? "own" : "theirs"}${strength}`] : [];
}

/** @param {number} nats */
function alike(nats) {
  return !(Math.abs(nats) >= 0.05);
}

/** Return "3.2 × likelier" for a difference of log-probabilities. @param {number} nats */
function ratioText(nats) {
  if (alike(nats)) return "as likely";
  const times = Math.exp(Math.abs(nats));
  const rounded =
    times < 10 ? times.toFixed(1) : times < 1e6 ? Math.round(times).toLocaleString("en") : "over a million";
  return `${rounded} × ${nats > 0 ? "likelier" : "less likely"}`;
}
