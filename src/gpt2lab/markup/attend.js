/** The attention report: thumbnails of all heads, one head enlarged, and the attention of a single token. */

import { around, byId } from "../serving/page/elements.js";
import { probabilityText, tokenNodes } from "../serving/page/token_spans.js";

/** @type {{tokens: string[], layers: number, heads: number, weights: string}} */
const data = JSON.parse(byId("data").textContent ?? "");
const bytes = Uint8Array.from(atob(data.weights), (c) => c.charCodeAt(0));
const n = data.tokens.length;
const MOST_INK = 0.55; // of a colour behind text, which stays readable
const perHead = (n * (n + 1)) / 2;
const large = byId("large", HTMLCanvasElement);
const looks = data.tokens.map((token) => tokenNodes(token, null));
/** @type {HTMLElement[]} */
const heads = [...document.querySelectorAll("button[data-layer]")].filter((each) => each instanceof HTMLElement);
let chosen = { layer: 0, head: 0 };
let query = n - 1;

/** @param {number} layer @param {number} head @param {number} row @param {number} column */
function weight(layer, head, row, column) {
  return bytes[(layer * data.heads + head) * perHead + (row * (row + 1)) / 2 + column] / 255;
}

/** @param {string} name  of a colour in the style sheet */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * Paint a head with cells `side` wide, starting at `corner`.
 * @param {CanvasRenderingContext2D} context @param {{layer: number, head: number}} which @param {number} side @param {number} corner
 */
function paint(context, { layer, head }, side, corner) {
  const ink = colour("--lens");
  for (let row = 0; row < n; row++) {
    for (let column = 0; column <= row; column++) {
      const strength = Math.sqrt(weight(layer, head, row, column)); // otherwise only the strongest would be visible
      if (strength < 0.03) continue;
      context.fillStyle = `rgba(${ink}, ${strength})`;
      context.fillRect(corner + column * side, corner + row * side, side, side);
    }
  }
}

/** @param {string} token */
function short(token) {
  const text = token.replaceAll("\n", "↵").replace(/^ /, "␣");
  return text.length > 12 ? `${text.slice(0, 11)}…` : text;
}

const size = Math.max(3, Math.min(26, Math.floor(560 / n)));
const margin = size >= 9 ? 96 : 0;

/**
 * Make a canvas `side` pixels wide and high, and return its context.
 * @param {HTMLCanvasElement} canvas @param {number} side
 */
function sized(canvas, side) {
  canvas.width = canvas.height = side;
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

function paintLarge() {
  const scale = window.devicePixelRatio || 1;
  const side = margin + n * size + 2;
  large.style.width = large.style.height = `${side}px`;
  const context = sized(large, side * scale);
  context.scale(scale, scale);
  context.strokeStyle = colour("--line");
  context.strokeRect(margin + 0.5, margin + 0.5, n * size, n * size);
  paint(context, chosen, size, margin);
  if (margin) paintNames(context);
  byId("head").textContent = `Layer ${chosen.layer + 1}, head ${chosen.head + 1}`;
  paintLooks();
}

/** @param {CanvasRenderingContext2D} context */
function paintNames(context) {
  context.fillStyle = colour("--ink");
  context.font = `${Math.min(13, size)}px ui-monospace, monospace`;
  context.textBaseline = "middle";
  data.tokens.forEach((token, i) => {
    const middle = margin + (i + 0.5) * size;
    context.textAlign = "right";
    context.fillText(short(token), margin - 6, middle);
    context.save();
    context.translate(middle, margin - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(short(token), 0, 0);
    context.restore();
  });
}

function paintLooks() {
  looks.forEach(({ span }, column) => {
    const strength = column <= query ? weight(chosen.layer, chosen.head, query, column) : 0;
    span.style.background = strength ? `rgba(${colour("--lens")}, ${Math.sqrt(strength) * MOST_INK})` : "";
    span.style.outline = column === query ? `2px solid ${colour("--accent")}` : "";
    span.setAttribute("aria-pressed", String(column === query));
    span.title = column <= query ? probabilityText(strength) : "";
  });
}

/** Return the head of a button. @param {HTMLElement} button */
function headOf({ dataset }) {
  return { layer: Number(dataset.layer), head: Number(dataset.head) };
}

function paintAll() {
  const cell = Math.max(1, Math.floor(96 / n));
  for (const button of heads) {
    const canvas = button.firstElementChild;
    if (canvas instanceof HTMLCanvasElement) paint(sized(canvas, n * cell), headOf(button), cell, 0);
  }
  paintLarge();
}

/** @param {HTMLElement} [button] */
function choose(button) {
  if (!button) return;
  chosen = headOf(button);
  for (const other of heads) other.setAttribute("aria-pressed", String(other === button));
  paintLarge();
}

looks.forEach(({ nodes, span }, i) => {
  span.setAttribute("role", "button");
  span.tabIndex = 0;
  const use = () => {
    query = i;
    paintLooks();
  };
  for (const event of ["pointerenter", "focus", "click"]) span.addEventListener(event, use);
  byId("looks").append(...nodes);
});
document.addEventListener("click", (event) => choose(heads.find((button) => button === around(event, "button"))));
large.addEventListener("pointermove", (event) => {
  const column = Math.floor((event.offsetX - margin) / size);
  const row = Math.floor((event.offsetY - margin) / size);
  if (row < 0 || column < 0 || row >= n || column > row) return;
  const part = probabilityText(weight(chosen.layer, chosen.head, row, column));
  byId("where").textContent =
    `${JSON.stringify(data.tokens[row])} attends to ${JSON.stringify(data.tokens[column])}: ${part}`;
  query = row;
  paintLooks();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);
choose(heads[0]);
paintAll();
