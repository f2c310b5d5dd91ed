// The hits of a search, each with its document's place, its text, its payload and the reasons of its score.

import { byId, make, shown } from "./dom.js";
import { label } from "./filters.js";
import { excerpt, fill, markedWords } from "./marks.js";
import { time } from "./time.js";

const MAX_VALUE = 120;

const FIELDS = 6;

// Show the hits of a result. `open` is called with a hit whose document is wanted, `like` with one whose relatives are, `away` with one that is opened elsewhere; `hidden` are fields that nobody wants.
export function showHits(result, { open, like, away }, hidden = []) {
  byId("hits").replaceChildren(...result.hits.map((hit) => element(hit, result, { open, like, away }, hidden)));
}

function element(hit, result, { open, like, away }, hidden) {
  const title = make("button", { type: "button", className: "open" }, place(hit));
  title.addEventListener("click", () => open(hit));
  const code = isCode(hit);
  const text = make("p", { className: code ? "text code" : "text" });
  const words = markedWords(hit);
  fill(text, excerpt(hit.text, words), words);
  fill(title, place(hit), words);
  const alikes = make("button", { type: "button", className: "quiet" }, "More like this");
  alikes.addEventListener("click", () => like(hit));
  const heading = make("h2", {}, title);
  const address = hit.part?.link ?? hit.link;
  const link = isAddress(address)
    ? make("a", { className: "away", href: address, rel: "noreferrer", target: "_blank" }, "open ↗")
    : null;
  link?.addEventListener("click", () => away(hit));
  const alike = hit.collapsed ? make("p", { className: "note" }, `and ${hit.collapsed} more alike`) : null;
  const shown = [hit.title, address, hit.text.trim()];
  return make(
    "li", { className: "hit" }, make("span", { className: "place" }, part(hit)), heading, link, text, alike,
    payload(hit.payload, { without: (name, value) => hidden.includes(name) || shown.includes(value), most: FIELDS }),
    alikes, reasons(hit, result),
  );
}

// Return the index of a hit, and the part of the document that was found.
function part(hit) {
  return [hit.index, partName(hit.part)].filter(Boolean).join(" · ");
}

// Return what a part of a document is called, with the page if it is a file; "" for none.
export function partName(part) {
  return [`${part?.name ?? ""} ${part?.id ?? ""}`.trim(), part?.page && `page ${part.page}`].filter(Boolean).join(", ");
}

// Only addresses of http and https, and paths of this host, are links: a page must not run or leave for what a database
// holds. Browsers take backslashes for slashes, and leave out tabs.
export function isAddress(text) {
  if (!/^(https?:\/\/|\/)/.test(text ?? "") || /[\s\\\p{C}]/u.test(text) || !URL.canParse(text, location.href)) return false;
  return text.startsWith("/") ? new URL(text, location.href).origin === location.origin : true;
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

// Return a list of the payload's fields: of a hit the first ones that say something new, shortened; else all in full.
export function payload(values, { without = () => false, most = 0 } = {}) {
  const rows = [];
  for (const [name, value] of fields(values)) {
    if (value === null || value === "" || without(name, value)) continue;
    const words = shown(value);
    const long = most && words.length > MAX_VALUE;
    const said = time(words) ?? (long ? `${words.slice(0, MAX_VALUE)}…` : words);
    rows.push(make("div", {}, make("dt", {}, label(name)), make("dd", long ? { title: words } : {}, said)));
  }
  const list = make("dl", { className: "payload" }, ...rows.splice(0, most || rows.length));
  if (!rows.length) return list;
  const more = make("button", { type: "button", className: "quiet" }, `${rows.length} more`);
  more.addEventListener("click", () => more.replaceWith(...rows));
  list.append(more);
  return list;
}

// Yield the fields of a payload; those of another table, such as customer.name, one by one.
export function* fields(values, before = "") {
  for (const [name, value] of Object.entries(values)) {
    const isTable = value !== null && typeof value === "object" && !Array.isArray(value) && before.split(".").length < 3;
    if (isTable) yield* fields(value, `${before}${name}.`);
    else yield [before + name, value];
  }
}

function reasons(hit, result) {
  const weight = result.dense_weight ?? 1;
  const rows = [["Relevance", number(hit.relevance, 2)], ["Score", number(hit.score)], ["Meaning", meter(hit.cosine), `weighs ${number(weight, 2)}`]];
  if (weight < 1) {
    rows.push(["Words", hit.bm25 ? `BM25 ${number(hit.bm25)}` : "no word found", `weigh ${number(1 - weight, 2)}`]);
    rows.push(["Soft match", number(hit.soft)]);
    rows.push(["Words found", (hit.matched ?? []).join(", ") || "none"]);
  }
  rows.push([`Rank in ${hit.index}`, String(hit.rank)], ["Fused", `by ${result.fusion}: ${number(hit.fused, 4)}`]);
  rows.push(["Chunks", (hit.chunks ?? []).map((chunk) => `${chunk.chunk}: ${number(chunk.score)}`).join(", ")]);
  if (hit.citation) rows.push(["Cite it as", make("code", { className: "citation" }, `[${hit.citation}]`)]);
  const body = make("tbody");
  for (const [name, value, more] of rows) {
    body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value, more ? ` (${more})` : null)));
  }
  return make("details", {}, make("summary", {}, `Relevance ${Math.round(100 * hit.relevance)}%: why?`), make("table", {}, body));
}

function meter(cosine) {
  const value = Math.max(0, Math.min(1, cosine));
  const words = number(cosine);
  return make("span", {}, `cosine ${words}`, make("meter", { min: 0, max: 1, value, ariaLabel: `cosine ${words}` }));
}

function number(value, digits = 3) {
  return Number(value ?? 0).toFixed(digits);
}
