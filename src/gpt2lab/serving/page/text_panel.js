/**
 * The text on display and everything around it: tokens, the inspected place, branches, buttons.
 */

import { Alternatives } from "./alternatives.js";
import { ApiError, vocabulary } from "./api.js";
import { withKey } from "./api_key.js";
import { byId } from "./elements.js";
import { Focus } from "./focus.js";
import { Hindrance, PageState } from "./page_state.js";
import { download, SharePanel } from "./share_panel.js";
import { TimingsView } from "./timings.js";
import { TokenInspector } from "./token_inspector.js";
import { showLegend } from "./token_spans.js";
import { TokenView } from "./tokens.js";
import { TreeView } from "./tree.js";
import { textOf } from "./vocabulary.js";

const DRAFT_AFTER_MS = 200; // without a key press
const TREE_TOKENS = 16; // later tokens do not change a text's line in the tree

/**
 * @typedef {import("./branches.js").Run} Run
 * @typedef {import("./settings.js").Settings} Settings
 * @typedef {import("./messages.js").Action} Action
 */

export class TextPanel {
  #messages;
  #focus = new Focus({ displayed: () => this.#displayed(), looked: () => this.#looked() });
  #state;
  #tokens;
  #treeView;
  #timings;
  #sharePanel;
  #inspector;
  #alternatives;
  /** @type {Map<string, string[]>} */
  #vocabularies = new Map(); // by model
  #draft = new AbortController();
  #draftTimer = 0;
  #rendering = false;
  #began = false;

  /**
   * @param {object} parts
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {import("./messages.js").Messages} parts.messages
   * @param {import("./stage_table.js").StageTable} parts.stageTable
   */
  constructor({ settings, messages, stageTable }) {
    this.#messages = messages;
    const state = new PageState(settings, this.#focus, {
      changed: (run) => this.#changed(run),
      ended: (run, problem) => this.#ended(run, problem),
      say: (text) => messages.say(text),
    });
    this.#state = state;
    this.#tokens = this.#tokenView();
    this.#alternatives = new Alternatives(byId("alternatives"), {
      branch: (id) => this.#try(() => this.#branch(id)),
      leave: () => {
        this.#focus.unpin();
        if (this.#focus.place !== null) this.#tokens.focus(this.#focus.place);
      },
    });
    const failed = (/** @type {unknown} */ problem) => this.#failed(problem);
    this.#inspector = new TokenInspector({ alternatives: this.#alternatives, stageTable, settings, failed });
    this.#treeView = new TreeView(byId("tree"), {
      open: (run) => state.open(run),
      vocabularyOf: (tree) => this.#vocabularies.get(tree.origin.model) ?? [],
    });
    this.#timings = new TimingsView(byId("timings"), (seed) => {
      settings.set({ seed });
      messages.say(`The next texts are drawn with the seed ${seed}.`);
    });
    showLegend(byId("legend"));
    this.#sharePanel = new SharePanel({ settings, messages, state, before: () => this.#holdDraft() });
    this.#bindButtons();
    this.#bindKeys();
    settings.subscribe((now, before) => this.#set(now, before));
  }

  #tokenView() {
    const focus = this.#focus;
    return new TokenView(byId("tokens"), {
      rest: (place) => focus.point(place),
      choose: (place) => focus.toggle(place),
      enter: (place) => {
        focus.pin(place);
        this.#alternatives.focus();
      },
      leave: () => focus.unpin(),
    });
  }

  #bindButtons() {
    const state = this.#state;
    const file = byId("file", HTMLInputElement);
    /** @type {Record<string, (run: Run) => unknown>} */
    const actions = {
      back: () => state.go(-1),
      forth: () => state.go(1),
      replay: (run) => this.#replay(run),
      continue: (run) => state.branch(run, { place: run.length, token: null }),
      copy: () => this.#copy(this.#text()),
      share: (run) => this.#sharePanel.share(run.tree, (link) => this.#copy(link)),
      save: (run) => download(run.tree, this.#vocabulary() ?? []),
      redraw: () => this.#branch(null),
      remove: (run) => state.remove(run),
    };
    for (const [id, act] of Object.entries(actions))
      byId(id).addEventListener("click", () => this.#try(async () => this.#focus.run && (await act(this.#focus.run))));
    byId("run").addEventListener("click", () => this.#try(() => this.#write()));
    byId("stop").addEventListener("click", () => state.stop());
    byId("close-inspector").addEventListener("click", () => this.#focus.unpin());
    byId("load").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      file.value = "";
      if (chosen) this.#try(() => this.#sharePanel.openFile(chosen));
    });
    byId("plain-text").addEventListener("toggle", () => this.#render());
  }

  #bindKeys() {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) this.#try(() => this.#write());
      else if (event.key === "Escape" && this.#state.busy) this.#state.stop();
    });
  }

  /** Show the prompt, or the link's shared text, once the models are known. @param {import("./api.js").ModelCard[]} cards */
  async begin(cards) {
    this.#state.cards = cards;
    this.#began = true;
    addEventListener("hashchange", () => this.#try(() => this.#openLink()));
    await this.#openLink();
    this.#sharePanel.offerLeft((open) => this.#try(open));
    addEventListener("pagehide", () => this.#sharePanel.leave(this.#focus.draft ? null : (this.#focus.run?.tree ?? null)));
  }

  async #openLink() {
    if (!(await this.#try(() => this.#sharePanel.openLink())) && this.#focus.draft) await this.#try(() => this.#showDraft());
  }

  // ---- actions ----------------------------------------------------------------------------------------------------

  /** Run a user's action and report its failure. @template T @param {() => T | Promise<T>} act */
  async #try(act) {
    try {
      return await act();
    } catch (problem) {
      this.#failed(problem);
      return null;
    }
  }

  /** @param {unknown} problem @param {Action[]} [actions] */
  #failed(problem, actions = []) {
    if (problem instanceof DOMException && problem.name === "AbortError") return;
    if (!(problem instanceof ApiError || problem instanceof Hindrance)) throw problem;
    this.#messages.say("");
    this.#messages.tell(problem.message, { actions });
  }

  async #write() {
    if (!this.#began) return;
    this.#holdDraft();
    this.#messages.clear();
    this.#sharePanel.forget();
    const set = byId("settings", HTMLDetailsElement);
    const wrong = set.querySelector("[aria-invalid=true]");
    if (wrong instanceof HTMLElement) {
      set.open = true;
      wrong.focus();
      this.#messages.tell("A setting has an invalid value: correct it, and write again.");
      return;
    }
    await this.#state.start();
  }

  /** @param {number | null} id  the token chosen at the inspected place; null draws there */
  async #branch(id) {
    const { run, place } = this.#focus;
    if (!run || place === null) return;
    this.#messages.clear();
    if (run.at(place)?.id === id) {
      this.#messages.say("This token is already in that place.");
      return;
    }
    const inList = byId("inspector").contains(document.activeElement);
    this.#focus.unpin();
    this.#sharePanel.forget();
    const logprob = id === null ? null : this.#inspector.logprob(id);
    const done = this.#state.branch(run, { place, token: id, logprob });
    if (inList) requestAnimationFrame(() => requestAnimationFrame(() => this.#tokens.focus(place)));
    await done;
  }

  /** @param {Run} run */
  async #replay(run) {
    const same = await this.#state.replay(run);
    if (same === null) return;
    if (same) this.#messages.say(`The same ${run.drawn.length} tokens again.`);
    else this.#messages.tell("The tokens differ this time: the server's model has changed.");
  }

  /** @param {string} text */
  async #copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      this.#messages.say("Copied.");
      return true;
    } catch {
      this.#messages.say("This browser does not allow copying; select the text instead.");
      return false;
    }
  }

  // ---- the prompt before anything is drawn ---------------------------------------------------------------------------

  /** @param {Readonly<Settings>} now @param {Readonly<Settings>} before */
  #set(now, before) {
    const drafted = now.prompt !== before.prompt || now.model !== before.model || now.seed !== before.seed;
    if (!drafted || !this.#began || !this.#focus.draft) return;
    clearTimeout(this.#draftTimer);
    this.#draftTimer = setTimeout(() => this.#try(() => this.#showDraft()), DRAFT_AFTER_MS);
  }

  #holdDraft() {
    clearTimeout(this.#draftTimer);
    this.#draft.abort();
  }

  async #showDraft() {
    this.#holdDraft();
    this.#draft = new AbortController();
    const { signal } = this.#draft;
    const tree = await this.#state.draft(signal);
    if (!signal.aborted && this.#focus.draft) this.#focus.display(tree.root, { draft: true });
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  #displayed() {
    const { run } = this.#focus;
    byId("inspector").classList.remove("open");
    if (!run) {
      this.#tokens.clear();
      this.#try(() => this.#showDraft());
    }
    this.#changed(run);
    if (run) this.#suggest(run);
  }

  /** @param {Run | null} run */
  #changed(run) {
    if (this.#rendering || (run !== this.#focus.run && run?.busy && run.drawn.length > TREE_TOKENS)) return;
    this.#rendering = true;
    requestAnimationFrame(() => {
      this.#rendering = false;
      this.#render();
    });
  }

  /** @param {Run} run @param {Error | null} problem */
  #ended(run, problem) {
    if (problem) this.#failed(problem, [["Try again", () => this.#try(() => this.#state.draw(run))]]);
    else if (run.state === "stopped") this.#messages.say("Stopped.");
    else this.#messages.say(endOf(run));
    if (run.fingerprint && run.fingerprint !== run.tree.origin.fingerprint) this.#tellOfChange();
    if (run === this.#focus.run) this.#suggest(run);
  }

  #tellOfChange() {
    /** @type {Action} */
    const reload = ["Reload the page", () => location.reload()];
    this.#messages.tell("The server's model of this name has changed since the page was loaded.", { actions: [reload] });
  }

  /** Inspect the first drawn token. @param {Run} run */
  #suggest(run) {
    if (!run.busy) this.#focus.suggest(Math.min(run.inherited.length, run.length));
  }

  /** Show the inspected place. */
  async #looked() {
    const { at } = this.#focus;
    byId("inspector").classList.toggle("open", this.#focus.pinned);
    if (!at) return;
    const { model } = at.run.tree.origin;
    const words = this.#vocabularies.get(model) ?? (await this.#try(() => this.#loaded(model)));
    if (!words || at !== this.#focus.at || at.run !== this.#focus.run) return;
    this.#inspector.look(at.run, at.place, words);
    this.#tokens.mark(at.place, this.#focus.pinned);
    this.#showButtons();
  }

  /** Return the vocabulary of a model; requested once. @param {string} model */
  async #loaded(model) {
    const words = await withKey(() => vocabulary(model));
    this.#vocabularies.set(model, words);
    return words;
  }

  #vocabulary() {
    return this.#vocabularies.get(this.#focus.run?.tree.origin.model ?? "");
  }

  #render() {
    const { run, draft } = this.#focus;
    const { trees } = this.#state;
    const words = this.#vocabulary();
    if (run && !words) {
      this.#try(async () => {
        await this.#loaded(run.tree.origin.model);
        this.#render();
      });
      return;
    }
    if (run && words) this.#tokens.show(run, words);
    this.#timings.show(run);
    this.#treeView.show(trees, run);
    byId("tree").hidden = !trees.length;
    byId("no-branches").hidden = trees.length > 0;
    byId("teach").hidden = !draft;
    byId("timings").hidden = draft;
    if (byId("plain-text", HTMLDetailsElement).open) byId("plain").textContent = this.#text();
    this.#showButtons();
  }

  #showButtons() {
    const { run, draft, place } = this.#focus;
    const still = run !== null && !draft && !run.busy;
    const settled = still && !this.#state.busy;
    const enabled = {
      stop: this.#state.busy,
      back: this.#state.canGo(-1),
      forth: this.#state.canGo(1),
      replay: still && run.drawn.length > 0,
      continue: still && run.room > 0,
      copy: run !== null && run.length > 0,
      share: settled,
      save: settled,
      remove: settled,
      redraw: still && place !== null && place >= run.tree.promptIds.length,
    };
    for (const [id, on] of Object.entries(enabled)) byId(id, HTMLButtonElement).disabled = !on;
  }

  #text() {
    const [words, run] = [this.#vocabulary(), this.#focus.run];
    return run && words ? textOf(words, run.entries().map(({ id }) => id)) : "";
  }
}

/** Return a sentence on a run that has ended by itself. @param {Run} run */
function endOf(run) {
  const last = run.drawn[run.drawn.length - 1]?.id;
  const why = last === run.tree.origin.endOfText ? ": the model ended its text" : "";
  return `Done, ${run.drawn.length} tokens${why}.`;
}
