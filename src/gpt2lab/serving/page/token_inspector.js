/**
 * Inspects one place of a run: which tokens are possible there, and how the settings shape the choice.
 *
 * Requests the logits once, the likeliest before the others, and computes the effect of later settings here, so that a
 * moved slider shows at once. This module knows nothing of how runs are drawn.
 */

import { likeliestLogits, logits } from "./logits.js";
import { SamplingError, stages, uniform } from "./sampling.js";
import { sameSampling, samplingParams } from "./settings.js";
import { tokenLabel } from "./vocabulary.js";

const REST_MS = 60; // no request for a place that the pointer only passes

/**
 * @typedef {import("./branches.js").Run} Run
 * @typedef {import("./sampling.js").Stage} Stage
 *
 * @typedef {import("./logits.js").Row} Row
 *
 * @typedef {{stageTable: import("./stage_table.js").StageTable, inside: import("./inside_section.js").InsideSection}} Views
 *
 * @typedef {object} Look
 * @property {Run} run
 * @property {number} place
 * @property {string[]} vocabulary
 * @property {number | null} chosen  the id at the place
 * @property {Run["drawn"]} drawn  the run's list; drawing again replaces it
 * @property {number[]} context  the ids before the place
 * @property {boolean} pinned
 * @property {Row} [row]
 * @property {boolean} [completing]  the whole row is on its way
 * @property {Stage[] | null} [stages]
 * @property {boolean} [failed]
 */

export class TokenInspector {
  #alternatives;
  #stageTable;
  #inside;
  #settings;
  #failed;
  /** @type {Look | null} */
  #now = null;
  #asking = new AbortController();
  #drawing = false;

  /**
   * @param {object} parts
   * @param {import("./alternatives.js").Alternatives} parts.alternatives
   * @param {Views["stageTable"]} parts.stageTable
   * @param {Views["inside"]} parts.inside
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {(problem: unknown) => void} parts.failed  called if the logits did not come
   */
  constructor({ alternatives, stageTable, inside, settings, failed }) {
    this.#alternatives = alternatives;
    this.#stageTable = stageTable;
    this.#inside = inside;
    this.#settings = settings;
    this.#failed = failed;
    settings.subscribe(() => this.#refresh());
  }

  /** Return the model's log-probability of `id` at this place; null before the logits arrive. @param {number} id */
  logprob(id) {
    const model = this.#now?.stages?.[0].probabilities;
    return model ? Math.log(model[id]) : null;
  }

  /**
   * Inspect `place` of `run`. For a pinned place the whole row of logits is requested, else only its likeliest tokens as long
   * as the others make no difference.
   * @param {Run} run @param {number} place @param {string[]} vocabulary @param {boolean} pinned
   */
  look(run, place, vocabulary, pinned) {
    const chosen = run.at(place)?.id ?? null;
    const old = this.#now;
    const same = old?.run === run && old.place === place && old.drawn === run.drawn;
    if (same && old.vocabulary === vocabulary && old.chosen === chosen && !old.failed) {
      old.pinned = pinned;
      if (old.row) this.#complete(old);
      return;
    }
    this.#asking.abort();
    this.#asking = new AbortController();
    const now = { run, place, vocabulary, chosen, pinned, drawn: run.drawn, context: run.contextAt(place) };
    this.#now = now;
    this.#show(now);
    this.#ask(now, this.#asking.signal);
    const { model, contextSize } = run.tree.origin;
    this.#inside.look({ model, contextSize, context: now.context, chosen, vocabulary });
  }

  /** @param {Look} now @param {AbortSignal} signal */
  async #ask(now, signal) {
    const { model, contextSize } = now.run.tree.origin;
    if (now.context.length > contextSize) return; // more than the model's context
    await new Promise((resolve) => {
      setTimeout(resolve, REST_MS);
    });
    if (signal.aborted) return;
    const size = now.vocabulary.length;
    await this.#take(now, signal, async (options) =>
      now.pinned
        ? { values: await logits(model, now.context, options), known: null }
        : likeliestLogits(model, now.context, size, options),
    );
  }

  /**
   * Take the row that `ask` returns, and show it.
   * @param {Look} now @param {AbortSignal} signal @param {(options: import("./logits.js").Options) => Promise<Row>} ask
   */
  async #take(now, signal, ask) {
    try {
      now.row = await ask({ signal, busy: (text) => this.#alternatives.wait(text) });
    } catch (problem) {
      now.failed = true;
      if (!signal.aborted) this.#failed(problem);
      return;
    }
    if (this.#now !== now) return;
    this.#show(now);
    this.#complete(now);
  }

  /** Request the whole row if this view needs it. @param {Look} now */
  #complete(now) {
    const { row, stages: made, pinned, chosen } = now;
    if (!row?.known || now.completing) return;
    const unlikely = chosen !== null && !row.known.has(chosen);
    if (!pinned && !unlikely && !(made && restOf(made, row.known) > NEGLIGIBLE)) return;
    now.completing = true;
    const { model } = now.run.tree.origin;
    this.#take(now, this.#asking.signal, async (options) => ({ values: await logits(model, now.context, options), known: null }));
  }

  #refresh() {
    if (!this.#now?.row || this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (!this.#now) return;
      this.#show(this.#now);
      this.#complete(this.#now);
    });
  }

  /** @param {Look} now */
  #show(now) {
    const { run, place, vocabulary, chosen, row } = now;
    const token = run.at(place) ?? null;
    const owner = run.ownerOf(place);
    const params = samplingParams(this.#settings.get());
    const history = run.historyAt(place);
    const drawnHere = place >= owner.inherited.length;
    const { seed } = owner.plan;
    const u = seed !== null && (drawnHere || token === null) ? uniform(seed, 0, run.positionOf(place)) : null;
    const [made, problem] = row ? stagesOr(row.values, params, history) : [null, ""];
    now.stages = made;
    const partial = made && row?.known ? row.known : null;
    const others = token && drawnHere && !sameSampling(owner.plan.params, params) ? OTHER_SETTINGS : "";
    const rest = partial && made && restOf(made, partial) > NEGLIGIBLE ? REST : "";
    const note = problem || rest || others;
    this.#alternatives.show({ vocabulary, token, top: token?.top ?? null, stages: made, known: partial, u, note });
    if (made && row) this.#stageTable.show({ params, vocabulary, u, chosen, stages: made, known: partial });
    else if (problem) this.#stageTable.clear();
    else this.#stageTable.wait(token ? tokenLabel(vocabulary, token.id) : "");
  }
}

const NEGLIGIBLE = 0.002; // probability of all tokens whose logits are only known together
const REST = "Computed from the 2,000 likeliest tokens. With these settings the others matter, too; they are being loaded.";

/**
 * Return the probability that is left to tokens outside `known`, or a bound on it: below temperature 1 they have less than
 * the model gives them.
 * @param {Stage[]} made @param {Set<number>} known
 */
function restOf(made, known) {
  const last = made[made.length - 1].probabilities;
  let sum = 1;
  for (const id of known) sum -= last[id];
  return sum;
}

const OTHER_SETTINGS = "The text was drawn with other settings; this shows the current ones.";

/**
 * Return the stages, or null and the reason: a model may give logits that are NaN or infinite.
 * @param {Float32Array} values @param {Record<string, number>} params @param {number[]} history
 * @returns {[Stage[] | null, string]}
 */
function stagesOr(values, params, history) {
  try {
    return [stages(values, params, history), ""];
  } catch (problem) {
    if (problem instanceof SamplingError) return [null, problem.message];
    throw problem;
  }
}
