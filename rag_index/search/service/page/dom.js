// Elements made in one expression.

// Return an element with these properties and children. Strings become text, never HTML.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// Return how a value of a payload is shown.
export function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
