/**
 * The parts of a model that are changed: heads, and MLPs. A part has a name: `head:3:0`, `mlp:6`, or `attention:3` for all heads
 * of a layer. This module knows nothing of the document or the network.
 */

export class Changes {
  /** @type {Map<number, Set<number>>} */
  #heads = new Map(); // by layer
  /** @type {Set<number>} */
  #mlps = new Set();
  #nHead = 0;

  get empty() {
    return !this.#mlps.size && !this.#heads.size;
  }

  /** Say how many heads a layer of the model has. @param {number} nHead */
  shape(nHead) {
    this.#nHead = nHead;
  }

  clear() {
    this.#heads.clear();
    this.#mlps.clear();
  }

  /** Change a part, or change it back. @param {string} part */
  toggle(part) {
    const { kind, layer, heads } = this.#read(part);
    if (kind === "mlp") {
      if (!this.#mlps.delete(layer)) this.#mlps.add(layer);
      return;
    }
    const now = this.#heads.get(layer) ?? new Set();
    const back = heads.every((head) => now.has(head));
    for (const head of heads) {
      if (back) now.delete(head);
      else now.add(head);
    }
    if (now.size) this.#heads.set(layer, now);
    else this.#heads.delete(layer);
  }

  /** Return whether a part is changed; "mixed" if some of its heads are. @param {string} part @returns {"true" | "false" | "mixed"} */
  state(part) {
    const { kind, layer, heads } = this.#read(part);
    if (kind === "mlp") return this.#mlps.has(layer) ? "true" : "false";
    const changed = heads.filter((head) => this.#heads.get(layer)?.has(head)).length;
    if (!changed) return "false";
    return changed === heads.length ? "true" : "mixed";
  }

  /** Return the parts as a request names them. */
  body() {
    const heads = [...this.#heads].flatMap(([layer, all]) => [...all].map((head) => [layer, head]));
    return { heads, mlps: [...this.#mlps] };
  }

  /** Return the parts in words. */
  words() {
    const layers = [...this.#heads].sort(([one], [other]) => one - other);
    const heads = layers.map(([layer, all]) => {
      const numbers = [...all].sort((one, other) => one - other);
      if (numbers.length === this.#nHead) return `the attention of layer ${layer}`;
      return `${numbers.length > 1 ? "heads" : "head"} ${listed(numbers)} of layer ${layer}`;
    });
    const mlps = [...this.#mlps].sort((one, other) => one - other);
    const of = mlps.length ? [`the ${mlps.length > 1 ? "MLPs of layers" : "MLP of layer"} ${listed(mlps)}`] : [];
    return listed([...heads, ...of]);
  }

  /** @param {string} part */
  #read(part) {
    const [kind, layer, head] = part.split(":");
    const all = Array.from({ length: this.#nHead }, (_, number) => number);
    return { kind, layer: Number(layer), heads: head === undefined ? all : [Number(head)] };
  }
}

/** @param {(string | number)[]} words */
function listed(words) {
  const last = words[words.length - 1];
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${last}` : String(last ?? "");
}
