/**
 * The text on display and everything around it: tokens, the place that is looked into, branches, buttons.
 */

import { Alternatives } from "./alternatives.js";
import { ApiError, vocabulary } from "./api.js";
import { withKey } from "./api_key.js";
import { Hindrance, PageState } from "./page_state.js";
import { download, SharePanel } from "./share_panel.js";
import { TimingsView } from "./timings.js";
import { TokenInspector } from "./token_inspector.js";
import { showLegend, TokenView } from "./tokens.js";
import { TreeView } from "./tree.js";
import { textOf } from "./vocabulary.js";

const DRAFT_AFTER_MS = 200; // without a key being pressed
const TREE_TOKENS = 16; // more of a text do not change its line in the tree

export class TextPanel {
  #ui;
  #settings;
  #messages;
  #state;
  #tokens;
  #treeView;
  #timings;
  #sharePanel;
  #inspector;
  #alternatives;
  #vocabularies = new Map(); // model -> string[]
  #chosen = null; // the run in which a user has chosen a place
  #draft = new AbortController();
  #draftTimer = null;
  #frame = null;
  #began = false;

  /** @param {Document} document @param {{settings: object, messages: object, stageTable: object}} parts */
  constructor(document, { settings, messages, stageTable }) {
    this.#ui = (id) => document.getElementById(id);
    this.#settings = settings;
    this.#messages = messages;
    this.#state = new PageState(settings, {
      opened: (run) => this.#opened(run),
      changed: (run) => this.#changed(run),
      ended: (run, problem) => this.#ended(run, problem),
      say: (text) => messages.say(text),
    });
    this.#buildViews(stageTable);
    const before = () => this.#holdDraft();
    this.#sharePanel = new SharePanel({ ui: this.#ui, settings, messages, state: this.#state, before });
    this.#bindButtons();
    this.#bindKeys(document);
    settings.subscribe((now, before) => this.#set(now, before));
  }

  #buildViews(stageTable) {
    const ui = this.#ui;
    const failed = (problem) => this.#failed(problem);
    this.#tokens = new TokenView(ui("tokens"), {
      rest: (place) => this.#look(place, false),
      choose: (place) => this.#pin(place),
      enter: async (place) => {
        await this.#look(place, true);
        this.#alternatives.focus();
      },
      leave: () => this.#unpin(),
    });
    this.#alternatives = new Alternatives(ui("alternatives"), {
      branch: (id) => this.#try(() => this.#branch(id)),
      leave: () => {
        const { place } = this.#inspector;
        this.#unpin();
        this.#tokens.focus(place);
      },
    });
    this.#inspector = new TokenInspector({ alternatives: this.#alternatives, stageTable, settings: this.#settings, failed });
    this.#treeView = new TreeView(ui("tree"), {
      open: (run) => this.#state.open(run),
      vocabularyOf: (tree) => this.#vocabularies.get(tree.origin.model) ?? [],
    });
    this.#timings = new TimingsView(ui("timings"), (seed) => {
      this.#settings.set({ seed });
      this.#messages.say(`The next texts are drawn with the seed ${seed}.`);
    });
    showLegend(ui("legend"));
  }

  #bindButtons() {
    const state = this.#state;
    const actions = {
      run: () => this.#write(),
      stop: () => state.stop(),
      back: () => state.go(-1),
      forth: () => state.go(1),
      replay: () => this.#replay(),
      continue: () => state.branch(state.run, { place: state.run.length, token: null }),
      copy: () => this.#copy(this.#text()),
      share: () => this.#sharePanel.share(state.run.tree, (link) => this.#copy(link)),
      save: () => download(state.run.tree, this.#vocabulary()),
      load: () => this.#ui("file").click(),
      redraw: () => this.#branch(null),
      "close-inspector": () => this.#unpin(),
      remove: () => state.remove(state.run),
    };
    for (const [id, act] of Object.entries(actions)) this.#ui(id).addEventListener("click", () => this.#try(act));
    this.#ui("file").addEventListener("change", (event) => this.#try(() => this.#sharePanel.openFile(event.target)));
    this.#ui("plain").parentElement.addEventListener("toggle", () => this.#render());
  }

  #bindKeys(document) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) this.#try(() => this.#write());
      else if (event.key === "Escape" && this.#state.busy) this.#state.stop();
    });
  }

  /** The models are known: show the prompt, or what the link shares. */
  async begin(cards) {
    this.#state.cards = cards;
    this.#began = true;
    addEventListener("hashchange", () => this.#try(() => this.#openLink()));
    await this.#openLink();
    this.#sharePanel.offerLeft((open) => this.#try(open));
    addEventListener("pagehide", () => this.#sharePanel.leave(this.#isDraft() ? null : this.#state.run.tree));
  }

  async #openLink() {
    if (!(await this.#try(() => this.#sharePanel.openLink())) && this.#isDraft()) await this.#try(() => this.#showDraft());
  }

  // ---- doing ------------------------------------------------------------------------------------------------------

  /** Do what a user asked for; what hinders it is told. */
  async #try(act) {
    try {
      return await act();
    } catch (problem) {
      this.#failed(problem);
      return null;
    }
  }

  #failed(problem, actions = []) {
    if (problem?.name === "AbortError") return;
    if (!(problem instanceof ApiError || problem instanceof Hindrance)) throw problem;
    this.#messages.say("");
    this.#messages.tell(problem.message, { actions });
  }

  async #write() {
    if (!this.#began) return;
    this.#holdDraft();
    this.#messages.clear();
    this.#sharePanel.forget();
    const wrong = this.#ui("settings").querySelector("[aria-invalid=true]");
    if (wrong) {
      this.#ui("settings").open = true;
      wrong.focus();
      this.#messages.tell("A setting is no value that can be used: correct it, and write again.");
      return;
    }
    await this.#state.start();
  }

  async #branch(id) {
    const { run } = this.#state;
    const { place } = this.#inspector;
    this.#messages.clear();
    if (run.at(place)?.id === id) {
      this.#messages.say("That is the token that stands there.");
      return;
    }
    const inList = this.#ui("inspector").contains(document.activeElement);
    this.#unpin();
    this.#sharePanel.forget();
    const logprob = id === null ? null : this.#inspector.logprob(id);
    const done = this.#state.branch(run, { place, token: id, logprob });
    if (inList) requestAnimationFrame(() => requestAnimationFrame(() => this.#tokens.focus(place)));
    await done;
  }

  async #replay() {
    const { run } = this.#state;
    const same = await this.#state.replay(run);
    if (same === null) return;
    if (same) this.#messages.say(`The same ${run.drawn.length} tokens again.`);
    else this.#messages.tell("This time other tokens were drawn: the server's model has changed.");
  }

  async #copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      this.#messages.say("Copied.");
      return true;
    } catch {
      this.#messages.say("This browser does not let the page copy; select the text instead.");
      return false;
    }
  }

  // ---- the prompt before anything is drawn ---------------------------------------------------------------------------

  #set(now, before) {
    const drafted = ["prompt", "model", "seed"].some((name) => now[name] !== before[name]);
    if (!drafted || !this.#began || !this.#isDraft()) return;
    clearTimeout(this.#draftTimer);
    this.#draftTimer = setTimeout(() => this.#try(() => this.#showDraft()), DRAFT_AFTER_MS);
  }

  #isDraft() {
    const { run, trees } = this.#state;
    return run === null || !trees.includes(run.tree);
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
    if (signal.aborted || !this.#isDraft()) return;
    this.#chosen = null;
    this.#state.preview(tree.root);
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  #opened(run) {
    this.#chosen = null;
    this.#inspector.unpin();
    this.#ui("inspector").classList.remove("open");
    if (!run) {
      this.#tokens.clear();
      this.#try(() => this.#showDraft());
    }
    this.#changed(run);
    if (run && !run.busy) this.#lookAtFirst(run);
  }

  #changed(run) {
    if (run !== this.#state.run && run?.busy && run.drawn.length > TREE_TOKENS) return;
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#render();
    });
  }

  #ended(run, problem) {
    if (problem) this.#failed(problem, [["Try again", () => this.#try(() => this.#state.draw(run))]]);
    else if (run.state === "stopped") this.#messages.say("Stopped.");
    else this.#messages.say(endOf(run));
    if (run.fingerprint && run.fingerprint !== run.tree.origin.fingerprint) this.#tellOfChange();
    if (run === this.#state.run) this.#lookAtFirst(run);
  }

  #tellOfChange() {
    const actions = [["Load the page anew", () => location.reload()]];
    this.#messages.tell("The server has another model under this name than when the page was loaded.", { actions });
  }

  /** The place shown where nobody has chosen one: the first that was drawn. */
  #lookAtFirst(run) {
    if (this.#chosen !== run && !run.busy) this.#look(Math.min(run.inherited.length, run.length), false, false);
  }

  async #look(place, pinned, chosen = true) {
    const { run } = this.#state;
    const words = await this.#try(() => this.#loaded(run.tree.origin.model));
    if (!words || run !== this.#state.run || (this.#inspector.pinned && !pinned)) return;
    if (chosen) this.#chosen = run;
    this.#inspector.look(run, place, words, pinned);
    this.#tokens.mark(place, pinned);
    this.#ui("inspector").classList.toggle("open", pinned);
    this.#showButtons();
  }

  #pin(place) {
    if (this.#inspector.pinned && this.#inspector.place === place) this.#unpin();
    else {
      this.#inspector.unpin();
      this.#look(place, true);
    }
  }

  #unpin() {
    this.#inspector.unpin();
    this.#ui("inspector").classList.remove("open");
    this.#tokens.mark(this.#inspector.place, false);
  }

  /** The vocabulary of a model, asked for once. */
  async #loaded(model) {
    const known = this.#vocabularies.get(model);
    if (known) return known;
    const words = await withKey(() => vocabulary(model));
    this.#vocabularies.set(model, words);
    return words;
  }

  #vocabulary() {
    return this.#vocabularies.get(this.#state.run.tree.origin.model);
  }

  #render() {
    const { run, trees } = this.#state;
    if (run && !this.#vocabulary()) {
      this.#try(async () => {
        await this.#loaded(run.tree.origin.model);
        this.#render();
      });
      return;
    }
    if (run) this.#tokens.show(run, this.#vocabulary());
    this.#timings.show(run);
    this.#treeView.show(trees, run);
    this.#ui("tree").hidden = !trees.length;
    this.#ui("no-branches").hidden = trees.length > 0;
    const draft = this.#isDraft();
    this.#ui("teach").hidden = !draft;
    this.#ui("timings").hidden = draft;
    const plain = this.#ui("plain");
    if (plain.parentElement.open) plain.textContent = this.#text();
    this.#showButtons();
  }

  #showButtons() {
    const { run } = this.#state;
    const draft = this.#isDraft();
    const still = run && !draft && !run.busy;
    const enabled = {
      stop: this.#state.busy,
      back: this.#state.canGo(-1),
      forth: this.#state.canGo(1),
      replay: still && run.drawn.length,
      continue: still && run.room > 0,
      copy: run?.length,
      share: still && !this.#state.busy,
      save: still && !this.#state.busy,
      remove: still && !this.#state.busy,
      redraw: still && this.#inspector.place !== null && this.#inspector.place >= run.tree.promptIds.length,
    };
    for (const [id, on] of Object.entries(enabled)) this.#ui(id).disabled = !on;
  }

  #text() {
    const { run } = this.#state;
    return run && this.#vocabulary() ? textOf(this.#vocabulary(), run.entries().map(({ id }) => id)) : "";
  }
}

/** A sentence on a run that has ended by itself. */
function endOf(run) {
  const last = run.drawn[run.drawn.length - 1]?.id;
  const why = last === run.tree.origin.endOfText ? ": the model ended its text" : "";
  return `Done, ${run.drawn.length} tokens${why}.`;
}
