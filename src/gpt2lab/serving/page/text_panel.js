/**
 * The text on display and everything around it: tokens, the inspected place, branches, buttons.
 */

import { Alternatives } from "./alternatives.js";
import { models, vocabulary } from "./api.js";
import { withKey } from "./api_key.js";
import { Attempts } from "./attempts.js";
import { Draft } from "./draft.js";
import { byId } from "./elements.js";
import { Focus } from "./focus.js";
import { Follower, followed } from "./follow.js";
import { Library } from "./library.js";
import { PageState } from "./page_state.js";
import { PromptTokens } from "./prompt_tokens.js";
import { endOf, provenance } from "./provenance.js";
import { download, SharePanel } from "./share_panel.js";
import { TextActions } from "./text_actions.js";
import { bindButtons, bindKeys, showButtons } from "./text_buttons.js";
import { TimingsView } from "./timings.js";
import { TokenInspector } from "./token_inspector.js";
import { showLegend } from "./token_spans.js";
import { TokenView } from "./tokens.js";
import { TreeView } from "./tree.js";
import { textOf } from "./vocabulary.js";

const TREE_TOKENS = 16; // later tokens do not change a text's line in the tree
const TEACH = "These are the tokens of your prompt. Press Write, or choose what comes next yourself.";
const TEACH_ALIVE = "An example that continues your prompt with a fixed seed. Press Write for a text of your own.";

/**
 * @typedef {import("./branches.js").Run} Run
 * @typedef {import("./settings.js").Settings} Settings
 * @typedef {import("./messages.js").Action} Action
 * @typedef {import("./api.js").ModelCard} ModelCard
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
  #attempts;
  #does;
  #library;
  #draft;
  #follower;
  #promptTokens;
  #served;
  #rendering = false;
  #began = false;
  #lent = false; // a guest shows texts

  /**
   * @param {object} parts
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {import("./messages.js").Messages} parts.messages
   * @param {import("./token_inspector.js").Views} parts.views  of the inspected place
   * @param {(cards: ModelCard[]) => void} parts.served  the server has other models now
   */
  constructor({ settings, messages, views, served }) {
    this.#messages = messages;
    this.#attempts = new Attempts(messages, () => this.#renew());
    this.#served = served;
    const state = new PageState(settings, this.#focus, {
      changed: (run) => this.#changed(run),
      ended: (run, problem) => this.#ended(run, problem),
      say: (text) => messages.say(text),
    });
    this.#state = state;
    this.#library = new Library(state);
    this.#draft = new Draft(state, this.#focus, {
      changed: (run) => this.#changed(run),
      ended: (run) => this.#settled(run),
    });
    this.#follower = this.#newFollower(settings);
    this.#promptTokens = new PromptTokens(settings);
    this.#tokens = this.#tokenView();
    this.#alternatives = new Alternatives(byId("alternatives"), {
      branch: (id) => this.#attempts.make(() => this.#does.branch(id)),
      leave: () => this.#leave(),
    });
    const failed = (/** @type {unknown} */ problem) => this.#attempts.failed(problem);
    this.#inspector = new TokenInspector({ alternatives: this.#alternatives, ...views, settings, failed });
    this.#treeView = new TreeView(byId("tree"), {
      open: (run) => state.open(run),
      vocabularyOf: (tree) => this.#vocabularies.get(state.speller(tree)) ?? [],
    });
    this.#timings = new TimingsView(byId("timings"), (seed) => {
      settings.set({ seed });
      messages.say(`The next texts are drawn with the seed ${seed}.`);
    });
    showLegend(byId("legend"));
    this.#sharePanel = new SharePanel({ settings, messages, state, before: () => this.#draft.hold() });
    this.#does = this.#textActions(settings);
    bindButtons(this.#actions());
    bindKeys(this.#actions());
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

  /** @param {typeof import("./settings.js").settings} settings */
  #newFollower(settings) {
    return new Follower(this.#focus, settings, {
      wanted: (run) => byId("follow", HTMLInputElement).checked || (!this.#lent && !this.#state.holds(run)),
      changed: (run) => this.#changed(run),
    });
  }

  /** @param {typeof import("./settings.js").settings} settings */
  #textActions(settings) {
    return new TextActions({
      settings,
      messages: this.#messages,
      state: this.#state,
      focus: this.#focus,
      draft: this.#draft,
      sharePanel: this.#sharePanel,
      text: () => this.#text(),
      logprob: (id) => this.#inspector.logprob(id),
      toToken: (place) => this.#tokens.focus(place),
    });
  }

  /** @returns {import("./text_buttons.js").Actions} */
  #actions() {
    const [state, does] = [this.#state, this.#does];
    return {
      attempt: (act) => this.#attempts.make(act),
      run: () => this.#focus.run,
      write: () => does.write(),
      stop: () => state.stop(),
      busy: () => state.busy,
      close: () => this.#leave(),
      undo: () => this.#library.undo(),
      unfollow: () => this.#unfollow(),
      openFile: (file) => this.#sharePanel.openFile(file),
      shown: () => this.#render(),
      onRun: {
        back: () => state.go(-1),
        forth: () => state.go(1),
        replay: (run) => does.replay(run),
        continue: (run) => does.continue(run),
        copy: () => does.copy(this.#text()),
        share: (run) => this.#sharePanel.share(run.tree, (link) => does.copy(link)),
        save: (run) => download(run.tree, this.#vocabulary() ?? []),
        redraw: () => does.branch(null),
        remove: (run) => this.#library.remove(run),
        keep: (run) => this.#keep(run),
      },
    };
  }

  /**
   * Show the link's shared text, or the text of an earlier visit unless `draft` is true, or the prompt, once the models are known.
   * @param {ModelCard[]} cards
   */
  async begin(cards, { draft = false } = {}) {
    this.#state.cards = cards;
    this.#began = true;
    addEventListener("hashchange", () => this.#attempts.make(() => this.#sharePanel.openLink()));
    const { run, unknown } = await this.#library.restore();
    await this.#openLink(draft ? null : run);
    if (unknown === 0) return;
    const [texts, whose] = unknown === 1 ? ["One text is", "its"] : [`${unknown} texts are`, "their"];
    this.#messages.say(`${texts} kept until the server has a model with ${whose} vocabulary.`);
  }

  /** @param {Run | null} run  on display if the address shares no text */
  async #openLink(run) {
    const shared = await this.#attempts.make(() => this.#sharePanel.openLink());
    if (shared || !this.#focus.draft) return;
    if (run) this.#state.open(run);
    else await this.#attempts.make(() => this.#draft.show({ alive: true }));
  }

  /**
   * Let a guest show other texts, which follow the settings as long as the box is ticked: an example for each prompt that is
   * typed. Return a function that shows the user's again, or the example if there is none.
   */
  lendText() {
    const { run, draft } = this.#focus;
    const own = draft ? this.#follower.baseOf(run) : run;
    const before = new Set(this.#state.trees);
    const follow = byId("follow", HTMLInputElement);
    const ticked = follow.checked;
    follow.checked = true;
    this.#lent = true;
    return () => {
      this.#lent = false;
      follow.checked = ticked;
      if (own && this.#state.holds(own)) this.#state.open(own);
      else this.showExample();
      if (this.#state.trees.some((tree) => !before.has(tree))) this.#messages.say("Your texts from the tour are under Branches.");
    };
  }

  /** Whether the text on display has no token after the prompt. */
  get isEmpty() {
    return !this.#focus.run?.drawn.length;
  }

  /** Show the example for the current prompt and settings. */
  async showExample() {
    this.#messages.say(""); // it was about another text
    this.#follower.hold();
    this.#draft.hold();
    if (this.#draft.isCurrent) return;
    if (!this.#focus.draft) this.#focus.display(null);
    await this.#attempts.make(() => this.#draft.show({ alive: true }));
  }

  /** Inspect the token `after` the first one after the prompt, pinned or not. @param {number} after @param {boolean} pinned */
  inspect(after, pinned) {
    const { run } = this.#focus;
    if (!run) return;
    const place = Math.min(run.tree.promptIds.length + after, run.length);
    if (this.#focus.pinned) this.#focus.unpin();
    if (pinned) this.#focus.pin(place);
    else this.#focus.point(place);
  }

  /** Ask the server for its models again. */
  async #renew() {
    const cards = await withKey(models);
    this.#state.cards = cards;
    this.#vocabularies.clear();
    this.#served(cards);
    this.#messages.say(`The server's models: ${cards.map(({ id }) => id).join(", ")}.`);
    if (this.#focus.draft) await this.#draft.show();
    else this.#changed(this.#focus.run);
  }

  /** Make a draft one of the texts. @param {Run} run */
  #keep(run) {
    this.#state.trees.push(run.tree);
    this.#state.open(run);
  }

  /** Return from the text that follows the settings to the one before. */
  #unfollow() {
    const base = this.#follower.baseOf(this.#focus.run);
    if (!base) return;
    if (this.#state.holds(base)) this.#state.open(base);
    else this.#focus.display(base, { draft: true });
  }

  /** Draw a text for the prompt. */
  async write() {
    await this.#attempts.make(() => this.#does.write());
  }

  /** Close the card of alternatives and return to its token. */
  #leave() {
    this.#focus.unpin();
    if (this.#focus.place !== null) this.#tokens.focus(this.#focus.place);
  }

  /** @param {Readonly<Settings>} now @param {Readonly<Settings>} before */
  #set(now, before) {
    if (now.model !== before.model && !this.#focus.draft) this.#changed(this.#focus.run);
    const drafted = now.prompt !== before.prompt || now.model !== before.model || now.seed !== before.seed;
    if (!drafted || !this.#began || !this.#focus.draft) return;
    this.#messages.say("");
    this.#draft.soon(() => this.#attempts.make(() => this.#draft.show({ alive: this.#lent })));
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  #displayed() {
    const { run } = this.#focus;
    this.#follower.hold();
    byId("inspector").classList.remove("open");
    if (!run) {
      this.#tokens.clear();
      this.#attempts.make(() => this.#draft.show());
    }
    this.#changed(run);
    if (!run) return;
    this.#library.displayed(run);
    this.#suggest(run);
  }

  /** @param {Run | null} run */
  #changed(run) {
    if (run) this.#library.changed(run.tree);
    if (this.#rendering || (run !== this.#focus.run && run?.busy && run.drawn.length > TREE_TOKENS)) return;
    this.#rendering = true;
    requestAnimationFrame(() => {
      this.#rendering = false;
      this.#render();
    });
  }

  /** @param {Run} run @param {Error | null} problem */
  #ended(run, problem) {
    if (problem) this.#attempts.failed(problem, [["Try again", () => this.#attempts.make(() => this.#state.draw(run))]]);
    else if (run.state === "stopped") this.#messages.say("Stopped.");
    else this.#messages.say(endOf(run));
    if (run.fingerprint && run.fingerprint !== run.tree.origin.fingerprint) this.#attempts.tellOfChange();
    this.#settled(run);
  }

  /** @param {Run} run */
  #settled(run) {
    this.#changed(run);
    if (run === this.#focus.run) this.#suggest(run);
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
    const model = this.#state.speller(at.run.tree);
    const words = this.#vocabularies.get(model) ?? (await this.#attempts.make(() => this.#loaded(model)));
    if (!words || at !== this.#focus.at || at.run !== this.#focus.run) return;
    this.#inspector.look(at.run, at.place, words, this.#focus.pinned);
    this.#tokens.mark(at.place, this.#focus.pinned);
    showButtons(this.#state, this.#focus, this.#library.canUndo);
  }

  /** Return the vocabulary of a model; requested once. @param {string} model */
  async #loaded(model) {
    const words = await withKey(() => vocabulary(model));
    this.#vocabularies.set(model, words);
    return words;
  }

  #vocabulary() {
    const { run } = this.#focus;
    return run ? this.#vocabularies.get(this.#state.speller(run.tree)) : undefined;
  }

  #render() {
    const { run, draft } = this.#focus;
    const { trees } = this.#state;
    const words = this.#vocabulary();
    if (run && !words) {
      this.#attempts.make(async () => {
        await this.#loaded(this.#state.speller(run.tree));
        this.#render();
      });
      return;
    }
    const base = this.#follower.baseOf(run);
    if (run && words) {
      this.#tokens.show(run, words, base);
      this.#promptTokens.show(run.tree, words, this.#state.speller(run.tree));
    }
    this.#timings.show(run);
    this.#treeView.show(trees, run);
    byId("tree").hidden = !trees.length;
    byId("no-branches").hidden = trees.length > 0;
    this.#teach(run, base);
    const written = run !== null && (!draft || run.drawn.length > 0);
    byId("made").textContent = written ? provenance(run, this.#state.cards, this.#state.card) : "";
    byId("timings").style.visibility = draft ? "hidden" : "visible"; // its space stays
    if (byId("plain-text", HTMLDetailsElement).open) byId("plain").textContent = this.#text();
    showButtons(this.#state, this.#focus, this.#library.canUndo);
  }

  /** Explain the draft on display, if it is one. @param {Run | null} run @param {Run | null} base */
  #teach(run, base) {
    const { draft } = this.#focus;
    byId("teach").hidden = !draft;
    byId("teach").textContent = run && base ? followed(run, base) : run?.drawn.length ? TEACH_ALIVE : TEACH;
    byId("keep").hidden = byId("unfollow").hidden = !(draft && base);
  }

  #text() {
    const [words, run] = [this.#vocabulary(), this.#focus.run];
    return run && words ? textOf(words, run.entries().map(({ id }) => id)) : "";
  }
}
