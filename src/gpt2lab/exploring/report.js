"use strict";
// A card with what is known of a token: on hover, on tap, and as arrow keys walk through a text.
const card = document.getElementById("card");

function row(parent, cells) {
  const line = parent.insertRow();
  for (const cell of cells) {
    const place = line.appendChild(document.createElement(line.cells.length ? "td" : "th"));
    if (cell instanceof Node) place.append(cell);
    else place.textContent = cell;
  }
}

function percent(p) {
  return p >= 0.001 || p === 0 ? (100 * p).toFixed(1) + "%" : p.toExponential(1);
}

function bar(p) {
  const box = document.createElement("span");
  box.className = "bar";
  box.style.width = (5 * p).toFixed(2) + "rem";
  return box;
}

function show(token) {
  const details = JSON.parse(token.dataset.d);
  const name = document.createElement("b");
  name.textContent = JSON.stringify(details.t);
  const facts = document.createElement("table");
  for (const cells of details.r) row(facts, cells);
  card.replaceChildren(name, facts);
  for (const [heading, entries] of details.l) {
    const list = document.createElement("table");
    list.createCaption().textContent = heading;
    for (const [text, p] of entries) row(list, [JSON.stringify(text), percent(p), bar(p)]);
    card.append(list);
  }
  document.querySelectorAll(".here").forEach((other) => other.classList.remove("here"));
  token.classList.add("here");
  card.hidden = false;
  const rects = token.getClientRects();
  const place = rects[0] || token.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - card.offsetWidth - 8);
  const below = place.bottom + 6 + card.offsetHeight < innerHeight;
  card.style.left = Math.max(8, left) + "px";
  card.style.top = (below ? place.bottom + 6 : Math.max(4, place.top - card.offsetHeight - 6)) + "px";
}

function hide() {
  card.hidden = true;
  document.querySelectorAll(".here").forEach((other) => other.classList.remove("here"));
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest("[data-d]");
  if (token) show(token);
  else if (event.pointerType === "mouse") hide();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("[data-d]")) hide();
});
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const text = document.activeElement;
  if (!step || !text.classList.contains("tokens")) return;
  event.preventDefault();
  const all = [...text.querySelectorAll("[data-d]")];
  const at = all.findIndex((token) => token.classList.contains("here"));
  const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + step));
  if (all.length) show(all[next]);
});
