/**
 * A report's behaviour in a browser: it shows a card with the details of a token on hover, on tap, and as the arrow keys move
 * through a text.
 */

import { around, bar, byId, element } from "../serving/page/elements.js";
import { probabilityText } from "../serving/page/token_spans.js";

/**
 * @typedef {object} Details  see `Record` in html.py
 * @property {string} text
 * @property {[string, string][]} rows
 * @property {[string, [string, number][]][]} lists
 */

/** @type {WeakMap<Element, Details>} */
const known = new WeakMap();
const card = byId("card");

/** @param {(string | Node)[][]} rows */
function table(rows) {
  const lines = rows.map(([head, ...cells]) =>
    element("tr", {}, element("th", {}, head), ...cells.map((cell) => element("td", {}, cell))),
  );
  return element("table", {}, element("tbody", {}, ...lines));
}

/** @param {Element} token */
function show(token) {
  const details = known.get(token);
  if (!details) return;
  const lists = details.lists.map(([heading, entries]) => {
    const list = table(entries.map(([text, p]) => [JSON.stringify(text), probabilityText(p), bar(p)]));
    list.prepend(element("caption", {}, heading));
    return list;
  });
  card.replaceChildren(element("b", {}, JSON.stringify(details.text)), table(details.rows), ...lists);
  hide();
  token.classList.add("here");
  token.scrollIntoView({ block: "nearest", inline: "nearest" });
  card.hidden = false;
  const place = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - card.offsetWidth - 8);
  const below = place.bottom + 6 + card.offsetHeight < innerHeight;
  card.style.left = `${Math.max(8, left)}px`;
  card.style.top = `${below ? place.bottom + 6 : Math.max(4, place.top - card.offsetHeight - 6)}px`;
}

function hide() {
  card.hidden = true;
  document.querySelectorAll(".here").forEach((other) => other.classList.remove("here"));
}

/** @param {KeyboardEvent} event */
function walk(event) {
  if (event.key === "Escape") hide();
  const walked = document.activeElement?.closest(".tokens, .cells");
  const all = [...(walked?.querySelectorAll(".known") ?? [])];
  const across = walked?.querySelector("tbody tr")?.querySelectorAll(".known").length ?? 0; // 0: a text, not a table
  /** @type {Record<string, number>} */
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
  const step = steps[event.key];
  if (!step || !all.length) return;
  event.preventDefault();
  const at = all.findIndex((token) => token.classList.contains("here"));
  const next = at < 0 ? 0 : at + step;
  const beyond = next < 0 || next >= all.length;
  show(all[beyond ? at : next]);
}

for (const text of document.querySelectorAll("[data-tokens]")) {
  /** @type {Details[]} */
  const details = JSON.parse(text.getAttribute("data-tokens") ?? "[]");
  text.querySelectorAll(".t").forEach((token, number) => known.set(token, details[number]));
}
for (const cell of document.querySelectorAll(".known[data-token]"))
  known.set(cell, JSON.parse(cell.getAttribute("data-token") ?? "{}"));

document.addEventListener("pointerover", (event) => {
  const token = around(event, ".known");
  if (token) show(token);
  else if (event.pointerType === "mouse") hide();
});
document.addEventListener("pointerdown", (event) => {
  if (!around(event, ".known")) hide();
});
document.addEventListener("focusout", hide);
document.addEventListener("keydown", walk);
