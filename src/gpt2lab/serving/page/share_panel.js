/**
 * Links and files that share a text with its branches: makes them and opens them.
 */

import { byId, element } from "./elements.js";
import { fromFile, fromHash, pack, ShareError, toFile, toHash } from "./permalink.js";
import { stepOf } from "./tour.js";
import { textOf } from "./vocabulary.js";

const LONG_LINK = 8000; // some programs cut longer links

/** @typedef {import("./branches.js").BranchTree} BranchTree */
/** @typedef {import("./permalink.js").Shared} Shared */

/** The panel that shares texts and opens shared ones. */
export class SharePanel {
  #link = byId("link", HTMLInputElement);
  #shared = byId("shared");
  #settings;
  #messages;
  #state;
  #before;

  /**
   * @param {object} parts
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {import("./messages.js").Messages} parts.messages
   * @param {import("./page_state.js").PageState} parts.state
   * @param {() => void} parts.before  called before a tree is opened
   */
  constructor({ settings, messages, state, before }) {
    this.#settings = settings;
    this.#messages = messages;
    this.#state = state;
    this.#before = before;
    this.#link.addEventListener("focus", () => this.#link.select());
  }

  /** Show and copy the link to `tree`. @param {BranchTree} tree @param {(text: string) => Promise<boolean>} copy */
  async share(tree, copy) {
    const link = linkTo(tree);
    this.#shared.hidden = false;
    this.#link.value = link;
    this.#link.focus();
    this.#link.scrollLeft = 0;
    if (link.length > LONG_LINK) this.#messages.tell("This link is long, and some programs cut long links: a file is safer.");
    if (await copy(link)) this.#messages.say("Link copied.");
  }

  /** Clear the address: it no longer describes the text on display. */
  forget() {
    this.#shared.hidden = true;
    if (location.hash && stepOf(location.hash) === null) history.replaceState(null, "", location.pathname + location.search);
  }

  /** Open `file`. @param {File} file */
  async openFile(file) {
    const text = await file.text();
    const shared = this.#read(fromFile, text, file.name);
    if (shared) await this.#open(shared);
  }

  /** Open the text that the address shares; return whether it shares one. */
  async openLink() {
    const { hash } = location;
    if (hash.length < 2 || stepOf(hash) !== null || document.getElementById(hash.slice(1))) return false; // a place in this page
    const shared = this.#read(fromHash, location.hash, "This link");
    if (shared) await this.#open(shared);
    return shared !== null;
  }

  /** @param {(text: string) => Shared} reader @param {string} text @param {string} name */
  #read(reader, text, name) {
    try {
      return reader(text);
    } catch (problem) {
      if (!(problem instanceof ShareError)) throw problem;
      this.#messages.tell(`${name} cannot be opened. ${problem.message}`);
      return null;
    }
  }

  /** Draw it again with its prompt and settings, and report the comparison. @param {Shared} shared */
  async #open(shared) {
    const card = this.#state.modelFor(shared);
    const { params, seed, limit } = shared.first;
    this.#settings.set({ model: card.id, prompt: shared.prompt, ...params, seed, max_tokens: limit });
    this.#before();
    const result = await this.#state.replayShared(shared, card);
    if (!result) return;
    this.#messages.say("");
    const [text, kind] = verdict(shared, card, result);
    this.#messages.tell(text, { kind });
  }
}

/** Return the address that draws `tree` again. @param {BranchTree} tree */
function linkTo(tree) {
  return `${location.href.replace(/#.*/, "")}${toHash(pack(tree))}`;
}

/** Hand `tree` to the browser as a file. @param {BranchTree} tree @param {string[]} vocabulary */
export function download(tree, vocabulary) {
  const texts = tree.runs().map((run) => textOf(vocabulary, run.entries().map(({ id }) => id)));
  const url = URL.createObjectURL(new Blob([toFile(pack(tree), texts)], { type: "application/json" }));
  const name = `gpt2lab-${tree.origin.model}-${tree.root.plan.seed}.json`.replace(/[^\w.-]+/g, "_");
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Return the message after a shared tree has been drawn again.
 * @param {Shared} shared
 * @param {{id: string, gpt2lab: {fingerprint: string, contract: number}}} card  the local model that drew it
 * @param {{same: number, of: number, stopped: boolean}} result
 * @returns {[string, "good"|"warn"]}
 */
function verdict(shared, card, { same, of, stopped }) {
  const equal = card.gpt2lab.fingerprint === shared.fingerprint;
  const other = equal ? "" : differenceOf(shared, card);
  if (stopped) return [`${other}Stopped before all of it was drawn.`, "warn"];
  const texts = of === 1 ? "The text is" : `All ${of} texts are`;
  if (same === of) return [`${other}${texts} the same as when it was shared, token for token.`, equal ? "good" : "warn"];
  const differ = of === 1 ? "The text differs." : `${of - same} of ${of} texts differ.`;
  return [`${other}${differ}`, "warn"];
}

/**
 * Return why the text may differ: another contract, under which no fingerprint is the same, or another model.
 * @param {Shared} shared
 * @param {{id: string, gpt2lab: {fingerprint: string, contract: number}}} card
 */
function differenceOf({ model, fingerprint, contract }, { id, gpt2lab }) {
  if (contract !== gpt2lab.contract)
    return `It was made under version ${contract} of gpt2lab's contract, and this server has version ${gpt2lab.contract}. `;
  return (
    `It was made with ${model} (${fingerprint}), which this server does not have; ` +
    `it used ${id} (${gpt2lab.fingerprint}) instead. `
  );
}
