/**
 * The playground's entry point: puts the parts together. Each part has its own file.
 */

import * as api from "./api.js";
import { withKey } from "./api_key.js";
import { comparable, mountCompare } from "./compare.js";
import { mountControls } from "./controls.js";
import { byId } from "./elements.js";
import { Messages } from "./messages.js";
import { settings } from "./settings.js";
import { StageTable } from "./stage_table.js";
import { mountSweep } from "./sweep.js";
import { TextPanel } from "./text_panel.js";

const NARROW = matchMedia("(max-width: 63.99rem)");

const messages = new Messages(byId("status"), byId("alert"));
const panel = new TextPanel({ settings, messages, stageTable: new StageTable(byId("stage-table")) });

mountControls(byId("controls"), settings);
byId("settings", HTMLDetailsElement).open = !NARROW.matches;
bindPrompt();
start();

/** Ask the server for its models, and begin. */
async function start() {
  /** @type {api.ModelCard[]} */
  let cards;
  try {
    cards = await withKey(api.models);
  } catch (problem) {
    if (!(problem instanceof api.ApiError)) throw problem;
    messages.tell(problem.message, { actions: [["Try again", start]] });
    return;
  }
  bindModels(cards);
  document.documentElement.dataset.ready = "true"; // tests and timings wait for this
  performance.mark("ready");
  mountSweep(byId("sweep"), { settings, api });
  if (comparable(cards)) {
    byId("compare-section").hidden = false;
    mountCompare(byId("compare"), { settings, api, models: cards });
  }
  await panel.begin(cards);
}

function bindPrompt() {
  const prompt = byId("prompt", HTMLTextAreaElement);
  const show = (/** @type {{prompt: string}} */ { prompt: text }) => {
    if (prompt.value !== text) prompt.value = text;
  };
  show(settings.get());
  settings.subscribe(show);
  prompt.addEventListener("input", () => settings.set({ prompt: prompt.value }));
}

/** @param {api.ModelCard[]} cards */
function bindModels(cards) {
  const select = byId("model", HTMLSelectElement);
  select.replaceChildren(...cards.map(({ id }) => new Option(id, id)));
  select.disabled = cards.length < 2;
  select.addEventListener("change", () => settings.set({ model: select.value }));
  const show = (/** @type {{model: string | null}} */ { model }) => {
    const card = cards.find(({ id }) => id === model) ?? cards[0];
    select.value = card.id;
    byId("model-facts").textContent = factsOf(card.gpt2lab);
  };
  show(settings.get());
  settings.subscribe(show);
}

/** "11.4M parameters · 6 layers · context 256 · int8". @param {api.ModelFacts} facts */
function factsOf({ n_parameters: n, n_layer: layers, n_ctx: context, precision }) {
  const size = n >= 1e9 ? `${(n / 1e9).toFixed(1)}B` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)}M` : n.toLocaleString("en");
  return `${size} parameters · ${layers} layers · context ${context.toLocaleString("en")} · ${precision}`;
}
