/** Reads server-sent events from an answer's body: not the browser's own EventSource, which can bring no key. */

/** @typedef {{event: string, data: string}} ServerEvent */

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {() => void} [heard]  called whenever anything comes
 * @returns {AsyncGenerator<ServerEvent>}  those that have data, until the body ends; the body is given up with the generator
 */
export async function* serverEvents(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const fields = new Map(part.split("\n").map(fieldOf));
        const data = fields.get("data");
        if (data !== undefined) yield { event: fields.get("event") ?? "message", data };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the server frees what it held
  }
}

/** @param {string} line @returns {[string, string]} */
function fieldOf(line) {
  const [name] = line.split(":", 1);
  return [name, line.slice(name.length + 1).replace(/^ /, "")];
}
