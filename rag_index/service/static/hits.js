// The hits of a search, each with its document's place, its text, its payload and the reasons of its score.

import { byId, make, shown } from "./dom.js";
import { excerpt, fill } from "./marks.js";
import { time } from "./time.js";

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
  const address = hit.part?.link ?? hit.link;
  const where = make("span", { className: "place" }, part(hit));
  if (isAddress(address)) where.append(" ", make("a", { href: address, rel: "noreferrer", target: "_blank" }, "open"));
  return make(
    "li", { className: "hit" }, where, heading, text, payload(hit.payload), reasons(hit, result),
  );
}

// Return the index of a hit, and the part of the document that was found.
function part(hit) {
  return [hit.index, hit.part && `${hit.part.name} ${hit.part.id ?? ""}`.trim()].filter(Boolean).join(" · ");
}

// Only such addresses are links: a page must not run what a database holds.
function isAddress(text) {
  return /^(https?:\/\/|\/(?!\/))/.test(text ?? "");
}

// Return the document's title or id, for source code as file:line, and in quotes if nothing of it could be seen and clicked.
export function place(hit) {
  if (isCode(hit)) return `${hit.document_id}:${hit.payload.lines[0]}`;
  if (/[^\s\p{C}]/u.test(hit.title ?? "")) return hit.title;
  return /[^\s\p{C}]/u.test(hit.document_id) ? hit.document_id : `"${hit.document_id}"`;
}

export function isCode(hit) {
  return "path" in hit.payload && Array.isArray(hit.payload.lines);
}

// Return a list of the payload's fields; long values are shortened here, and whole in the document.
export function payload(values) {
  const list = make("dl", { className: "payload" });
  for (const [name, value] of fields(values)) {
    if (value === null || value === "") continue;
    const words = shown(value);
    const short = words.length > MAX_VALUE ? `${words.slice(0, MAX_VALUE)}…` : words;
    list.append(make("div", {}, make("dt", {}, name), make("dd", {}, time(words) ?? short)));
  }
  return list;
}

// Yield the fields of a payload; those of another table, such as customer.name, one by one.
function* fields(values, before = "") {
  for (const [name, value] of Object.entries(values)) {
    const isTable = value !== null && typeof value === "object" && !Array.isArray(value) && before.split(".").length < 3;
    if (isTable) yield* fields(value, `${before}${name}.`);
    else yield [before + name, value];
  }
}

function reasons(hit, result) {
  const weight = result.dense_weight ?? 1;
  const rows = [["Score", number(hit.score)], ["Meaning", meter(hit.cosine), `weighs ${number(weight, 2)}`]];
  if (weight < 1) {
    rows.push(["Words", hit.bm25 ? `BM25 ${number(hit.bm25)}` : "no word found", `weigh ${number(1 - weight, 2)}`]);
    rows.push(["Soft match", number(hit.soft)]);
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
