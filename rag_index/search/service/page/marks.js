// Text with the words of a query marked. Whatever a document holds stays text: nothing here reads HTML.

// What is a word here is one in tokenizer.py: a run of letters with their marks, an emoji, or a part of a text that is written without spaces.
const UNSPACED = String.raw`\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\u30fc\uff70\uff9e\uff9f`;
const PICTURE = String.raw`\p{Extended_Pictographic}[\ufe0f\p{Emoji_Modifier}\u{e0020}-\u{e007f}]*`;
const EMOJI = String.raw`\p{Regional_Indicator}{2}|${PICTURE}(?:\u200d${PICTURE})*`;
const LETTER = String.raw`[\p{L}\p{M}\p{N}_\u200c\u200d]`;
const WORD = new RegExp(`${EMOJI}|(?:[${UNSPACED}]\\p{M}*)+|(?:(?![${UNSPACED}])${LETTER})+`, "gu");
const PART = /\p{Lu}+(?!\p{Ll})|\p{Lu}?\p{Ll}+|\p{N}+|\p{L}+/gu;
const WITHOUT_SPACES = new RegExp(`^[${UNSPACED}]`, "u");
const WITH_ENDINGS = /^[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Arabic}\p{N}\p{M}_]+$/u;
const WITH_ACCENTS = /^[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Hebrew}\p{Script=Arabic}][\p{L}\p{N}\p{M}]*$/u;
const ACCENT = /[\p{M}\u0640]/gu;
const UNSEEN = /[_\u200c\ufe0f\p{Emoji_Modifier}]|\u200d(?!\p{Extended_Pictographic})/gu;
const LONGEST_ENDING = 4;
const SHORTEST_STEM = 4;
const characters = new Intl.Segmenter(undefined, { granularity: "grapheme" });

// Return whether two words differ in their endings alone: "printers" and "printer", "failed" and "failing". Scripts whose words are not stemmed have no endings, and an emoji may be a part of another.
function akin(one, other) {
  if (one === other) return true;
  if (other.split("\u200d").includes(one)) return true;
  if (!WITH_ENDINGS.test(one) || !WITH_ENDINGS.test(other)) return false;
  const shorter = Math.min(one.length, other.length);
  let same = 0;
  while (same < shorter && one[same] === other[same]) same += 1;
  return same >= SHORTEST_STEM && Math.max(one.length, other.length) - same <= LONGEST_ENDING && shorter - same <= 3;
}

function pieces(words) {
  return words.flatMap((word) => word.match(WORD) || []).map(plain).filter(Boolean);
}

// Return a word without what makes no difference: its case, the underscores between the parts of a name, signs without width, and in some alphabets accents and points.
function plain(word) {
  const seen = word.normalize("NFKC").replace(UNSEEN, "").toLowerCase();
  return WITH_ACCENTS.test(seen) ? seen.normalize("NFKD").replace(ACCENT, "").replaceAll("ς", "σ") : seen;
}

// Return the words of a hit that are to be marked: as they stand in it, and those of the query that it has in another form.
export function markedWords(hit) {
  const shown = hit.highlights ?? [];
  const known = shown.map(plain);
  return [...shown, ...(hit.matched ?? []).filter((word) => !known.some((one) => one.includes(plain(word))))];
}

// Return [start, end] of each place in a text without spaces where one of these words stands, from the beginning of a character to the end of one. A character that is written in another form counts, such as half a width.
function inside(text, words) {
  let whole = "";
  const starts = new Map();
  for (const { segment, index } of characters.segment(text)) {
    starts.set(whole.length, index);
    whole += plain(segment);
  }
  starts.set(whole.length, text.length);
  const found = [];
  for (const word of words) {
    for (let at = whole.indexOf(word); at >= 0; at = whole.indexOf(word, at + 1)) {
      const [start, end] = [starts.get(at), starts.get(at + word.length)];
      if (start !== undefined && end !== undefined) found.push([start, end]);
    }
  }
  return found;
}

// Return places in order, those that overlap as one: each two neighbours of a text without spaces may be a word.
function united(places) {
  const found = [];
  for (const [start, end] of places.sort((one, other) => one[0] - other[0])) {
    const last = found.at(-1);
    if (last && start < last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}

// Return [start, end] of each word of the text that is a word of the query in some form, in order.
export function places(text, words) {
  const wanted = pieces(words);
  const unspaced = wanted.filter((word) => WITHOUT_SPACES.test(word));
  const parts = words.flatMap((word) => word.match(PART) || []).map((part) => part.toLowerCase());
  const found = [];
  if (!wanted.length) return found;
  for (const match of text.matchAll(WORD)) {
    const word = plain(match[0]);
    if (WITHOUT_SPACES.test(word)) {
      for (const [start, end] of inside(match[0], unspaced)) found.push([match.index + start, match.index + end]);
    } else if (wanted.some((one) => akin(one, word))) {
      found.push([match.index, match.index + match[0].length]);
    } else if (WITH_ENDINGS.test(match[0])) {
      for (const part of match[0].matchAll(PART)) {
        if (part[0] !== match[0] && parts.includes(part[0].toLowerCase())) {
          found.push([match.index + part.index, match.index + part.index + part[0].length]);
        }
      }
    }
  }
  return united(found);
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
