// The page: what a person types becomes a search, and the address keeps it (after #, which no server is told).

import { Problem, facets as countValues, listIndexes, search, token } from "./api.js";
import { byId, make } from "./dom.js";
import * as filters from "./filters.js";
import { showHits } from "./hits.js";
import { age } from "./time.js";
import { openDocument } from "./viewer.js";

const FIRST = 20;
const MOST = 100;
const FACETS = 6;

let indexes = [];
let kinds = {}; // of the fields of indexes
let closed = []; // the names of those that are for members of groups, and this caller is of none
let total = 0; // of the settings; those without documents are neither offered nor asked
let limit = FIRST;
let running = null;

async function start() {
  byId("forget").hidden = !token.get();
  try {
    ({ indexes, kinds } = await listIndexes());
  } catch (error) {
    return fail(error, start);
  }
  hide("problem");
  total = indexes.length;
  closed = indexes.filter((index) => index.closed).map((index) => index.name);
  indexes = indexes.filter((index) => index.live && index.documents !== 0 && !index.closed);
  explainClosed();
  if (!indexes.length) return closed.length ? say("") : explainEmpty();
  say("");
  showIndexes();
  restore();
}

// Say which indexes are closed, since nobody sees what they do not show.
function explainClosed() {
  const who = token.get() ? "your token has no group" : "you have no token that names one";
  const words = closed.length === 1 ? "is for members of groups" : "are for members of groups";
  byId("closed").textContent = closed.length ? `${closed.join(", ")} ${words}, and ${who}. Nothing of it is shown to you.` : "";
}

function explainEmpty() {
  say("");
  problem("Nothing is indexed yet. Run this where the settings are, then reload the page:", "rag-index index-all");
}

function showIndexes() {
  const choices = byId("indexes").querySelector(".choices");
  choices.replaceChildren(...indexes.map((index) => {
    const box = make("input", { type: "checkbox", value: index.name, checked: true });
    const about = [index.documents?.toLocaleString(), age(index.as_of.at)].filter(Boolean).join(" · ");
    return make("label", { className: "choice", title: completed(index) }, box, index.name, make("small", {}, about));
  }));
  byId("indexes").hidden = false;
  offerFields();
}

function completed(index) {
  const { at: time, last_run: run } = index.as_of;
  const count = index.documents === null ? "" : `${index.documents.toLocaleString()} documents. `;
  return `${count}Last complete: ${time ? new Date(time).toLocaleString() : "unknown"}. Last run: ${run ?? "none"}.`;
}

function chosen() {
  return [...byId("indexes").querySelectorAll("input:checked")].map((box) => box.value);
}

function offerFields() {
  const names = chosen();
  const found = new Map();
  for (const index of indexes) {
    if (names.length && !names.includes(index.name)) continue;
    for (const field of index.fields ?? []) found.set(field.name, found.get(field.name) ?? field.kind ?? null);
  }
  filters.offer(found, kinds);
}

async function ask() {
  const query = byId("query").value.trim();
  const names = chosen();
  if (!query || !indexes.length) return;
  running?.abort();
  hide("problem");
  if (!names.length) return nothing("Choose at least one index.");
  const controller = (running = new AbortController());
  const asked = { query, limit };
  if (names.length < total) asked.indexes = names;
  const filter = filters.filter();
  if (filter) asked.filter = filter;
  const least = Number(byId("least").value);
  if (least) asked.min_score = least;
  say("Searching …");
  try {
    const began = performance.now();
    const result = await search(asked, controller.signal);
    document.title = `${query} – rag-index`;
    showHits(result, openDocument);
    report(result, Boolean(filter), performance.now() - began);
    if (result.hits.length) await showFacets(names, filter, controller.signal);
    else hide("facets");
  } catch (error) {
    if (error.name === "AbortError") return;
    nothing("");
    fail(error, ask);
  } finally {
    if (running === controller) running = null;
  }
}

function report(result, filtered, milliseconds) {
  const found = result.hits.length;
  const none = result.nothing_fits ? "Nothing fits" : "Nothing found";
  const words = found ? `${found} ${found === 1 ? "document" : "documents"}` : none;
  const advice = !found && filtered ? "; fewer filters may help" : "";
  const fits = found && result.nothing_fits ? "Nothing fits. The nearest: " : "";
  const instead = Object.entries(result.corrected ?? {}).map(([wrong, right]) => `${right} instead of ${wrong}`);
  const corrected = instead.length ? `Searched for ${instead.join(", ")}. ` : "";
  say(`${corrected}${fits}${words}${advice} in ${Math.round(milliseconds)} ms.`);
  byId("more").hidden = found < limit || limit >= MOST;
  const errors = Object.entries(result.errors ?? {});
  if (errors.length) problem(errors.map(([index, reason]) => `${index} did not answer: ${reason}`).join("\n"));
}

// Show the values of keyword fields that documents have, each with a button that keeps those that have it. Without an
// answer the hits stand alone.
async function showFacets(indexes, filter, signal) {
  const taken = filters.rows().map((row) => row.field);
  let found = {};
  try {
    if (filters.ofKind("keyword").length) {
      found = (await countValues({ indexes, limit: FACETS, ...(filter ? { filter } : {}) }, signal)).fields;
    }
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  const offered = Object.entries(found).filter(([name, values]) => values.length > 1 && !taken.includes(name));
  const facets = offered.map(([name, values]) => make(
    "div", {}, make("span", {}, name), ...values.map(({ value, documents }) => {
      const button = make("button", { type: "button", className: "quiet" }, `${value} `, make("small", {}, documents.toLocaleString()));
      button.addEventListener("click", () => {
        filters.add({ field: name, comparison: "is", value });
        askAgain();
      });
      return button;
    }),
  ));
  byId("facets").replaceChildren(...facets);
  byId("facets").hidden = !facets.length;
}

function nothing(words) {
  byId("hits").replaceChildren();
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

// Show what went wrong. If a token is missing or wrong, ask for one and try again.
function fail(error, again) {
  say("");
  if (error instanceof Problem && error.status === 401) return askForToken(error, again);
  if (!(error instanceof Problem)) console.error(error);
  return problem(error.message);
}

function askForToken(error, again) {
  const dialog = byId("token");
  dialog.querySelector(".wrong").textContent = token.get() ? error.message : "";
  token.forget();
  byId("token-value").value = "";
  dialog.onclose = () => {
    const value = byId("token-value").value.trim();
    byId("token-value").value = "";
    if (!value) return problem("Without a token nothing can be searched. Reload the page to enter one.");
    token.set(value);
    byId("forget").hidden = false;
    return again();
  };
  if (!dialog.open) dialog.showModal();
}

function remember() {
  const state = new URLSearchParams({ q: byId("query").value.trim() });
  const names = chosen();
  if (names.length < indexes.length) state.set("indexes", names.join(","));
  if (byId("least").value) state.set("least", byId("least").value);
  if (filters.rows().length) state.set("filters", JSON.stringify(filters.rows()));
  const address = `#${state}`;
  if (location.hash !== address) history.pushState(null, "", address);
}

// Make the page what the address says, and search.
function restore() {
  limit = FIRST;
  const state = new URLSearchParams(location.hash.slice(1));
  byId("query").value = state.get("q") ?? "";
  byId("least").value = state.get("least") ?? "";
  const names = state.get("indexes")?.split(",");
  for (const box of byId("indexes").querySelectorAll("input")) box.checked = !names || names.includes(box.value);
  offerFields();
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

function askAgain() {
  limit = FIRST;
  remember();
  ask();
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  askAgain();
});
byId("indexes").addEventListener("change", () => {
  offerFields();
  askAgain();
});
for (const id of ["filters", "least"]) byId(id).addEventListener("change", () => {
  if (byId("search").checkValidity()) askAgain();
});
byId("more").addEventListener("click", async () => {
  const seen = document.querySelectorAll(".open").length;
  limit = MOST;
  await ask();
  document.querySelectorAll(".open")[seen]?.focus();
});
byId("add-filter").addEventListener("click", () => filters.add().field.focus());
byId("forget").addEventListener("click", () => {
  token.forget();
  location.reload();
});
addEventListener("keydown", press);
addEventListener("popstate", restore);
start();
