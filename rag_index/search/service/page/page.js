// The page: what a person types becomes a search, and the address keeps it (after #, which no server is told).

import { Problem, listIndexes, readDocument, search, searchable, token } from "./api.js";
import { byId, make, shown } from "./dom.js";
import * as filters from "./filters.js";
import { fields as fieldsOf, showHits } from "./hits.js";
import { age } from "./time.js";
import { openDocument } from "./viewer.js";

const LIMIT = 20; // documents of an answer
const FACETS = 6;
const VALUE_CHARS = 40;
const LOOK = 1000; // milliseconds between two looks at how much can be searched
const PAUSE = 350; // milliseconds after a key before what was typed is searched for
const MIN_TYPED = 3;
const PAUSES = [2, 4, 8, 16, 32, 60]; // seconds until a search that lacks something is tried again by itself
const PHONE = matchMedia("(max-width: 34rem)");

let indexes = [];
let kinds = {}; // of the fields of indexes
let closed = []; // the names of those that are for members of groups, and this caller is of none
let started = false; // whether the indexes are known or asked for
let running = null;
let waiting = 0; // the timer of the next try
let tries = 0; // by itself
let typing = 0; // the timer of a search for what is being typed
let typed = false; // whether the address keeps what is being typed
const LIKE = "like:"; // before the document that others are to be like
const LIKE_DOCUMENT = /^like:[A-Za-z0-9_-]+\//;
let correct = true; // whether typing errors are corrected
let hidden = []; // the fields that are not shown
let latest = null; // the last answer

async function start() {
  byId("forget").hidden = !token.get();
  say("");
  started = true;
  try {
    ({ indexes, kinds } = await listIndexes());
  } catch (error) {
    started = false;
    return fail(error, start);
  }
  hide("problem");
  closed = indexes.filter((index) => index.closed).map((index) => index.name);
  const filled = indexes.filter((index) => index.live && index.documents !== 0 && !index.closed);
  const empty = indexes.filter((index) => !filled.includes(index) && !index.closed);
  const filling = empty.filter((index) => index.as_of.last_run === "running").map((index) => `${index.name} is still being filled.`);
  indexes = filled;
  explainClosed(filling);
  if (!indexes.length) return closed.length && !filling.length ? say("") : explainEmpty(filling);
  say("");
  showIndexes();
  if (byId("query").value && !location.hash) return askAgain(); // it was typed meanwhile
  restore();
}

// Show how much of a trial can be searched, until all of it can; then what was asked is asked again.
async function countSearchable() {
  const { sentence, ended } = await searchable().catch(() => ({ sentence: byId("searchable").textContent }));
  byId("searchable").hidden = !sentence;
  byId("searchable").textContent = sentence;
  if (!ended) return setTimeout(countSearchable, LOOK);
  if (byId("query").value && !document.activeElement?.closest("#hits, dialog")) askAgain();
}

// Say which indexes are closed or not there yet, since nobody sees what they do not show.
function explainClosed(filling) {
  const who = token.get() ? "your token has no group" : "you have no token that names one";
  const words = closed.length === 1 ? "is for members of groups" : "are for members of groups";
  const hint = closed.length ? [`${closed.join(", ")} ${words}, and ${who}. Nothing of it is shown to you.`] : [];
  byId("closed").textContent = [...hint, ...filling].join(" ");
}

function explainEmpty(filling) {
  say("");
  if (filling.length) {
    tries = 1; // it may take long, and is asked again and again
    problem(filling.join(" "));
    return tryAgain(start);
  }
  problem("Nothing is indexed yet. Run this where the settings are, then reload the page:", "rag-index index-all");
}

function showIndexes() {
  const choices = byId("indexes").querySelector(".choices");
  choices.replaceChildren(...indexes.map((index) => {
    const box = make("input", { type: "checkbox", value: index.name, checked: true, ariaLabel: index.name });
    const name = make("button", { type: "button", title: `${index.name} alone, or all again. ${completed(index)}` }, index.name);
    name.addEventListener("click", () => only(index.name));
    return make("span", { className: "choice" }, box, name, make("small"));
  }));
  countHits([]);
  byId("indexes").hidden = false;
  offerFields();
}

// Show beside each index how many of the hits are its own, its documents, and up to when it is complete.
function countHits(hits) {
  byId("indexes").querySelectorAll("small").forEach((about, at) => {
    const { name, documents, as_of: { at: time, last_run: run } } = indexes[at];
    const count = hits.filter((hit) => hit.index === name).length;
    const found = count && `${count} ${count === 1 ? "hit" : "hits"}`;
    const state = time || run !== "running" ? age(time) : "still being filled";
    about.textContent = [found, documents?.toLocaleString(), state].filter(Boolean).join(" · ");
  });
}

function completed(index) {
  const { at: time, last_run: run } = index.as_of;
  const count = index.documents === null ? "" : `${index.documents.toLocaleString()} documents. `;
  return `${count}Last complete: ${time ? new Date(time).toLocaleString() : "unknown"}. Last run: ${run ?? "none"}.`;
}

// Choose one index, or all if it is chosen alone already.
function only(name) {
  const alone = chosen().join("\n") === name;
  for (const box of byId("indexes").querySelectorAll("input")) box.checked = alone || box.value === name;
  byId("indexes").dispatchEvent(new Event("change"));
}

function chosen() {
  return [...byId("indexes").querySelectorAll("input:checked")].map((box) => box.value);
}

function offerFields() {
  const names = chosen();
  const [found, labels] = [new Map(), new Map()];
  for (const index of indexes) {
    if (names.length && !names.includes(index.name)) continue;
    for (const field of index.fields ?? []) {
      found.set(field.name, found.get(field.name) ?? field.kind ?? null);
      labels.set(field.name, labels.get(field.name) || field.label);
    }
  }
  filters.offer(found, kinds, labels);
  choices("collapse", [["", "nothing"], ["text", "equal texts"], ...filters.ofKind("keyword").map((name) => [name, `equal ${filters.label(name)}`])]);
  const dates = filters.ofKind("datetime");
  choices("order", [["", "by relevance"], ...dates.flatMap((name) => [[`-${name}`, `newest ${filters.label(name)}`], [name, `oldest ${filters.label(name)}`]])]);
}

function choices(id, options) {
  const { value: before, selectedOptions: [chosen] } = byId(id);
  if (!options.some(([value]) => value === before)) options.push([before, chosen.text]); // of an index that is not chosen now
  byId(id).replaceChildren(...options.map(([value, words]) => make("option", { value, selected: value === before }, words)));
}

// Search for documents like that of a hit.
function askLike(hit) {
  byId("query").value = `${LIKE}${hit.index}/${hit.document_id}`;
  askAgain();
}

// Ask for the first documents, or, from an offset on, for those that follow the ones that are shown.
async function ask(offset = 0) {
  const query = byId("query").value.trim();
  const names = chosen();
  if (query && !started) return start();
  if (!query || !indexes.length) return;
  running?.abort();
  clearTimeout(waiting);
  if (!names.length) return nothing("Choose at least one index.");
  const controller = (running = new AbortController());
  const asked = { limit: LIMIT, offset, ...(LIKE_DOCUMENT.test(query) ? { like: query.slice(LIKE.length) } : { query }) };
  if (names.length < indexes.length) asked.indexes = names;
  const filter = filters.filter();
  if (filter) asked.filter = filter;
  const least = Number(byId("min_relevance").value);
  if (least) asked.min_relevance = least;
  if (byId("order").value) asked.order = byId("order").value;
  if (byId("collapse").value) asked.collapse = byId("collapse").value;
  if (!correct) asked.exact = true;
  say("Searching …");
  try {
    const began = performance.now();
    const result = await search(asked, controller.signal);
    document.title = `${query} – rag-index`;
    latest = { ...result, hits: [...(offset ? latest.hits : []), ...result.hits], query: asked.query };
    hide("problem"); // only now: until then it tells what the hits shown lack
    explainClosed([]);
    show();
    report(latest, Boolean(filter), performance.now() - began);
    showFacets();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!offset) nothing("");
    fail(error, () => ask(offset));
  } finally {
    if (running === controller) running = null;
  }
}

// Show the hits of the last answer, and offer the fields that they have.
function show() {
  const { hits, query } = latest;
  const open = (hit) => openDocument(hit, query);
  const away = (hit) => readDocument(hit.index, hit.document_id, hit.chunk, query).catch(() => {}); // for the log alone
  showHits(latest, { open, like: askLike, away }, hidden);
  countHits(hits);
  const names = [...new Set([...hidden, ...latest.hits.flatMap((hit) => [...fieldsOf(hit.payload)].map(([name]) => name))])];
  byId("fields").querySelector(".choices").replaceChildren(...names.sort().map((name) => make(
    "label", { className: "choice" }, make("input", { type: "checkbox", value: name, checked: !hidden.includes(name) }), filters.label(name),
  )));
}

function report(result, filtered, milliseconds) {
  const found = result.hits.length;
  const none = result.nothing_fits ? "Nothing fits" : "Nothing found";
  const words = found ? `${found} ${found === 1 ? "document" : "documents"}` : none;
  const advice = !found && filtered ? "; fewer filters may help" : "";
  const unsure = result.unsure ? "No document has these words together. Nearest in meaning: " : "";
  const fits = found && result.nothing_fits ? "Nothing fits. The nearest: " : found ? unsure : "";
  const instead = Object.entries(result.corrected ?? {}).map(([wrong, right]) => `${right} instead of ${wrong}`);
  const beside = Object.entries(result.synonyms ?? {}).map(([typed, others]) => `${others.join(" and ")} (${typed})`);
  const also = beside.length ? `Also searched for ${beside.join(", ")}. ` : "";
  const corrected = (instead.length ? `Searched for ${instead.join(", ")} (quotes insist). ` : "") + also;
  const late = Object.keys(result.errors ?? {}).length > 0;
  const missing = result.missing && !late ? `${result.missing} ` : "";
  const remark = result.remark ? `${result.remark} ` : "";
  say(`${missing}${corrected}${remark}${fits}${words}${advice} in ${Math.round(milliseconds)} ms.`);
  const typed = Object.keys({ ...result.corrected, ...result.synonyms });
  if (typed.length) byId("status").append(button(`Search for ${typed.join(", ")}${instead.length ? "" : " alone"}`, () => {
    correct = false;
    askAgain();
  }));
  byId("more").hidden = !result.next_offset;
  const wrong = [late && result.missing, result.rerank_error && `The hits are not reranked: ${result.rerank_error}`].filter(Boolean);
  if (wrong.length) problem(wrong.join("\n"));
  if (late) tryAgain(() => ask());
  else tries = 0;
}

// Show the values of keyword fields that the hits have, each with a button that keeps those that have it. A field whose
// values are all different tells nothing.
function showFacets() {
  const taken = filters.rows().map((row) => row.field);
  const facets = filters.ofKind("keyword").filter((field) => !taken.includes(field)).map((field) => [field, counted(field)]);
  const telling = facets.filter(([, values]) => values.length > 1 && values[0][1] > 1);
  byId("facets").querySelector(".values").replaceChildren(...telling.map(([field, values]) => {
    const all = values.map((one) => value(field, ...one));
    const more = button("more", () => more.replaceWith(...all.slice(FACETS)));
    return make("div", {}, make("span", {}, filters.label(field)), ...all.slice(0, FACETS), all.length > FACETS ? more : null);
  }));
  byId("facets").hidden = !telling.length;
}

// Return the values that the hits have in a field, with how many hits have each, the most frequent first.
function counted(field) {
  const found = new Map();
  for (const hit of latest.hits) {
    const own = [...fieldsOf(hit.payload)].filter(([name, value]) => name === field && value !== null);
    for (const value of new Set(own.flatMap(([, value]) => value))) found.set(value, (found.get(value) ?? 0) + 1);
  }
  return [...found].sort(([, one], [, other]) => other - one);
}

// Return a button that keeps the documents with a value.
function value(field, value, documents) {
  const words = shown(value);
  const short = words.length > VALUE_CHARS ? `${words.slice(0, VALUE_CHARS)}…` : words;
  const keep = button("", () => {
    filters.add({ field, comparison: "is", value: words });
    askAgain();
  });
  keep.title = words;
  keep.append(`${short} `, make("small", {}, documents.toLocaleString()));
  return keep;
}

function button(words, press) {
  const made = make("button", { type: "button", className: "quiet" }, words);
  made.addEventListener("click", press);
  return made;
}

function nothing(words) {
  hide("problem");
  byId("hits").replaceChildren();
  countHits([]);
  hide("facets");
  byId("more").hidden = true;
  say(words);
}

function say(words) {
  byId("status").textContent = words;
}

function problem(words, command = "") {
  byId("problem").replaceChildren(words, ...(command ? [make("pre", {}, command)] : []));
  byId("problem").hidden = false;
}

function hide(id) {
  byId(id).hidden = true;
}

// Offer to try again, and do so after a while, a few times, unless the person is among the hits by then.
function tryAgain(again) {
  clearTimeout(waiting);
  const pause = PAUSES[tries++];
  byId("problem").append(pause ? ` This page tries again in ${pause} s.` : "", button("Try again", () => {
    tries = 0;
    again();
  }));
  if (pause) waiting = setTimeout(() => document.activeElement?.closest("#hits, dialog") || again(), 1000 * pause);
}

// Show what went wrong. If a token is missing or wrong, ask for one and try again.
function fail(error, again) {
  say("");
  if (error instanceof Problem && error.status === 401) return askForToken(error, again);
  if (!(error instanceof Problem)) console.error(error);
  problem(error.message);
  if ([0, 429, 503, 504].includes(error.status)) tryAgain(again);
}

function askForToken(error, again, wrong = Boolean(token.get())) {
  const dialog = byId("token");
  dialog.querySelector(".wrong").textContent = wrong ? error.message : "";
  token.forget();
  byId("token-value").value = "";
  dialog.onclose = () => {
    const value = byId("token-value").value.trim();
    byId("token-value").value = "";
    if (!value) {
      problem("Without a token nothing can be searched.");
      return byId("problem").append(button("Enter a token", again));
    }
    if (!/^[!-~]+$/.test(value)) return askForToken(new Error("A token has letters, digits and signs of English alone."), again, true);
    token.set(value);
    byId("forget").hidden = false;
    return again();
  };
  if (!dialog.open) dialog.showModal();
}

// Keep in the address what is asked; what is being typed takes the place of what it was a moment ago.
function remember(replace = false) {
  const state = new URLSearchParams({ q: byId("query").value.trim() });
  const names = chosen();
  if (names.length < indexes.length) state.set("indexes", names.join(","));
  for (const id of ["min_relevance", "order", "collapse"]) if (byId(id).value) state.set(id, byId(id).value);
  if (hidden.length) state.set("hide", hidden.join(","));
  if (!correct) state.set("exact", "1");
  if (filters.rows().length) state.set("filters", JSON.stringify(filters.rows()));
  const address = `#${state}`;
  if (location.hash === address) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

// Make the page what the address says, and search.
function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  byId("query").value = state.get("q") ?? "";
  correct = !state.get("exact");
  hidden = state.get("hide")?.split(",") ?? [];
  const names = state.get("indexes")?.split(",");
  for (const box of byId("indexes").querySelectorAll("input")) box.checked = !names || names.includes(box.value);
  offerFields();
  for (const id of ["min_relevance", "order", "collapse"]) byId(id).value = state.get(id) ?? "";
  try {
    filters.show(JSON.parse(state.get("filters") ?? "[]"));
  } catch {
    filters.show([]);
  }
  if (byId("query").value) ask();
  else nothing("");
}

function move(step) {
  const buttons = [...document.querySelectorAll(".open")];
  const at = buttons.findIndex((button) => button.closest(".hit").contains(document.activeElement));
  const to = at + step;
  if (to < 0) byId("query").focus();
  else buttons[Math.min(to, buttons.length - 1)]?.focus();
}

function press(event) {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const inHit = document.activeElement?.closest(".hit");
  const inField = document.activeElement?.matches("input:not([type=checkbox]), select");
  if (event.key === "/" && !inField) byId("query").select();
  else if (event.key === "ArrowDown" && (inHit || document.activeElement === byId("query") || !inField)) move(1);
  else if (event.key === "ArrowUp" && inHit) move(-1);
  else if (event.key === "e" && inHit) inHit.querySelector("details").toggleAttribute("open");
  else if (event.key === "Escape" && inHit) byId("query").select();
  else return;
  event.preventDefault();
}

function askAgain(replace = false) {
  clearTimeout(typing);
  tries = 0;
  remember(replace === true && typed);
  typed = replace === true;
  return ask();
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  correct = true;
  askAgain();
});
byId("query").addEventListener("input", () => {
  clearTimeout(typing);
  correct = true;
  if (byId("query").value.trim().length < MIN_TYPED || !byId("search").checkValidity()) return;
  typing = setTimeout(() => askAgain(true), PAUSE);
});
byId("indexes").addEventListener("change", () => {
  offerFields();
  askAgain();
});
for (const id of ["filters", "min_relevance", "order", "collapse"]) byId(id).addEventListener("change", () => {
  if (byId("search").checkValidity()) askAgain();
});
byId("fields").addEventListener("change", () => {
  hidden = [...byId("fields").querySelectorAll("input:not(:checked)")].map((box) => box.value);
  remember();
  if (latest) show();
});
byId("more").addEventListener("click", async () => {
  const seen = document.querySelectorAll(".open").length;
  await ask(latest.next_offset);
  document.querySelectorAll(".open")[seen]?.focus();
});
byId("narrow").open = !PHONE.matches;
byId("facets").open = !PHONE.matches;
byId("add-filter").addEventListener("click", () => filters.add().field.focus());
byId("forget").addEventListener("click", () => {
  token.forget();
  location.reload();
});
if (!byId("choose").hidden) countSearchable();
addEventListener("keydown", press);
addEventListener("popstate", restore);
start();
