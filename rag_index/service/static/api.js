// Requests to the service that this page comes from, with the token of this tab if one was given.

const KEY = "rag-index-token";
const MOST_CHARS = 100_000;

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

// Return the object that the service answers. Raises Problem with the reason that the service gives.
async function request(path, options = {}) {
  const headers = { Accept: "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (options.body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer. Is it running?", 0);
  }
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw new Problem(found?.detail || found?.title || `The service answers ${answer.status}.`, answer.status);
  return found;
}

export const listIndexes = () => request("indexes");

export const search = (asked, signal) =>
  request("search", { method: "POST", body: JSON.stringify({ ...asked, explain: true }), signal });

export const facets = (asked, signal) => request("facets", { method: "POST", body: JSON.stringify(asked), signal });

// Return a document, or of a long one the chunks around one, as many as a browser shows at once. The id is no part of the
// path, where a browser takes ".." for the folder above, also if it is encoded.
export const readDocument = (index, id, around) =>
  request(`documents/${encodeURIComponent(index)}?${new URLSearchParams({ id, around, max_chars: MOST_CHARS })}`);
