/**
 * The text on display and everything around it: tokens, the place that is looked into, branches, buttons.
 */

import { ApiError, vocabulary } from "./api.js";
import { Figures } from "./figures.js";
import { Alternatives } from "./hover.js";
import { withKey } from "./key.js";
import { PlaceView } from "./place.js";
import { fromFile, pack } from "./share.js";
import { download, isLong, linkTo, readFile, readLink, verdict } from "./sharing.js";
import { showLegend, TokenView } from "./tokens.js";
import { TreeView } from "./tree.js";
import { textOf } from "./vocabulary.js";
import { Hindrance, Workbench } from "./workbench.js";

const LEFT = "gpt2lab.left"; // of sessionStorage
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
      share: () => this.#share(),
      save: () => download(bench.run.story, this.#vocabulary()),
      load: () => this.#ui("file").click(),
      redraw: () => this.#branch(null),
      "close-place": () => this.#unpin(),
      remove: () => bench.remove(bench.run),
    };
    for (const [id, act] of Object.entries(actions)) this.#ui(id).addEventListener("click", () => this.#try(act));
    const file = this.#ui("file");
    file.addEventListener("change", () => this.#try(() => this.#openFile(file)));
    this.#ui("link").addEventListener("focus", (event) => event.target.select());
    this.#ui("plain").parentElement.addEventListener("toggle", () => this.#render());
  }

  #bindKeys(document) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#try(() => this.#write());
      else if (event.key === "Escape" && this.#bench.busy) this.#bench.stop();
    });
  }

  /** The models are known: show the prompt, or what the link shares. */
  async begin(cards) {
    this.#bench.cards = cards;
    this.#began = true;
    addEventListener("hashchange", () => this.#try(() => this.#openLink()));
    const left = takeLeft();
    addEventListener("pagehide", () => this.#leave());
    await this.#try(() => (location.hash.length > 1 ? this.#openLink() : this.#showDraft()));
    if (left && !location.hash) {
      const actions = [["Draw it again", () => this.#try(() => this.#openShared(left))]];
      this.#messages.tell("There was a text here before the page was loaded anew.", { kind: "good", actions });
    }
  }

  /** Keep for this tab what the text on display was drawn from. */
  #leave() {
    if (!this.#isDraft() && !this.#bench.busy) sessionStorage.setItem(LEFT, JSON.stringify(pack(this.#bench.run.story)));
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
    this.#draft.abort();
    this.#messages.clear();
    this.#forgetLink();
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
    this.#forgetLink();
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

  async #share() {
    const link = linkTo(this.#bench.run.story);
    this.#ui("shared").hidden = false;
    this.#ui("link").value = link;
    this.#ui("link").focus();
    if (isLong(link)) this.#messages.tell("This link is long, and some programs cut such links: a file is safer.");
    if (await this.#copy(link)) this.#messages.say("The link is copied.");
  }

  async #openFile(file) {
    const [chosen] = file.files;
    if (!chosen) return;
    const shared = await readFile(chosen, (text) => this.#messages.tell(text));
    file.value = "";
    if (shared) await this.#openShared(shared);
  }

  async #openLink() {
    if (this.#ui(location.hash.slice(1))) return; // a place in this page
    const shared = readLink(location.hash, (text) => this.#messages.tell(text));
    if (shared) await this.#openShared(shared);
    else await this.#showDraft();
  }

  async #openShared(shared) {
    const card = this.#bench.modelFor(shared);
    const { params, seed, limit } = shared.first;
    this.#settings.set({ model: card.id, prompt: shared.prompt, ...params, seed, max_tokens: limit });
    this.#draft.abort();
    clearTimeout(this.#draftTimer);
    const result = await this.#bench.replayShared(shared, card);
    this.#messages.say("");
    const [text, kind] = verdict(shared, card, result);
    this.#messages.tell(text, { kind });
  }

  /** The address no longer says what is on display. */
  #forgetLink() {
    this.#ui("shared").hidden = true;
    if (location.hash) history.replaceState(null, "", location.pathname + location.search);
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

  async #showDraft() {
    this.#draft.abort();
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
    const words = await this.#loaded(run.story.origin.model);
    if (run !== this.#bench.run || (this.#place.pinned && !pinned)) return;
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

/** The text that this tab was left with, if there was one. */
function takeLeft() {
  const left = sessionStorage.getItem(LEFT);
  sessionStorage.removeItem(LEFT);
  try {
    return left && fromFile(left);
  } catch {
    return null; // left by another version
  }
}

/** A sentence on a run that has ended by itself. */
function endOf(run) {
  const last = run.drawn[run.drawn.length - 1]?.id;
  const why = last === run.story.origin.endOfText ? ": the model ended its text" : "";
  return `Done, ${run.drawn.length} tokens${why}.`;
}
