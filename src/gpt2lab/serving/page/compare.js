/**
 * The same prompt and seed on two models, and what each thinks of the other's text: every token is marked by how much
 * likelier its own model found it, and where the two texts part both models' distributions stand beside each other.
 */

import { withKey } from "./api_key.js";
import { element, newId } from "./elements.js";
import { likeliest, stages } from "./sampling.js";
import { newSeed, samplingParams } from "./settings.js";
import { probabilityText, tokenNodes } from "./tokens.js";
import { Decoder, tokenLabel } from "./vocabulary.js";

const SHOWN = 6; // tokens in a table
const STEPS = [0.7, 1.6, 3]; // nats: about 2, 5 and 20 times as likely

/** Whether two of the models that are served have one vocabulary's size, so that their tokens can be compared. */
export function comparable(models) {
  const sizes = models.map((card) => card.gpt2lab?.n_vocab);
  return sizes.some((size, at) => size !== undefined && sizes.indexOf(size) !== at);
}

/**
 * @param {HTMLElement} host
 * @param {{settings: typeof import("./settings.js").settings, api: typeof import("./api.js"), models: object[]}} parts
 */
export function mountCompare(host, { settings, api, models }) {
  const form = compareForm(models);
  const result = element("div.compare-result");
  host.classList.add("compare");
  host.replaceChildren(form.node, result);
  let stopping = null;

  form.onRun(async () => {
    const cards = form.cards();
    if (!cards) return;
    stopping = new AbortController();
    form.running(true);
    try {
      const seed = settings.get().seed ?? newSeed();
      await withKey(() => compare(result, cards, { now: settings.get(), seed, api, signal: stopping.signal }));
      form.say(`Done: seed ${seed}.`);
    } catch (problem) {
      form.say(stopping.signal.aborted ? "Stopped." : problem.message);
    } finally {
      stopping.abort();
      form.running(false);
    }
  });
  form.onStop(() => stopping?.abort());
}

// ---- the comparison -------------------------------------------------------------------------------------------------

async function compare(host, cards, { now, seed, api, signal }) {
  const vocabulary = await api.vocabulary(cards[0].id);
  const prompt = await api.tokenize(cards[0].id, now.prompt, { signal });
  const columns = cards.map((card, at) => new Column(card, cards[1 - at], vocabulary));
  host.replaceChildren(element("div.compare-columns", {}, ...columns.map(({ node }) => node)));
  const room = Math.min(...cards.map((card) => card.gpt2lab.n_ctx)) - Math.max(1, prompt.length);
  const max_tokens = room > 0 ? Math.min(room, now.max_tokens) : now.max_tokens; // the server says what is wrong
  const request = { prompt: prompt.length ? prompt : "", max_tokens, seed, ...samplingParams(now), logprobs: 0 };
  const write = async (column) => {
    for await (const { index, tokens } of api.complete({ model: column.card.id, ...request }, { signal }))
      if (index !== null) column.add(tokens);
    column.end();
  };
  try {
    await Promise.all(columns.map(write));
    await Promise.all(columns.map((column) => column.judge(prompt, api, signal)));
  } finally {
    columns.forEach((column) => column.settle());
  }
  host.append(await parting(cards, columns, { prompt, vocabulary, api, signal }));
}

/** Where the texts part, and what both models say of that place. */
async function parting(cards, columns, { prompt, vocabulary, api, signal }) {
  const [one, other] = columns.map(({ ids }) => ids);
  const at = one.findIndex((id, place) => id !== other[place]);
  if (at < 0) return element("p", {}, `Both drew the same ${one.length} tokens.`);
  const before = [...prompt, ...one.slice(0, at)];
  const rows = await Promise.all(cards.map(({ id }) => api.logits(id, before, { signal, drawn: at })));
  const [p, q] = rows.map((logits) => stages(logits)[0].probabilities);
  const title = at === 0 ? "They part at the first token" : `They part after ${at} ${at === 1 ? "token" : "tokens"}`;
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

/** The likeliest tokens of both at the place, and those that were drawn. */
function partingTable(cards, columns, { p, q, at, vocabulary }) {
  const drawn = columns.map(({ ids }) => ids[at]).filter((id) => id !== undefined);
  const ids = [...new Set([...likeliest(p, SHOWN), ...likeliest(q, SHOWN), ...drawn])];
  ids.sort((a, b) => Math.max(p[b], q[b]) - Math.max(p[a], q[a]));
  const longest = Math.max(p[ids[0]], q[ids[0]]);
  const cell = (share) => {
    const made = element("td", {}, probabilityText(share), element("span.bar"));
    made.lastChild.style.setProperty("--share", share / longest);
    return made;
  };
  const rows = ids.map((id) => {
    const by = columns.filter((column) => column.ids[at] === id).map(({ card }) => card.id);
    const label = tokenHead(vocabulary, id);
    if (by.length) label.append(element("small", {}, `drawn by ${by.join(" and ")}`));
    return element("tr", {}, label, cell(p[id]), cell(q[id]), element("td", {}, ratioText(Math.log(p[id] / q[id]))));
  });
  return table("Both models where the texts part", null, [...cards.map(({ id }) => id), `to ${cards[0].id}`], rows);
}

/** Of p from q, in nats. */
function divergence(p, q) {
  let sum = 0;
  for (let id = 0; id < p.length; id++) if (p[id] > 0) sum += p[id] * Math.log(p[id] / q[id]);
  return sum;
}

/** A text of one model, marked once the other has read it. */
class Column {
  ids = [];
  #tokens = []; // {id, text, logprob, span}
  #other;
  #vocabulary;
  #decoder;
  #text = element("p.sample", { dir: "auto" });
  #below = element("div.judged", {}, element("p.hint.waits", {}, "Drawing …"));

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
      const nodes = tokenNodes(text, null);
      this.ids.push(id);
      this.#tokens.push({ id, logprob, span: nodes[nodes.length - 1] });
      this.#text.append(...nodes);
    }
  }

  end() {
    this.#text.append(this.#decoder.rest());
  }

  /** Nothing more comes. */
  settle() {
    this.#below.querySelector(".waits")?.remove();
  }

  /** Let the other model read it. */
  async judge(prompt, api, signal) {
    const before = prompt.length ? prompt : [this.card.gpt2lab.end_of_text];
    const scores = await api.score(this.#other.id, [...before, ...this.ids], { signal });
    this.#tokens.forEach((token, at) => {
      token.ratio = token.logprob - scores[before.length + at];
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

  #words({ id, logprob, ratio }) {
    const [own, theirs] = [Math.exp(logprob), Math.exp(logprob - ratio)].map(probabilityText);
    return `${tokenLabel(this.#vocabulary, id)}: ${this.card.id} ${own}, ${this.#other.id} ${theirs}`;
  }

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
    return table(label, "Where they disagree most", [...names, `to ${this.card.id}`], rows);
  }
}

function tokenHead(vocabulary, id) {
  return element("th", { scope: "row" }, element("code", {}, tokenLabel(vocabulary, id)));
}

/** A table of tokens in a box that scrolls. */
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

/** Classes of a token that its own model finds `ratio` nats likelier than the other. */
function marks(ratio) {
  const strength = STEPS.filter((step) => Math.abs(ratio) >= step).length;
  return strength ? [`${ratio > 0 ? "own" : "theirs"}${strength}`] : [];
}

function alike(nats) {
  return !(Math.abs(nats) >= 0.05);
}

/** "3.2 × likelier" for a difference of log-probabilities. */
function ratioText(nats) {
  if (alike(nats)) return "as likely";
  const times = Math.exp(Math.abs(nats));
  const rounded =
    times < 10 ? times.toFixed(1) : times < 1e6 ? Math.round(times).toLocaleString("en") : "over a million";
  return `${rounded} × ${nats > 0 ? "likelier" : "unlikelier"}`;
}

// ---- the form -------------------------------------------------------------------------------------------------------

function compareForm(models) {
  const choices = [0, 1].map((at) => {
    const [id, names] = [newId("compare-model"), models.map(({ id }) => id)];
    const select = element(
      "select",
      { id },
      ...names.map((name, place) => element("option", { value: name, selected: place === at }, name)),
    );
    return { select, node: element("div.field", {}, element("label", { for: id }, at ? "and" : "Compare"), select) };
  });
  const run = element("button.button.primary", { type: "submit" }, "Write with both");
  const stop = element("button.button", { type: "button", disabled: true }, "Stop");
  const status = element("span.hint", { role: "status" });
  const node = element("form.compare-form", {}, ...choices.map((choice) => choice.node), run, stop, status);
  const say = (text) => {
    status.textContent = text;
  };

  const cards = () => {
    const chosen = choices.map(({ select }) => models.find(({ id }) => id === select.value));
    if (chosen[0] === chosen[1]) return say("Choose two different models.");
    if (chosen[0].gpt2lab.n_vocab !== chosen[1].gpt2lab.n_vocab)
      return say("These two have different vocabularies: their tokens cannot be compared.");
    return chosen;
  };
  const running = (now) => {
    run.disabled = now;
    stop.disabled = !now;
    if (now) say("Drawing …");
  };
  const onRun = (listener) =>
    node.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!run.disabled) listener();
    });
  return { node, say, cards, running, onRun, onStop: (listener) => stop.addEventListener("click", listener) };
}
