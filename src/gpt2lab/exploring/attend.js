// Attention: thumbnails of all heads, one of them large, and where a single token looks.
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = Uint8Array.from(atob(data.weights), (c) => c.charCodeAt(0));
const n = data.tokens.length;
const perHead = (n * (n + 1)) / 2;
const large = document.getElementById("large");
const looks = document.getElementById("looks");
let chosen = { layer: 0, head: 0 };
let query = n - 1;

function weight(layer, head, row, column) {
  return bytes[(layer * data.heads + head) * perHead + (row * (row + 1)) / 2 + column] / 255;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function paint(context, layer, head, size, left, top) {
  const ink = colour("--lens");
  for (let row = 0; row < n; row++) {
    for (let column = 0; column <= row; column++) {
      const strength = Math.sqrt(weight(layer, head, row, column)); // or all but the strongest would be invisible
      if (strength < 0.03) continue;
      context.fillStyle = `rgba(${ink}, ${strength})`;
      context.fillRect(left + column * size, top + row * size, size, size);
    }
  }
}

function short(token) {
  const text = token.replaceAll("\n", "↵").replace(/^ /, "·");
  return text.length > 12 ? text.slice(0, 11) + "…" : text;
}

const size = Math.max(3, Math.min(26, Math.floor(560 / n)));
const margin = size >= 9 ? 96 : 0;

function paintLarge() {
  const scale = window.devicePixelRatio || 1;
  const side = margin + n * size + 2;
  large.width = large.height = side * scale;
  large.style.width = large.style.height = side + "px";
  const context = large.getContext("2d");
  context.scale(scale, scale);
  context.strokeStyle = colour("--line");
  context.strokeRect(margin + 0.5, margin + 0.5, n * size, n * size);
  paint(context, chosen.layer, chosen.head, size, margin, margin);
  if (margin) {
    context.fillStyle = colour("--ink");
    context.font = Math.min(13, size) + "px ui-monospace, monospace";
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
  document.getElementById("head").textContent = `Layer ${chosen.layer + 1}, head ${chosen.head + 1}`;
  paintLooks();
}

function paintLooks() {
  [...looks.children].forEach((span, column) => {
    const strength = column <= query ? weight(chosen.layer, chosen.head, query, column) : 0;
    span.style.background = strength ? `rgba(${colour("--lens")}, ${Math.sqrt(strength) * 0.75})` : "";
    span.style.outline = column === query ? "2px solid " + colour("--accent") : "";
    span.setAttribute("aria-pressed", String(column === query));
    span.title = column <= query ? (100 * strength).toFixed(1) + "%" : "";
  });
}

function paintAll() {
  const cell = Math.max(1, Math.floor(96 / n));
  for (const button of document.querySelectorAll("[data-layer]")) {
    const canvas = button.firstElementChild;
    canvas.width = canvas.height = n * cell;
    paint(canvas.getContext("2d"), +button.dataset.layer, +button.dataset.head, cell, 0, 0);
  }
  paintLarge();
}

function choose(layer, head) {
  chosen = { layer, head };
  for (const button of document.querySelectorAll("[data-layer]")) {
    const same = +button.dataset.layer === layer && +button.dataset.head === head;
    button.setAttribute("aria-pressed", String(same));
  }
  paintLarge();
}

data.tokens.forEach((token, i) => {
  const button = looks.appendChild(document.createElement("span"));
  button.className = "t";
  button.setAttribute("role", "button");
  button.tabIndex = 0;
  button.textContent = token;
  const use = () => { query = i; paintLooks(); };
  button.addEventListener("pointerenter", use);
  button.addEventListener("focus", use);
  button.addEventListener("click", use);
});
document.querySelector(".heads").addEventListener("click", (event) => {
  const button = event.target.closest("[data-layer]");
  if (button) choose(+button.dataset.layer, +button.dataset.head);
});
large.addEventListener("pointermove", (event) => {
  const column = Math.floor((event.offsetX - margin) / size);
  const row = Math.floor((event.offsetY - margin) / size);
  if (row < 0 || column < 0 || row >= n || column > row) return;
  const part = (100 * weight(chosen.layer, chosen.head, row, column)).toFixed(1);
  document.getElementById("where").textContent =
    `${JSON.stringify(data.tokens[row])} looks at ${JSON.stringify(data.tokens[column])}: ${part}%`;
  query = row;
  paintLooks();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);
choose(0, 0);
paintAll();
