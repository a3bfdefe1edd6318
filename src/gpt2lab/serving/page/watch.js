/**
 * The page at /watch: the choice of a run, its state in words, its curves, and the samples of its checkpoints, all from the
 * server's events.
 */

import { askForKey } from "./api_key.js";
import { byId, element, ignoreDisabled } from "./elements.js";
import { Curves } from "./watch_curves.js";
import { follow } from "./watch_events.js";
import { perplexityText } from "./watch_numbers.js";
import { Run, bytesText, clock, count, lossText, rateText } from "./watch_run.js";
import { RunList } from "./watch_runs.js";
import { Samples } from "./watch_samples.js";
import { noteOf, showLinks, stateOf, titleOf } from "./watch_state.js";

/** @type {Map<string, Run>} */
const runs = new Map();
/** @type {string | null} */
let chosen = null;
let serverAhead = 0; // seconds by which the server's clock is ahead of this one
let due = false;

const select = byId("run", HTMLSelectElement);
const runList = new RunList(() => redraw());
const curves = new Curves(runList);
const samples = new Samples((step) => {
  if (curves.mark(step)) redraw();
});

// ---- incoming events -------------------------------------------------------------------------------------------

/** @type {Record<string, (data: any) => void>} */
const takers = {
  runs({ runs: names, now }) {
    serverAhead = now - Date.now() / 1000;
    for (const name of [...runs.keys()]) if (!names.includes(name)) runs.delete(name);
    for (const name of names) if (!runs.has(name)) runs.set(name, new Run(name));
    const wished = wishedRun();
    if (!chosenRun()) chosen = runs.has(wished) ? wished : (names[0] ?? null);
    select.replaceChildren(...names.map((/** @type {string} */ name) => element("option", { value: name }, name)));
    select.value = chosen ?? "";
    select.disabled = names.length < 2;
  },
  run(data) {
    runs.get(data.run)?.take(data);
  },
  beat({ now }) {
    serverAhead = now - Date.now() / 1000;
  },
};

function chosenRun() {
  return chosen === null ? undefined : runs.get(chosen);
}

function redraw() {
  if (document.hidden) document.title = titleOf(chosenRun()); // nothing else is visible then
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
}

function draw() {
  const run = chosenRun();
  note(run);
  byId("run-title").textContent = run?.name ?? "Training";
  document.title = titleOf(run);
  const facts = run?.facts ?? {};
  const known = Boolean(facts.step ?? facts.validation);
  byId("figures").hidden = !run || !(run.updates.length + run.validations.length);
  byId("state").textContent = run ? stateOf(facts, serverNow()) : "";
  if (run) announce(run);
  progress(facts);
  tiles(facts, known);
  showLinks(facts);
  settings(facts.settings ?? {});
  if (!run) return;
  runList.show([...runs.keys()], run.name);
  samples.show(run);
  curves.show(run, [...runs.values()].filter((other) => other !== run));
}

// ---- words -----------------------------------------------------------------------------------------------------

const serverNow = () => Date.now() / 1000 + serverAhead;

/** Let screen readers announce changes of a run's state, but not every change of the page. @param {Run} run */
function announce(run) {
  const { state = "" } = run.facts;
  const key = `${chosen} ${state}`;
  if (!state || byId("announcement").dataset.key === key) return;
  byId("announcement").dataset.key = key;
  byId("announcement").textContent = `${run.name}: ${stateOf(run.facts, serverNow())}`;
  byId("state").dataset.state = state;
}

/** @param {Run} [run] */
function note(run) {
  const none = "This server watches no run. Start it with one: gpt2lab serve --watch checkpoint/run1";
  const words = run ? noteOf(run) : live ? none : "";
  const place = byId("note");
  place.hidden = !words;
  if (place.textContent !== words) place.replaceChildren(element("p", {}, words));
}

// ---- figures ---------------------------------------------------------------------------------------------------

/** @param {import("./watch_run.js").Facts} facts */
function progress({ step, last_step: last, state, ends_at: end }) {
  byId("progress").hidden = !step || !last;
  if (!step || !last) return;
  const share = Math.min(1, step / last);
  byId("bar", HTMLProgressElement).value = share;
  const words = [`${count(step)} of ${count(last)} updates`, `${Math.floor(100 * share)} %`];
  if (state === "running" && end) {
    const at = new Date((end - serverAhead) * 1000);
    const today = at.toDateString() === new Date().toDateString();
    const when = at.toLocaleString([], { timeStyle: "short", ...(today ? {} : { dateStyle: "medium" }) });
    words.push(`${clock(end - serverNow())} to go, until ${when}`);
  }
  byId("progress-text").textContent = words.join(" · ");
}

/** @param {import("./watch_run.js").Facts} facts @param {boolean} known */
function tiles(facts, known) {
  byId("tiles").hidden = !known;
  if (!known) return;
  const { validation, best } = facts;
  /** @type {(value: number | null | undefined, text: (value: number) => string) => string | null} */
  const told = (value, text) => (value === null || value === undefined ? null : text(value));
  const shown = Object.entries({
    "training loss": told(facts.loss, lossText),
    "held-out loss": told(validation?.loss, lossText),
    "held-out perplexity": told(validation?.loss, perplexityText),
    "best held-out loss": best ? `${lossText(best.loss)} at ${count(best.step)}` : null,
    "learning rate": told(facts.learning_rate, rateText),
    "tokens per second": told(facts.tokens_per_second, count),
    "trained for": told(facts.seconds, clock),
    "peak memory": told(facts.memory, bytesText),
  }).filter(([, value]) => value !== null);
  const place = byId("tiles");
  const names = shown.map(([name]) => name).join();
  if (place.dataset.names !== names) {
    place.dataset.names = names;
    place.replaceChildren(...shown.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
  }
  place.querySelectorAll("dd").forEach((value, at) => {
    value.textContent = shown[at][1];
  });
}

/** @param {Record<string, unknown>} values */
function settings(values) {
  const entries = Object.entries(values);
  const place = byId("settings");
  place.hidden = !entries.length;
  const list = place.querySelector("dl");
  const key = JSON.stringify(values);
  if (!list || list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(
    ...entries.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))),
  );
}

// ---- the connection --------------------------------------------------------------------------------------------

let live = false;

/** @param {"connecting" | "live" | "lost" | "key"} state @param {number} [seconds] */
function tell(state, seconds) {
  live = state === "live";
  const words = {
    connecting: "connecting …",
    live: "live",
    lost: `no connection; trying again in ${seconds} s`,
    key: "this server needs an API key",
  };
  byId("connection").textContent = words[state];
  byId("connection").dataset.state = state;
  byId("connect").hidden = state !== "key";
  redraw();
}

function connect() {
  follow({
    take(event, data) {
      takers[event]?.(data);
      redraw();
    },
    tell,
    ask: async () => Boolean(await askForKey()),
  });
}

byId("connect").addEventListener("click", connect);
select.addEventListener("change", () => {
  chosen = select.value;
  history.replaceState(null, "", `#${encodeURIComponent(chosen)}`);
  redraw();
});
ignoreDisabled();
setInterval(redraw, 5000); // times change even when nothing else does
connect();

/** Return the run that the address names; "" if it names none. */
function wishedRun() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}
