// The rows with which a person filters: a field, a comparison that its kind allows, and a value.

import { byId, make } from "./dom.js";

const EQUAL = [["is", "is"], ["not", "is not"]];
const ORDER = [["gte", "at least"], ["lte", "at most"], ["gt", "more than"], ["lt", "less than"]];
const TIMES = [["gte", "on or after"], ["lt", "before"]];
const EXISTS = [["exists", "has a value"], ["missing", "has none"]];
const ANY_KIND = { type: "any", ordered: "numbers" };
const NUMBER = /^[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?$/;

let fields = new Map();
let labels = new Map();
let kinds = {};

// Offer these fields: a map from name to kind, or to null where the settings name no kind. `described` has the kinds,
// and `called` what people call fields.
export function offer(found, described, called) {
  [fields, kinds, labels] = [found, described, called];
  byId("filters").hidden = byId("add-filter").hidden = fields.size === 0;
  for (const row of [...byId("filters").querySelectorAll(".row")]) {
    if (!fields.has(row.field.value)) row.remove();
    else row.field.replaceChildren(...options(named(), row.field.value));
  }
}

// Add a row; `given` has field, comparison and value.
export function add(given = {}) {
  const field = make("select", { ariaLabel: "Field" }, ...options(named(), given.field));
  const comparison = make("select", { ariaLabel: "Comparison" });
  const remove = make("button", { type: "button", className: "quiet", ariaLabel: "Remove this filter" }, "✕");
  const row = make("div", { className: "row" }, field, comparison, remove);
  row.field = field;
  row.comparison = comparison;
  const refresh = (kept = {}) => {
    comparison.replaceChildren(...options(comparisons(kindOf(field.value)), kept.comparison));
    row.value?.remove();
    row.value = input(kindOf(field.value), kept.value);
    comparison.after(row.value);
    needsValue();
  };
  const needsValue = () => {
    const needed = !["exists", "missing"].includes(comparison.value);
    row.value.hidden = !needed;
    row.value.required = needed;
  };
  field.addEventListener("change", () => refresh());
  comparison.addEventListener("change", needsValue);
  remove.addEventListener("click", () => {
    row.remove();
    byId("add-filter").focus();
    byId("filters").dispatchEvent(new Event("change", { bubbles: true }));
  });
  byId("filters").querySelector(".rows").append(row);
  refresh(given);
  return row;
}

// Return what people call a field.
export const label = (field) => labels.get(field) || field;

const named = () => [...fields.keys()].map((field) => [field, label(field)]);

const kindOf = (field) => kinds[fields.get(field)] ?? ANY_KIND;

function comparisons({ type, ordered }) {
  if (ordered === "times") return [...TIMES, ...EXISTS];
  return [...(type === "boolean" ? EQUAL.slice(0, 1) : EQUAL), ...(ordered ? ORDER : []), ...EXISTS];
}

// Return the names of the fields of one kind.
export function ofKind(kind) {
  return [...fields].filter((field) => field[1] === kind).map(([name]) => name);
}

// Return the rows as plain objects, as an address keeps them.
export function rows() {
  return [...byId("filters").querySelectorAll(".row")].map((row) => ({
    field: row.field.value, comparison: row.comparison.value, value: row.value.value,
  }));
}

// Show exactly these rows.
export function show(given) {
  byId("filters").querySelector(".rows").replaceChildren();
  for (const row of given) if (fields.has(row.field)) add(row);
}

// Return the filter that the service takes; null if there is none. "is" twice on one field means either.
export function filter() {
  const found = {};
  for (const { field, comparison, value } of rows()) {
    const wanted = (found[field] ??= {});
    const kind = kindOf(field);
    if (comparison === "exists" || comparison === "missing") wanted.exists = comparison === "exists";
    else if (comparison === "is") wanted.any = [...(wanted.any ?? []), ...meanings(value, kind)];
    else if (comparison === "not") wanted.not = [...(wanted.not ?? []), ...meanings(value, kind)];
    else wanted[comparison] = bound(value, kind);
  }
  return Object.keys(found).length ? found : null;
}

// Return what a value may mean: a field without a kind may hold text, numbers or booleans.
function meanings(value, { type }) {
  if (type === "integer" || type === "number") return [number(value)];
  if (type === "boolean") return [value === "true"];
  if (type === "string") return [value];
  if (NUMBER.test(value)) return [value, number(value)];
  return value === "true" || value === "false" ? [value, value === "true"] : [value];
}

function bound(value, { ordered }) {
  return ordered === "times" || !NUMBER.test(value) ? value : number(value);
}

// Return a number, a whole one beyond 2^53 with all its digits.
function number(value) {
  return /^[+-]?\d+$/.test(value) && !Number.isSafeInteger(Number(value)) ? BigInt(value.replace("+", "")) : Number(value);
}

function input({ type, ordered }, value = "") {
  if (type === "boolean") return make("select", { ariaLabel: "Value" }, ...options(["true", "false"], value));
  const shown = ordered === "times" ? "date" : { integer: "number", number: "number" }[type] ?? "text";
  const made = make("input", { type: shown, ariaLabel: "Value", value });
  if (type === "number") made.step = "any";
  return made;
}

function options(values, selected) {
  return values.map((one) => {
    const [value, label] = Array.isArray(one) ? one : [one, one];
    return make("option", { value, selected: value === selected }, label);
  });
}
