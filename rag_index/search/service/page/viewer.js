// The dialog that shows a whole document: its fields and its chunks in order.

import { readDocument } from "./api.js";
import { byId, make } from "./dom.js";
import { isCode, partName, payload, place } from "./hits.js";
import { fill, markedWords } from "./marks.js";
import { age } from "./time.js";

let wanted = null; // the hit that was opened last: an answer to another comes too late

// Show the document of a hit of a query, with the chunk that was found in view.
export async function openDocument(hit, query) {
  wanted = hit;
  const dialog = byId("document");
  const body = dialog.querySelector(".body");
  byId("document-title").textContent = `${hit.index}: ${place(hit)}`;
  body.replaceChildren(make("p", { className: "note" }, "Reading the document …"));
  if (!dialog.open) dialog.showModal();
  body.focus();
  try {
    const found = await readDocument(hit.index, hit.document_id, hit.chunk, query);
    if (hit === wanted) show(body, found, hit);
  } catch (error) {
    if (hit === wanted) body.replaceChildren(make("p", { className: "wrong", role: "alert" }, error.message));
  }
}

function show(body, found, hit) {
  const several = found.chunks.length > 1;
  const fresh = age(found.as_of?.at);
  body.replaceChildren(payload(found.payload ?? {}));
  if (fresh) body.append(make("p", { className: "note" }, `The index was last complete ${fresh}.`));
  if (found.chunks.length < found.total_chunks) {
    const [first, last] = [found.chunks[0].chunk, found.chunks.at(-1).chunk];
    const total = found.total_chunks.toLocaleString();
    body.append(make("p", { className: "note" }, `The document is long: these are chunks ${first} to ${last} of ${total}.`));
  }
  for (const chunk of found.chunks) {
    const text = make("p", { className: isCode(hit) ? "text code" : "text" });
    fill(text, chunk.text, markedWords(hit));
    const name = partName(chunk.part) || `Chunk ${chunk.chunk}`;
    const section = make("section", {}, several ? make("h3", {}, name) : null, text);
    if (several && chunk.chunk === hit.chunk) section.className = "found";
    body.append(section);
  }
  body.querySelector(".found")?.scrollIntoView({ block: "center" });
}
