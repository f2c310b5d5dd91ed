// The hits of a search, each with its document's place, its text, its payload and the reasons of its score.

import { byId, make, shown } from "./dom.js";
import { excerpt, fill } from "./marks.js";

const MAX_VALUE = 120;

// Show the hits of a result. `open` is called with a hit whose document is wanted.
export function showHits(result, open) {
  byId("hits").replaceChildren(...result.hits.map((hit) => element(hit, result, open)));
}

function element(hit, result, open) {
  const title = make("button", { type: "button", className: "open" }, place(hit));
  title.addEventListener("click", () => open(hit));
  const code = isCode(hit);
  const text = make("p", { className: code ? "text code" : "text" });
  fill(text, excerpt(hit.text, hit.matched ?? []), hit.matched ?? []);
  const heading = make("h2", {}, title);
  return make(
    "li", { className: "hit" },
    make("span", { className: "place" }, hit.index), heading, text, payload(hit.payload), reasons(hit, result),
  );
}

// Return the document's id, for source code as file:line, and in quotes if nothing of it could be seen and clicked.
export function place(hit) {
  if (isCode(hit)) return `${hit.document_id}:${hit.payload.lines[0]}`;
  return /[^\s\p{C}]/u.test(hit.document_id) ? hit.document_id : `"${hit.document_id}"`;
}

export function isCode(hit) {
  return "path" in hit.payload && Array.isArray(hit.payload.lines);
}

// Return a list of the payload's fields; long values are shortened here, and whole in the document.
export function payload(values) {
  const list = make("dl", { className: "payload" });
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") continue;
    const words = shown(value);
    const short = words.length > MAX_VALUE ? `${words.slice(0, MAX_VALUE)}…` : words;
    list.append(make("div", {}, make("dt", {}, name), make("dd", {}, short)));
  }
  return list;
}

function reasons(hit, result) {
  const weight = result.dense_weight ?? 1;
  const rows = [["Score", number(hit.score)], ["Meaning", meter(hit.cosine), `weighs ${number(weight, 2)}`]];
  if (weight < 1) {
    rows.push(["Words", hit.bm25 ? `BM25 ${number(hit.bm25)}` : "no word found", `weigh ${number(1 - weight, 2)}`]);
    rows.push(["Words found", (hit.matched ?? []).join(", ") || "none"]);
  }
  rows.push([`Rank in ${hit.index}`, String(hit.rank)], ["Fused", `by ${result.fusion}: ${number(hit.fused, 4)}`]);
  rows.push(["Chunks", (hit.chunks ?? []).map((chunk) => `${chunk.chunk}: ${number(chunk.score)}`).join(", ")]);
  const body = make("tbody");
  for (const [name, value, more] of rows) {
    body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value, more ? ` (${more})` : null)));
  }
  return make("details", {}, make("summary", {}, `Score ${number(hit.score)}: why?`), make("table", {}, body));
}

function meter(cosine) {
  const value = Math.max(0, Math.min(1, cosine));
  const words = number(cosine);
  return make("span", {}, `cosine ${words}`, make("meter", { min: 0, max: 1, value, ariaLabel: `cosine ${words}` }));
}

function number(value, digits = 3) {
  return Number(value ?? 0).toFixed(digits);
}
