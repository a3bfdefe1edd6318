/**
 * One prompt at several temperatures, a column for each: samples coloured by what the model itself found probable, and
 * how surprising, varied and repetitive they are. All columns use the same random numbers.
 */

import { withKey } from "./api_key.js";
import { element, newId } from "./elements.js";
import { ARTICLE } from "./scales.js";
import { LIMITS, isValid, newSeed, samplingParams } from "./settings.js";
import { textFigures } from "./text_figures.js";
import { tokenNodes } from "./tokens.js";
import { Decoder } from "./vocabulary.js";

const AT_ONCE = 3; // requests: browsers hold six connections to a server, and the rest of the page wants some
const MOST = 16; // columns
const HINT =
  "Prompt, length and the other settings are those above. Every column draws with the same random numbers; " +
  "at temperature 0 nothing is drawn, so there is one sample.";

/**
 * @param {HTMLElement} host
 * @param {{settings: typeof import("./settings.js").settings, api: typeof import("./api.js")}} parts
 */
export function mountSweep(host, { settings, api }) {
  const form = sweepForm(settings);
  const columns = element("div.sweep-columns");
  host.classList.add("sweep");
  host.replaceChildren(form.node, columns);
  let stopping = null;

  form.onRun(async () => {
    const plan = form.plan();
    if (!plan) return;
    stopping = new AbortController();
    form.running(true);
    try {
      await withKey(() => sweep(columns, plan, { settings, api, say: form.say, signal: stopping.signal }));
      form.say(`Done: ${plan.temperatures.length} temperatures, seed ${plan.seed}.`);
    } catch (problem) {
      form.say(stopping.signal.aborted ? "Stopped." : problem.message);
    } finally {
      stopping.abort(); // one column failed: the others need not go on
      form.running(false);
    }
  });
  form.onStop(() => stopping?.abort());
}

async function sweep(host, plan, { settings, api, say, signal }) {
  const cards = await api.models();
  const card = cards.find(({ id }) => id === settings.get().model) ?? cards[0];
  const vocabulary = await api.vocabulary(card.id);
  const columns = plan.temperatures.map((temperature) => new Column(temperature, plan, { card, vocabulary, settings }));
  host.replaceChildren(...columns.map(({ node }) => node));
  const waiting = [...columns];
  let done = 0;
  const work = async () => {
    for (let column = waiting.shift(); column; column = waiting.shift()) {
      for await (const piece of api.complete(column.request, { signal })) column.add(piece);
      column.end();
      done += 1;
      say(`${done} of ${columns.length} temperatures`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

// ---- the form -------------------------------------------------------------------------------------------------------

function sweepForm(settings) {
  const [listId, countId, hintId] = ["sweep-temperatures", "sweep-n", "sweep-hint"].map(newId);
  const list = element("input", {
    id: listId,
    value: ARTICLE.join(" "),
    autocomplete: "off",
    "aria-describedby": hintId,
  });
  const number = element("input", { id: countId, type: "number", min: 1, max: 16, step: 1 });
  const run = element("button.button.primary", { type: "submit" }, "Sweep");
  const stop = element("button.button", { type: "button", disabled: true }, "Stop");
  const status = element("span.hint", { role: "status" });
  const say = (text) => {
    status.textContent = text;
  };
  const node = element(
    "form.sweep-form",
    { novalidate: true },
    element("div.field", {}, element("label", { for: listId }, "Temperatures"), list),
    element("div.field", {}, element("label", { for: countId }, "Samples each"), number),
    run,
    stop,
    status,
    element("p.hint", { id: hintId }, HINT),
  );
  number.addEventListener("input", () => {
    if (isValid("n", number.valueAsNumber)) settings.set({ n: number.valueAsNumber });
  });
  const show = ({ n }) => {
    if (number.valueAsNumber !== n) number.value = String(n);
  };
  settings.subscribe(show);
  show(settings.get());

  const plan = () => {
    const temperatures = parsed(list.value);
    list.setAttribute("aria-invalid", String(!temperatures));
    if (!temperatures)
      say(`Temperatures are numbers from 0 to ${LIMITS.temperature.most}, with spaces between, at most ${MOST}.`);
    return temperatures && { temperatures, seed: settings.get().seed ?? newSeed(), ...pick(settings.get()) };
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
  return { node, say, plan, running, onRun, onStop: (listener) => stop.addEventListener("click", listener) };
}

function pick({ prompt, max_tokens, n, ...rest }) {
  return { prompt, max_tokens, n, params: samplingParams(rest) };
}

/** @returns {number[] | null} */
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
  #samples;
  #texts;
  #decoders;
  #figures = element("dl.text-figures");
  #endOfText;

  constructor(temperature, { seed, prompt, max_tokens, n: most, params }, { card, vocabulary, settings }) {
    const n = temperature === 0 ? 1 : most; // without chance all samples are one
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

  /** @param {import("./api.js").Piece} piece */
  add({ index, tokens }) {
    if (index === null) return;
    for (const { id, logprob } of tokens) {
      const text = id === this.#endOfText ? "∎" : this.#decoders[index].push(id);
      this.#samples[index].push({ id, logprob });
      this.#texts[index].append(...tokenNodes(text, Math.exp(logprob)));
    }
  }

  end() {
    this.#decoders.forEach((decoder, at) => this.#texts[at].append(decoder.rest()));
    this.#count();
  }

  #count() {
    const { tokens, surprisal, distinct, repeated } = textFigures(this.#samples);
    const pairs = [
      ["surprisal", surprisal === null ? "–" : `${surprisal.toFixed(2)} nats`],
      ["distinct-1, -2", `${percent(distinct[0])}, ${percent(distinct[1])}`],
      ["repeated fours", percent(repeated)],
      ["tokens", tokens ? String(tokens) : "–"],
    ];
    this.#figures.replaceChildren(
      ...pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }
}

function percent(share) {
  return share === null ? "–" : `${(100 * share).toFixed(0)} %`;
}
