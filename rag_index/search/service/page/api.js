// Requests to the service that this page comes from, with the token of this tab if one was given.

const KEY = "rag-index-token";
const MOST_CHARS = 100_000;
const BUSY = [429, 503, 504];
const SIGNED_OUT = "Something else than the service answers: perhaps your sign-on has ended. Reload the page to sign on again.";

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

const WHOLE = /^-?\d{16,}$/;
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

// Return what JSON means. Whole numbers beyond 2^53, which JavaScript would round, become text; other text stays.
export function parse(text) {
  const exact = text.replace(TOKENS, (found) => (WHOLE.test(found) && !Number.isSafeInteger(Number(found)) ? `"${found}"` : found));
  return JSON.parse(exact);
}

// Return the JSON of a value, in which a BigInt is a number.
export function write(value) {
  const text = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? `\u0000${one}` : one));
  return text.replace(/"\\u0000(-?\d+)"/g, "$1");
}

// Return the object that the service answers. Raises Problem with the reason that the service gives.
async function request(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (options.body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store", redirect: "manual" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer. Is it running?", 0);
  }
  const found = await answer.text().then(parse).catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (BUSY.includes(answer.status)) throw new Problem(found?.detail || "The service is busy.", answer.status);
  if (answer.type === "opaqueredirect" || (answer.ok && found === null)) throw new Problem(SIGNED_OUT, 0);
  if (!answer.ok) throw new Problem(found?.detail || found?.title || `The service answers ${answer.status}.`, answer.status);
  return found;
}

// Send an object to an address of this service, and return its answer.
export const send = (path, body, signal) => request(path, { method: "POST", body: write(body), signal });

export const listIndexes = () => request("indexes");

// Return how many documents of a trial can be searched, in a sentence, and whether these are all.
export const searchable = () => request("searchable");

export const search = (asked, signal) => send("search", { ...asked, explain: true }, signal);

// Return a document, or of a long one the chunks around one, as many as a browser shows at once. Browsers take an id of
// dots for a folder, however it is written. `query` is the one whose hit was opened, for the log of queries.
export function readDocument(index, id, around, query) {
  const dots = id === "." || id === "..";
  const asked = new URLSearchParams({ around, max_chars: MOST_CHARS, ...(dots ? { document_id: id } : {}) });
  return request(`documents/${encodeURIComponent(index)}/${dots ? "" : encodeURIComponent(id)}?${asked}`, query ? { headers: { "Rag-Index-Query": encodeURIComponent(query) } } : {});
}
