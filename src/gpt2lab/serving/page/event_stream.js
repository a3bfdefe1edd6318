/** Reads server-sent events from an answer's body, because the browser's own EventSource cannot send a key. */

/** @typedef {{event: string, data: string}} ServerEvent */

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {() => void} [heard]  called whenever bytes arrive
 * @returns {AsyncGenerator<ServerEvent>}  the events that have data, until the body ends; closing it cancels the body
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
    reader.cancel().catch(() => {}); // the server frees its resources
  }
}

/** @param {string} line @returns {[string, string]} */
function fieldOf(line) {
  const [name] = line.split(":", 1);
  return [name, line.slice(name.length + 1).replace(/^ /, "")];
}
