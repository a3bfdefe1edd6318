/**
 * The playground: puts the parts together. What each of them does is in its own file.
 */

import * as api from "./api.js";
import { withKey } from "./api_key.js";
import { comparable, mountCompare } from "./compare.js";
import { mountControls } from "./controls.js";
import { Messages } from "./messages.js";
import { settings } from "./settings.js";
import { StageTable } from "./stage_table.js";
import { mountSweep } from "./sweep.js";
import { TextPanel } from "./text_panel.js";

const $ = (id) => document.getElementById(id);
const NARROW = matchMedia("(max-width: 63.99rem)");

const messages = new Messages($("status"), $("alert"));
const panel = new TextPanel(document, { settings, messages, stageTable: new StageTable($("stage-table")) });

mountControls($("controls"), settings);
$("settings").open = !NARROW.matches;
bindPrompt();
start();

/** Ask what is served, and begin. */
async function start() {
  let cards;
  try {
    cards = await withKey(api.models);
  } catch (problem) {
    if (!(problem instanceof api.ApiError)) throw problem;
    messages.tell(problem.message, { actions: [["Try again", start]] });
    return;
  }
  bindModels(cards);
  document.documentElement.dataset.ready = "true"; // what tests and timings wait for
  performance.mark("ready");
  mountSweep($("sweep"), { settings, api });
  if (comparable(cards)) {
    $("compare-section").hidden = false;
    mountCompare($("compare"), { settings, api, models: cards });
  }
  await panel.begin(cards);
}

function bindPrompt() {
  const prompt = $("prompt");
  const show = ({ prompt: text }) => {
    if (prompt.value !== text) prompt.value = text;
  };
  show(settings.get());
  settings.subscribe(show);
  prompt.addEventListener("input", () => settings.set({ prompt: prompt.value }));
}

function bindModels(cards) {
  const select = $("model");
  select.replaceChildren(...cards.map(({ id }) => new Option(id, id)));
  select.disabled = cards.length < 2;
  select.addEventListener("change", () => settings.set({ model: select.value }));
  const show = ({ model }) => {
    const card = cards.find(({ id }) => id === model) ?? cards[0];
    select.value = card.id;
    $("model-facts").textContent = factsOf(card.gpt2lab);
  };
  show(settings.get());
  settings.subscribe(show);
}

/** "11.4M parameters · 6 layers · context 256 · q8_0". */
function factsOf({ n_parameters: n, n_layer: layers, n_ctx: context, precision }) {
  const size = n >= 1e9 ? `${(n / 1e9).toFixed(1)}B` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)}M` : n.toLocaleString("en");
  return `${size} parameters · ${layers} layers · context ${context.toLocaleString("en")} · ${precision}`;
}
