// Text with the words of a query marked. Whatever a document holds stays text: nothing here reads HTML.

const WORD = /[\p{L}\p{N}_]+/gu;
const PART = /\p{Lu}+(?!\p{Ll})|\p{Lu}?\p{Ll}+|\p{N}+|\p{L}+/gu;
const WITHOUT_SPACES = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;
const LONGEST_ENDING = 4;
const SHORTEST_STEM = 4;

// Return whether two words differ in their endings alone: "printers" and "printer", "failed" and "failing".
function akin(one, other) {
  if (one === other) return true;
  const shorter = Math.min(one.length, other.length);
  let same = 0;
  while (same < shorter && one[same] === other[same]) same += 1;
  return same >= SHORTEST_STEM && Math.max(one.length, other.length) - same <= LONGEST_ENDING && shorter - same <= 3;
}

function pieces(words) {
  return words.flatMap((word) => word.match(WORD) || []).map(plain).filter(Boolean);
}

// Return a word without what makes no difference: its case, and the underscores between the parts of a name.
function plain(word) {
  return word.toLowerCase().replaceAll("_", "");
}

// Return [start, end] of each word of the text that is a word of the query in some form, in order.
export function places(text, words) {
  const wanted = pieces(words);
  const parts = words.flatMap((word) => word.match(PART) || []).map((part) => part.toLowerCase());
  const found = [];
  if (!wanted.length) return found;
  for (const match of text.matchAll(WORD)) {
    const word = plain(match[0]);
    if (wanted.some((one) => akin(one, word))) {
      found.push([match.index, match.index + match[0].length]);
    } else if (WITHOUT_SPACES.test(match[0])) {
      for (const one of wanted) {
        for (let at = word.indexOf(one); at >= 0; at = word.indexOf(one, at + one.length)) {
          found.push([match.index + at, match.index + at + one.length]);
        }
      }
    } else {
      for (const part of match[0].matchAll(PART)) {
        if (part[0] !== match[0] && parts.includes(part[0].toLowerCase())) {
          found.push([match.index + part.index, match.index + part.index + part[0].length]);
        }
      }
    }
  }
  return found.sort((one, other) => one[0] - other[0]);
}

// Fill an element with a text whose words are marked.
export function fill(element, text, words) {
  element.replaceChildren();
  let done = 0;
  for (const [start, end] of places(text, words)) {
    if (start < done) continue;
    const mark = document.createElement("mark");
    mark.textContent = text.slice(start, end);
    element.append(text.slice(done, start), mark);
    done = end;
  }
  element.append(text.slice(done));
}

// Return the part of a text around its first marked word, with "…" where it was shortened.
export function excerpt(text, words, length = 360) {
  if (text.length <= length) return text.replace(/^\s*\n|\s+$/g, "");
  const first = places(text, words)[0]?.[0] ?? 0;
  let start = first < length * 0.7 ? 0 : first - Math.floor(length / 3);
  const space = text.indexOf(" ", start);
  if (start > 0 && space >= 0 && space < first) start = space + 1;
  let end = Math.min(text.length, start + length);
  if (end < text.length) end = Math.max(text.lastIndexOf(" ", end), start + Math.floor(length / 2));
  return `${start > 0 ? "… " : ""}${text.slice(start, end).replace(/^\s*\n|\s+$/g, "")}${end < text.length ? " …" : ""}`;
}
