// What `rag-index try` searches: tables and columns to tick, one document as it would be found, and settings to keep.

import { Problem, send } from "./api.js";
import { byId, make } from "./dom.js";

const USES = { title: "the title", text: "text", secret: "secret", out: "left out" };
const chosen = { tables: {}, columns: {} };
let asked = 0; // the newest request: answers of older ones are dropped

// Ask what becomes of the tables, and show it; with `table`, also a document of that one.
async function refresh(table = null) {
  const mine = ++asked;
  byId("problem").hidden = true;
  byId("status").textContent = "Reading the database …";
  try {
    const { tables, document: text } = await send("../proposal", { ...chosen, show: table });
    if (mine !== asked) return;
    showTables(tables);
    if (table) showDocument(table, text);
  } catch (error) {
    if (mine === asked) fail(error);
  }
}

function showTables(tables) {
  const open = new Set([...document.querySelectorAll(".hit details[open]")].map((one) => one.dataset.table));
  const indexes = tables.filter((one) => !one.reason);
  byId("status").textContent = `${indexes.length} of ${tables.length} tables with text are searched by themselves.`;
  byId("hits").replaceChildren(...tables.map((one) => item(one, open.has(one.name))));
  byId("keep").disabled = !indexes.length;
}

function item(table, open) {
  const box = make("input", { type: "checkbox", checked: !table.reason, ariaLabel: table.name });
  box.addEventListener("change", () => change("tables", table.name, box.checked));
  const rows = table.rows > 20000 ? "more than 20,000" : table.rows.toLocaleString();
  const size = `${rows} rows · ${table.chars.toLocaleString()} letters`;
  const show = make("button", { type: "button", className: "quiet", disabled: Boolean(table.reason) }, "Show a document");
  show.addEventListener("click", () => refresh(table.name));
  const columns = make("details", { open }, make("summary", {}, "Columns"), ...Object.entries(table.columns).map(
    ([name, use]) => column(table, name, use)));
  columns.dataset.table = table.name;
  const head = make("label", { className: "table" }, box, make("strong", {}, table.name), make("small", {}, size));
  return make("li", { className: "hit" }, make("div", { className: "head" }, head, show),
    table.reason ? make("p", { className: "note" }, table.reason) : null, columns);
}

function column(table, name, use) {
  const key = (other) => `${table.name}.${other}`;
  const select = make("select", { ariaLabel: key(name) }, ...Object.entries(USES).map(
    ([value, text]) => make("option", { value, selected: value === use }, text)));
  select.addEventListener("change", () => {
    const titles = Object.keys(table.columns).map(key).filter((other) => chosen.columns[other] === "title");
    if (select.value === "title") for (const other of titles) delete chosen.columns[other]; // there is one
    change("columns", key(name), select.value);
  });
  return make("label", { className: "column" }, make("span", {}, name), select);
}

function change(kind, name, value) {
  chosen[kind][name] = value;
  refresh();
}

function showDocument(table, text) {
  byId("document-title").textContent = table;
  byId("document").querySelector("pre").textContent = text || "No row of it has text that may be shown.";
  byId("document").showModal();
}

async function keep() {
  try {
    const { file } = await send("../keep", chosen);
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
