/**
 * The text on display and everything around it: tokens, the place that is looked into, branches, buttons.
 */

import { ApiError, vocabulary } from "./api.js";
import { Figures } from "./figures.js";
import { Alternatives } from "./hover.js";
import { withKey } from "./key.js";
import { PlaceView } from "./place.js";
import { download, Sharing } from "./sharing.js";
import { showLegend, TokenView } from "./tokens.js";
import { TreeView } from "./tree.js";
import { textOf } from "./vocabulary.js";
import { Hindrance, Workbench } from "./workbench.js";

const DRAFT_AFTER_MS = 200; // without a key being pressed
const TREE_TOKENS = 16; // more of a text do not change its line in the tree

export class Desk {
  #ui;
  #settings;
  #messages;
  #bench;
  #tokens;
  #tree;
  #figures;
  #sharing;
  #place;
  #alternatives;
  #vocabularies = new Map(); // model -> string[]
  #chosen = null; // the run in which a user has chosen a place
  #draft = new AbortController();
  #draftTimer = null;
  #frame = null;
  #began = false;

  /** @param {Document} document @param {{settings: object, messages: object, bars: object}} parts */
  constructor(document, { settings, messages, bars }) {
    this.#ui = (id) => document.getElementById(id);
    this.#settings = settings;
    this.#messages = messages;
    this.#bench = new Workbench(settings, {
      opened: (run) => this.#opened(run),
      changed: (run) => this.#changed(run),
      ended: (run, problem) => this.#ended(run, problem),
      say: (text) => messages.say(text),
    });
    this.#buildViews(bars);
    const before = () => this.#holdDraft();
    this.#sharing = new Sharing({ ui: this.#ui, settings, messages, bench: this.#bench, before });
    this.#bindButtons();
    this.#bindKeys(document);
    settings.subscribe((now, before) => this.#set(now, before));
  }

  #buildViews(bars) {
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
        const { place } = this.#place;
        this.#unpin();
        this.#tokens.focus(place);
      },
    });
    this.#place = new PlaceView({ alternatives: this.#alternatives, bars, settings: this.#settings, failed });
    this.#tree = new TreeView(ui("tree"), {
      open: (run) => this.#bench.open(run),
      vocabularyOf: (story) => this.#vocabularies.get(story.origin.model) ?? [],
    });
    this.#figures = new Figures(ui("figures"), (seed) => {
      this.#settings.set({ seed });
      this.#messages.say(`The next texts are drawn with the seed ${seed}.`);
    });
    showLegend(ui("legend"));
  }

  #bindButtons() {
    const bench = this.#bench;
    const actions = {
      run: () => this.#write(),
      stop: () => bench.stop(),
      back: () => bench.go(-1),
      forth: () => bench.go(1),
      replay: () => this.#replay(),
      continue: () => bench.branch(bench.run, { place: bench.run.length, token: null }),
      copy: () => this.#copy(this.#text()),
      share: () => this.#sharing.share(bench.run.story, (link) => this.#copy(link)),
      save: () => download(bench.run.story, this.#vocabulary()),
      load: () => this.#ui("file").click(),
      redraw: () => this.#branch(null),
      "close-place": () => this.#unpin(),
      remove: () => bench.remove(bench.run),
    };
    for (const [id, act] of Object.entries(actions)) this.#ui(id).addEventListener("click", () => this.#try(act));
    this.#ui("file").addEventListener("change", (event) => this.#try(() => this.#sharing.openFile(event.target)));
    this.#ui("plain").parentElement.addEventListener("toggle", () => this.#render());
  }

  #bindKeys(document) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) this.#try(() => this.#write());
      else if (event.key === "Escape" && this.#bench.busy) this.#bench.stop();
    });
  }

  /** The models are known: show the prompt, or what the link shares. */
  async begin(cards) {
    this.#bench.cards = cards;
    this.#began = true;
    addEventListener("hashchange", () => this.#try(() => this.#openLink()));
    await this.#openLink();
    this.#sharing.offerLeft((open) => this.#try(open));
    addEventListener("pagehide", () => this.#sharing.leave(this.#isDraft() ? null : this.#bench.run.story));
  }

  async #openLink() {
    if (!(await this.#try(() => this.#sharing.openLink())) && this.#isDraft()) await this.#try(() => this.#showDraft());
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
    this.#sharing.forget();
    const wrong = this.#ui("settings").querySelector("[aria-invalid=true]");
    if (wrong) {
      this.#ui("settings").open = true;
      wrong.focus();
      this.#messages.tell("A setting is no value that can be used: correct it, and write again.");
      return;
    }
    await this.#bench.start();
  }

  async #branch(id) {
    const { run } = this.#bench;
    const { place } = this.#place;
    this.#messages.clear();
    if (run.at(place)?.id === id) {
      this.#messages.say("That is the token that stands there.");
      return;
    }
    const inList = this.#ui("place").contains(document.activeElement);
    this.#unpin();
    this.#sharing.forget();
    const logprob = id === null ? null : this.#place.logprob(id);
    const done = this.#bench.branch(run, { place, token: id, logprob });
    if (inList) requestAnimationFrame(() => requestAnimationFrame(() => this.#tokens.focus(place)));
    await done;
  }

  async #replay() {
    const { run } = this.#bench;
    const same = await this.#bench.replay(run);
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
    const { run, stories } = this.#bench;
    return run === null || !stories.includes(run.story);
  }

  #holdDraft() {
    clearTimeout(this.#draftTimer);
    this.#draft.abort();
  }

  async #showDraft() {
    this.#holdDraft();
    this.#draft = new AbortController();
    const { signal } = this.#draft;
    const story = await this.#bench.draft(signal);
    if (signal.aborted || !this.#isDraft()) return;
    this.#chosen = null;
    this.#bench.preview(story.root);
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  #opened(run) {
    this.#chosen = null;
    this.#place.unpin();
    this.#ui("place").classList.remove("open");
    if (!run) {
      this.#tokens.clear();
      this.#try(() => this.#showDraft());
    }
    this.#changed(run);
    if (run && !run.busy) this.#lookAtFirst(run);
  }

  #changed(run) {
    if (run !== this.#bench.run && run?.busy && run.drawn.length > TREE_TOKENS) return;
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#render();
    });
  }

  #ended(run, problem) {
    if (problem) this.#failed(problem, [["Try again", () => this.#try(() => this.#bench.draw(run))]]);
    else if (run.state === "stopped") this.#messages.say("Stopped.");
    else this.#messages.say(endOf(run));
    if (run.fingerprint && run.fingerprint !== run.story.origin.fingerprint) this.#tellOfChange();
    if (run === this.#bench.run) this.#lookAtFirst(run);
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
    const { run } = this.#bench;
    const words = await this.#try(() => this.#loaded(run.story.origin.model));
    if (!words || run !== this.#bench.run || (this.#place.pinned && !pinned)) return;
    if (chosen) this.#chosen = run;
    this.#place.look(run, place, words, pinned);
    this.#tokens.mark(place, pinned);
    this.#ui("place").classList.toggle("open", pinned);
    this.#showButtons();
  }

  #pin(place) {
    if (this.#place.pinned && this.#place.place === place) this.#unpin();
    else {
      this.#place.unpin();
      this.#look(place, true);
    }
  }

  #unpin() {
    this.#place.unpin();
    this.#ui("place").classList.remove("open");
    this.#tokens.mark(this.#place.place, false);
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
    return this.#vocabularies.get(this.#bench.run.story.origin.model);
  }

  #render() {
    const { run, stories } = this.#bench;
    if (run && !this.#vocabulary()) {
      this.#try(async () => {
        await this.#loaded(run.story.origin.model);
        this.#render();
      });
      return;
    }
    if (run) this.#tokens.show(run, this.#vocabulary());
    this.#figures.show(run);
    this.#tree.show(stories, run);
    this.#ui("tree").hidden = !stories.length;
    this.#ui("no-branches").hidden = stories.length > 0;
    const draft = this.#isDraft();
    this.#ui("teach").hidden = !draft;
    this.#ui("figures").hidden = draft;
    const plain = this.#ui("plain");
    if (plain.parentElement.open) plain.textContent = this.#text();
    this.#showButtons();
  }

  #showButtons() {
    const { run } = this.#bench;
    const draft = this.#isDraft();
    const still = run && !draft && !run.busy;
    const enabled = {
      stop: this.#bench.busy,
      back: this.#bench.canGo(-1),
      forth: this.#bench.canGo(1),
      replay: still && run.drawn.length,
      continue: still && run.room > 0,
      copy: run?.length,
      share: still && !this.#bench.busy,
      save: still && !this.#bench.busy,
      remove: still && !this.#bench.busy,
      redraw: still && this.#place.place !== null && this.#place.place >= run.story.promptIds.length,
    };
    for (const [id, on] of Object.entries(enabled)) this.#ui(id).disabled = !on;
  }

  #text() {
    const { run } = this.#bench;
    return run && this.#vocabulary() ? textOf(this.#vocabulary(), run.entries().map(({ id }) => id)) : "";
  }
}

/** A sentence on a run that has ended by itself. */
function endOf(run) {
  const last = run.drawn[run.drawn.length - 1]?.id;
  const why = last === run.story.origin.endOfText ? ": the model ended its text" : "";
  return `Done, ${run.drawn.length} tokens${why}.`;
}
