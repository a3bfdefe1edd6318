/**
 * Links and files of a story: made for others, and opened from them.
 */

import { fromFile, fromHash, pack, ShareError, toFile, toHash } from "./share.js";
import { textOf } from "./vocabulary.js";

const LONG_LINK = 8000; // some programs cut what is longer

/** The address that draws `story` again. */
export function linkTo(story) {
  return `${location.href.replace(/#.*/, "")}${toHash(pack(story))}`;
}

/** Whether a link may be too long for a mail or a chat. */
export function isLong(link) {
  return link.length > LONG_LINK;
}

/** Hand `story` to the browser as a file. */
export function download(story, vocabulary) {
  const texts = story.runs().map((run) => textOf(vocabulary, run.entries().map(({ id }) => id)));
  const url = URL.createObjectURL(new Blob([toFile(pack(story), texts)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `gpt2lab-${story.origin.model}-${story.root.plan.seed}.json`.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** What a file or a link holds, or null with a word about why not. @param {(text: string) => void} tell */
export async function readFile(file, tell) {
  return read(fromFile, await file.text(), (why) => tell(`${file.name} cannot be opened. ${why}`));
}

export function readLink(hash, tell) {
  return read(fromHash, hash, (why) => tell(`This link cannot be opened. ${why}`));
}

function read(reader, text, tell) {
  try {
    return reader(text);
  } catch (problem) {
    if (!(problem instanceof ShareError)) throw problem;
    tell(problem.message);
    return null;
  }
}

/**
 * What is said once a shared story has been drawn again.
 * @param {import("./share.js").Shared} shared
 * @param {{id: string, gpt2lab: {fingerprint: string}}} card  the model it was drawn with here
 * @param {{same: number, of: number, stopped: boolean}} result
 * @returns {[string, "good"|"warn"]}
 */
export function verdict(shared, card, { same, of, stopped }) {
  const equal = card.gpt2lab.fingerprint === shared.fingerprint;
  const other = equal
    ? ""
    : `It was made with ${shared.model} (${shared.fingerprint}), which this server does not have; ` +
      `${card.id} here is ${card.gpt2lab.fingerprint}. `;
  if (stopped) return [`${other}Stopped before all of it was drawn.`, "warn"];
  const texts = of === 1 ? "The text is" : `All ${of} texts are`;
  if (same === of) return [`${other}${texts} the same as when it was shared, token for token.`, equal ? "good" : "warn"];
  const differ = of === 1 ? "The text is another one." : `${of - same} of ${of} texts are other ones.`;
  return [`${other}${differ}`, "warn"];
}
