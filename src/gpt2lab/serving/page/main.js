/**
 * The playground's entry point: puts the parts together. Each part has its own file.
 */

import * as api from "./api.js";
import { withKey } from "./api_key.js";
import { comparable, mountCompare } from "./compare.js";
import { mountControls, mountSheetControls } from "./controls.js";
import { byId, ignoreDisabled } from "./elements.js";
import { mountExamples } from "./examples.js";
import { InsideSection } from "./inside_section.js";
import { Messages } from "./messages.js";
import { ModelChoice } from "./model_choice.js";
import { settings } from "./settings.js";
import { StageTable } from "./stage_table.js";
import { mountSweep } from "./sweep.js";
import { mountTerms } from "./terms.js";
import { TextPanel } from "./text_panel.js";
import { mountToolbar } from "./toolbar.js";
import { mountTour } from "./tour.js";

const NARROW = matchMedia("(max-width: 63.99rem)");

const messages = new Messages(byId("status"), byId("alert"), byId("run"));
const models = new ModelChoice(settings);
const views = { stageTable: new StageTable(byId("stage-table")), inside: new InsideSection() };
const panel = new TextPanel({ settings, messages, views, served: (cards) => models.offer(cards) });

ignoreDisabled();
mountTerms();
mountControls(byId("controls"), settings);
mountSheetControls(byId("sheet-controls"), settings);
mountExamples(byId("examples"), settings, () => panel.write());
for (const bar of document.querySelectorAll(".tools[role=toolbar]")) if (bar instanceof HTMLElement) mountToolbar(bar);
byId("settings", HTMLDetailsElement).open = !NARROW.matches;
bindPrompt();
/** @type {(value?: unknown) => void} */
let tellBegun;
const begun = new Promise((resolve) => {
  tellBegun = resolve;
});
mountTour({ settings, panel, begun });
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
  models.offer(cards);
  const wished = wishedModels(cards);
  if (wished.model) settings.set({ model: wished.model });
  document.documentElement.dataset.ready = "true"; // tests and timings wait for this
  performance.mark("ready");
  mountSweep(byId("sweep"), { settings, api });
  if (comparable(cards)) {
    byId("compare-section").hidden = false;
    mountCompare(byId("compare"), { settings, api, models: cards, pair: [wished.model, wished.beside] });
    if (wished.beside) byId("compare-section").scrollIntoView();
  }
  await panel.begin(cards, { draft: wished.model !== undefined });
  tellBegun();
}

/**
 * Return the served models that the address names, as the training page's links do, and take them out of the address: the
 * user's later choice outlives a reload.
 * @param {api.ModelCard[]} cards @returns {{model?: string, beside?: string}}
 */
function wishedModels(cards) {
  const query = new URLSearchParams(location.search);
  const [model, beside] = ["model", "beside"].map((name) => cards.find(({ id }) => id === query.get(name))?.id);
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  return { model, beside };
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
