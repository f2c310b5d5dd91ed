// What `rag-index try` searches: the lines of the terminal's screen, a button for each, and documents as they are found.

import { Problem, send } from "./api.js";
import { byId, make, shown } from "./dom.js";

const BUTTONS = { table: ["Make documents", "Leave out"], rows: ["Show them", "Hide them"], column: ["Search it", "Leave out"] };
const PASSAGES = 3;
const USES = { title: "the title", text: "text", out: "left out" };
let chosen = { include: [], exclude: [], show: [], hide: [], uses: {} };
let listed = [];
let asked = 0; // the newest request: answers of older ones are dropped

// Ask what follows from some choices, and show it. They are kept if they can be.
async function refresh(choices = chosen) {
  const mine = ++asked;
  byId("problem").hidden = byId("keep").disabled = true;
  byId("status").textContent = "Reading the database …";
  try {
    const { lines, sentence } = await send("../proposal", { ...choices, listed });
    if (mine !== asked) return;
    chosen = choices;
    byId("status").textContent = `${sentence}.`;
    byId("tables").replaceChildren(...lines.filter((one) => one.kind === "table").map(row));
    byId("lines").replaceChildren(...lines.filter((one) => one.kind !== "table").map(item));
    const indexes = lines.filter((one) => one.index);
    byId("keep").disabled = !indexes.length;
    byId("hits").replaceChildren(...indexes.map(index));
    for (const { index: name } of indexes) {
      const { documents } = await send("../proposal", { ...choices, documents: name });
      if (mine !== asked) return;
      byId(`index ${name}`).append(...(documents.length ? documents.map(hit) : [make("p", {}, "No row has text that may be shown.")]));
    }
  } catch (error) {
    if (mine === asked) fail(error);
  }
}

function row(line) {
  return make("tr", {}, ...[line.title, line.rows, line.share, line.says, button(line)].map((cell) => make("td", {}, cell)));
}

// Return the place of an index for what its columns are used for, and for documents.
function index(line) {
  const columns = make("details", {}, make("summary", {}, "Columns"), ...line.columns.map(([name, use]) => column(line, name, use)));
  return make("li", { className: "hit", id: `index ${line.index}` }, make("h2", {}, line.index), columns);
}

// Return a document as a search would show it: its title, the beginning of its text, and its fields.
function hit(document) {
  const fields = Object.entries(document.payload ?? {}).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, shown(value))));
  return make("article", { className: "found" }, make("strong", {}, document.title ?? document.document_id),
    ...document.chunks.slice(0, PASSAGES).map((chunk) => make("p", { className: "text" }, chunk.text)),
    make("dl", { className: "payload" }, ...fields));
}

function item(line) {
  const note = line.note ? make("p", { className: "note" }, line.note) : null;
  return make("li", {}, make("div", { className: "head" }, make("span", {}, [line.title, line.says].filter(Boolean).join(": ")), button(line)), note);
}

function button(line) {
  const several = line.names.length > 1;
  const text = several ? "List them" : BUTTONS[line.kind][Number(line.searched)];
  const made = make("button", { type: "button", className: "quiet", ariaLabel: `${text}: ${line.title}` }, text);
  made.addEventListener("click", () => {
    if (several) listed.push(...line.names);
    refresh(several ? chosen : line.changed);
  });
  return made;
}

function column(line, name, use) {
  const key = (other) => `${line.names[0]}.${other}`;
  const select = make("select", { ariaLabel: key(name) }, ...Object.entries(USES).map(
    ([value, text]) => make("option", { value, selected: value === use }, text)));
  select.addEventListener("change", () => {
    const uses = { ...chosen.uses, [key(name)]: select.value };
    const titles = line.columns.map(([other]) => key(other)).filter((other) => other !== key(name) && uses[other] === "title");
    if (select.value === "title") for (const other of titles) delete uses[other]; // there is one
    refresh({ ...chosen, uses });
  });
  return make("label", { className: "column" }, make("span", {}, name), select);
}

async function keep() {
  byId("problem").hidden = true;
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
