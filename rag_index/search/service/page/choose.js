// What `rag-index try` searches: the questions of `init` with their answers, and documents as they are found.

import { Problem, send } from "./api.js";
import { byId, make, shown } from "./dom.js";

const MAX_QUESTIONS = 12; // at first; the rest is folded
const PASSAGES = 3;
const USES = { title: "the title", text: "text", "leave out": "left out" };
let answers = {}; // by id, as `init --answers` reads them
let newest = 0; // the number of the newest request: answers to older ones are dropped

// Ask what follows from some answers, and show it. They are kept if they can be.
async function refresh(wanted = answers) {
  const mine = ++newest;
  byId("problem").hidden = byId("keep").disabled = true;
  byId("status").textContent = "Reading the database …";
  try {
    const proposal = await send("../proposal", wanted);
    if (mine !== newest) return;
    answers = wanted;
    show(proposal);
    await showDocuments(proposal, () => mine !== newest);
  } catch (error) {
    if (mine === newest) fail(error);
  }
}

function answer(id, given) {
  refresh({ ...answers, [id]: given });
}

function show({ questions, tables, sentence }) {
  const focused = document.activeElement?.id;
  byId("status").textContent = `${sentence}.`;
  const asked = questions.filter((one) => one.chars && one.result === "asked");
  const decided = questions.filter((one) => one.chars && one.result !== "asked");
  byId("questions").replaceChildren(...asked.slice(0, MAX_QUESTIONS).map(question));
  fill("more-questions", "more-count", asked.slice(MAX_QUESTIONS).map(question), "more questions");
  fill("decided", "decided-count", decided.map(question), "columns that names and values decide");

  const used = tables.filter((one) => one.becomes !== "out");
  const unused = tables.filter((one) => one.becomes === "out");
  byId("tables").replaceChildren(...used.map(table));
  fill("unused", "unused-count", unused.map(table), "tables left out");
  const leftOut = used.flatMap((one) => one.columns).filter((one) => one.use === "leave out");
  byId("columns").replaceChildren(...leftOut.map(column));
  byId("hits").replaceChildren(...used.filter((one) => one.index).map(index));
  if (focused) byId(focused)?.focus();
}

// Fill a list that is folded under its number; hide it if there is nothing in it.
function fill(list, summary, children, noun) {
  byId(list).replaceChildren(...children);
  byId(summary).textContent = `${children.length} ${noun}`;
  byId(summary).parentElement.hidden = !children.length;
}

async function showDocuments({ tables }, isOld) {
  const indexes = tables.filter((one) => one.index).map((one) => one.index);
  byId("keep").disabled = !indexes.length;
  for (const name of indexes) {
    const { documents } = await send(`../proposal/${encodeURIComponent(name)}`, answers);
    if (isOld()) return;
    const found = documents.map(hit);
    byId(`index ${name}`).append(...(found.length ? found : [make("p", {}, "No row has text that may be shown.")]));
  }
}

// Return a question: a box for each value, ticked if its rows are shown.
function question(one) {
  const boxes = one.values.filter((value) => value.rows).map((value) => box(one, value));
  return make("li", {},
    make("div", { className: "head" }, make("strong", {}, one.id), make("small", { className: "note" }, one.why)),
    make("div", { className: "choices", role: "group", ariaLabel: one.id }, ...boxes));
}

function box(one, { value, spoken, rows, is_shown: ticked }) {
  const input = make("input", { type: "checkbox", id: `${one.id} ${value}`, checked: ticked, ariaLabel: `${one.id}: ${spoken}` });
  input.addEventListener("change", () => {
    const isShown = (other) => other.value === value ? input.checked : other.is_shown;
    const named = (some) => some.map((other) => other.value);
    answer(one.id, {
      show: named(one.values.filter(isShown)),
      hide: named(one.values.filter((other) => !isShown(other))),
    });
  });
  return make("label", { className: "choice" }, input, make("span", {}, spoken), make("small", {}, rows.toLocaleString("en")));
}

function table(one) {
  const rows = `${one.exact ? "" : "~"}${one.rows.toLocaleString("en")}`;
  const cells = [one.id, rows, size(one.chars), becomes(one)].map((cell) => make("td", {}, cell));
  const buttons = [
    one.becomes === "document" ? null : button("Make documents", one.id, "document"),
    one.becomes === "out" ? null : button("Leave out", one.id, "leave out"),
  ];
  return make("tr", {}, ...cells, make("td", {}, ...buttons));
}

function becomes({ id, becomes: what, of, why, index: name }) {
  if (what === "out") return `left out: ${why}`;
  if (what !== "document") return `${what} of ${of.join(", ")}`;
  const letters = (text) => text.toLowerCase().replaceAll(/[-_]/g, "");
  return letters(name) === letters(id) ? what : `document (index ${name})`;
}

function column(one) {
  const text = `${one.id}: ${one.why}`;
  return make("li", {}, make("div", { className: "head" }, make("span", {}, text), button("Search it", one.id, "text")));
}

function button(text, id, given) {
  const made = make("button", { type: "button", className: "quiet", id: `${given} ${id}`, ariaLabel: `${text}: ${id}` }, text);
  made.addEventListener("click", () => answer(id, given));
  return made;
}

function size(chars) {
  const units = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
  const [unit, name] = units.find(([least]) => chars >= least) ?? [1, "B"];
  return `${Number((chars / unit).toPrecision(3))} ${name}`;
}

// Return the place of an index for what its columns are used for, and for documents.
function index(one) {
  const columns = make("details", {}, make("summary", {}, "Columns"), ...one.columns.map((each) => use(one, each)));
  return make("li", { className: "hit", id: `index ${one.index}` }, make("h2", {}, one.index), columns);
}

// Return what a column is used for, to be changed. A table has one title: another one is text again.
function use(one, { id, use: now }) {
  const options = Object.entries(USES).map(([value, text]) => make("option", { value, selected: value === now }, text));
  const select = make("select", { id: `use ${id}`, ariaLabel: id }, ...options);
  select.addEventListener("change", () => {
    const others = one.columns.filter((other) => other.id !== id && answers[other.id] === "title");
    const kept = { ...answers };
    if (select.value === "title") for (const other of others) delete kept[other.id];
    refresh({ ...kept, [id]: select.value });
  });
  return make("label", { className: "column" }, make("span", {}, id), select);
}

// Return a document as a search would show it: its title, the beginning of its text, and its fields.
function hit(document) {
  const fields = Object.entries(document.payload ?? {}).map(
    ([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, shown(value))));
  return make("article", { className: "found" }, make("strong", {}, document.title ?? document.document_id),
    ...document.chunks.slice(0, PASSAGES).map((chunk) => make("p", { className: "text" }, chunk.text)),
    make("dl", { className: "payload" }, ...fields));
}

async function keep() {
  byId("problem").hidden = true;
  try {
    const { file } = await send("../keep", answers);
    byId("status").textContent = `Kept in ${file}. To index it: rag-index index-all`;
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  byId("status").textContent = "";
  byId("problem").hidden = false;
  byId("problem").textContent = error instanceof Problem && error.status === 404
    ? "This page belongs to `rag-index try`: here, the settings file says what is searched." : error.message;
}

byId("keep").addEventListener("click", keep);
refresh();
