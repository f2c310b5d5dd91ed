"""The words of texts, in every script. This module alone decides where a word begins and ends, and what is one word.

Texts, queries, names, phrases, exclusions, highlights, soft match, spelling, synonyms and calibration find words here,
and the page marks them by the same rules (`marks.js`). docs/retrieval.md lists the scripts.

1. `normalized` writes what makes no difference in one form: wide letters, accents and points of some alphabets, digits,
   apostrophes, signs without width, and skin tones.
2. **A word** is a run of letters, digits and `MARKS`, with the signs of names such as `g++`. In scripts like Devanagari
   the vowels are such marks, which `\\w` leaves out.
3. **A text without spaces** (`UNSPACED`) has no words that a program could find without a dictionary. Its words are
   pairs of neighbouring characters. A character is a letter with its marks.
4. **An emoji** is a word. One that is put together from others is a word, too, and they are its parts.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from rag_index.components.embedders.scripts import (
    ACCENTED,
    AM,
    AM_END,
    AM_SIGN,
    AM_TONES,
    ATTACHED,
    FLAG_LETTERS,
    FLAG_TAGS,
    HIRAGANA,
    JOINER,
    LOOKS,
    MARKS,
    PICTURES,
    REPEATED,
    SCRIPTS_WITHOUT_SPACES,
    SOUNDS,
    STACKED,
    SYLLABLES,
    UNSPACED,
    WORD_END,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# Patterns of texts that are not normalized

_OTHER = re.compile(
    "[^\0-\u0148\u014a-\u02bb\u02bd-\u05ff\u1c80-\u1c8f\u1d00-\u2193\u2200-\u22ff\u2500-\u257f\u2c60-\u2c7f\ua720-\ua7ff"
    "\uab30-\uab6f\ufb00-\ufb4f]"
)
"""What no text has that is written in Latin, Greek, Cyrillic, Armenian or Hebrew letters alone."""
_MARKED, _MARKED_OR_JOINED = re.compile(f"[{ACCENTED}]+"), re.compile(f"[{ACCENTED}{JOINER}]+")
_KEPT = re.compile("([\u0438\u0443\u0418\u0423])\u0306")
"""Short i and u of Cyrillic, which endings are made of."""
_UNSEEN = re.compile(f"[{LOOKS}]+|{WORD_END}(?<=[{UNSPACED}]{WORD_END})")
"""Looks, and what shows where a word of Khmer ends, which few texts have."""
_JOINS_NO_EMOJIS = re.compile(f"{JOINER}(?:(?<![{PICTURES}{FLAG_TAGS}]{JOINER})|(?![{PICTURES}]))")
_SAME = {
    "\u02bc": "'",
    "\u09ce": "\u09a4\u09cd",
    "\u0d54": "\u0d2e\u0d4d",
    "\u0d55": "\u0d2f\u0d4d",
    "\u0d56": "\u0d34\u0d4d",
    "\u0d7a": "\u0d23\u0d4d",
    "\u0d7b": "\u0d28\u0d4d",
    "\u0d7c": "\u0d30\u0d4d",
    "\u0d7d": "\u0d32\u0d4d",
    "\u0d7e": "\u0d33\u0d4d",
    "\u0d7f": "\u0d15\u0d4d",
}
"""Letters that are written as others: an apostrophe, and consonants of Bengali and Malayalam without a vowel, which
older texts write with a joiner."""
_REWRITTEN = re.compile(rf"[^\D0-9]|[{''.join(_SAME)}]")
_AM_TAKEN_APART = re.compile(f"([{AM_SIGN}])([{AM_TONES}]*)([{AM_END}])")
_LATIN = re.compile("[\u00aa-\u02af\u1d00-\u1dbf\u1e00-\u1eff\u2100-\u218f\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f]")
_LATIN_NAME = re.compile(r"LATIN (?:[A-Z]+ )*?(?:LETTER|LIGATURE) (?:[A-Z]+ )*?([A-Z]{1,2})(?: WITH .*)?")
"""The name of a letter in Unicode, and the letters that it is made from."""
_LETTERS_LIKE = {"\u00df": "ss", "\u00fe": "th", "\u00f0": "d", "\u014b": "n", "\u0138": "q", "\u0259": "a"}
"""Letters with a name of their own, as the engine folds them."""
_END_OF_AM = f"(?<=[{AM_SIGN}])[{AM_END}]|(?<=[{AM_SIGN}][{AM_TONES}])[{AM_END}]"
_PIECE = rf"[{PICTURES}](?:[{ATTACHED}{FLAG_TAGS}]|(?<={JOINER})[{PICTURES}])*+|.(?:[{ATTACHED}]|{_END_OF_AM})*+"
"""What is normalized as one: an emoji, or a letter with all that belongs to it."""
_PIECES, _SOME_PIECES = re.compile(_PIECE, re.DOTALL), re.compile(f"(?:{_PIECE}){{1,24}}", re.DOTALL)

# Patterns of normalized texts

_PICTURE = f"[{PICTURES}][{FLAG_TAGS}]*+"
EMOJI = f"[{FLAG_LETTERS}]{{2}}|{_PICTURE}(?:{JOINER}{_PICTURE})*+"
"""A flag, a picture, or several that are joined: a woman and a computer are a programmer."""
_EMOJI_PART = f"[{FLAG_LETTERS}]{{2}}|[{PICTURES}]"
LETTER = rf"[\w{MARKS}]"
_SPACED = rf"(?:[^\W{UNSPACED}]++|[{MARKS}]++)++"
"""Letters of a word that stands between spaces, or between characters of another script."""
_CHARACTER = rf"[{UNSPACED}](?:[{STACKED}][{UNSPACED}]|[{MARKS}{AM}])*+"
_RUN = "|".join(f"[{script}]+" for script in SCRIPTS_WITHOUT_SPACES)
"""A run of one script without spaces: in Japanese, a word seldom goes on in another script."""
_UNSPACED_OR_EMOJI = f"(?=[{UNSPACED}{PICTURES}{FLAG_LETTERS}])(?:({EMOJI})|{_RUN})"
"""Both begin with few characters: patterns with all of these alone are slow."""


def _with_signs(letters: str) -> str:
    """Return the pattern of a word of these letters with the signs that names have: before, between and behind them."""
    before, behind = rf"(?<![\w{MARKS}.+#@$])[.#@$]", rf"[+#]++(?!{LETTER})|\*(?![*\w{MARKS}])"
    return f"(?:{before})?{letters}(?:[-.']{letters})*+(?:{behind})?"


WORD = re.compile(f"{EMOJI}|{_with_signs(f'{LETTER}++')}")
"""A word of a text that is `divided`, with its signs: `6.1.56`, `g++`, `.net`, `boundary-layer`."""
LETTERS = re.compile(f"{EMOJI}|{LETTER}++")
"""A word without its signs; a run of a script without spaces, if the text is not divided."""
LETTERS_ALONE = re.compile(rf"(?:[^\W\d_]|[{MARKS}])++")
"""Letters without digits."""
_STANDING, _STANDING_ALONE = (re.compile(f"{_UNSPACED_OR_EMOJI}|{word}") for word in (_with_signs(_SPACED), _SPACED))
"""A word as it stands in a text, with its signs and without, or a run of a script without spaces."""
_ASCII, _ASCII_ALONE = re.compile(_with_signs(r"\w++")), re.compile(r"\w++")
_OF_PHRASES, _OF_SIMPLE_PHRASES = re.compile(f"{_EMOJI_PART}|{_CHARACTER}|{_SPACED}[+#]*+"), re.compile(r"\w++[+#]*+")
_SAMPLED = re.compile(rf"(?:{_CHARACTER}){{2,4}}|(?:[^\W\d_]|[{MARKS}\u200c{JOINER}]){{3,}}")
_EXCLUDABLE = re.compile(rf"[^\W\d_]{{3}}|[{SYLLABLES}][{SYLLABLES}{MARKS}]|{EMOJI}")
_UNDIVIDED, _CHARACTERS, _EMOJI_PARTS = re.compile(_UNSPACED_OR_EMOJI), re.compile(_CHARACTER), re.compile(_EMOJI_PART)
_IS_EMOJI, _IS_RUN, _IS_SOUND = re.compile(EMOJI), re.compile(_RUN), re.compile(f"[{SOUNDS}]")
_IS_PARTICLE = re.compile(f"[{HIRAGANA}{REPEATED}]")
_MARK, _MARK_OR_EMOJI = (
    re.compile(f"[{MARKS}{AM}]"),
    re.compile(f"[{MARKS}{PICTURES}{FLAG_LETTERS}{FLAG_TAGS}{JOINER}]"),
)


class TextWord(NamedTuple):
    """A word of a text, normalized, and where it stands; of a text without spaces, a character."""

    text: str
    start: int
    end: int
    joined: bool = False
    """Whether it is a character that follows another one of its script, with which it is a pair."""


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A normalized text, with the beginning and the end of each of its characters in the text that was given."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def is_simple(text: str) -> bool:
    """Return whether a text has nothing but letters of Latin, Greek, Cyrillic, Armenian and Hebrew and their signs.

    Words of such a text need less care, and most texts are so.
    """
    return text.isascii() or _OTHER.search(text) is None


def normalized(text: str) -> str:
    """Return a text with one form for what makes no difference, whose words can be found.

    normalized("३४ ﬁles, can\u02bct")  # "34 files, can't"
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFKC", text)
    if is_simple(text):
        return _MARKED_OR_JOINED.sub(_without_marks, composed)
    # the joiner of emojis is seen once nothing stands between it and them
    seen = _JOINS_NO_EMOJIS.sub("", _UNSEEN.sub("", composed))
    plain = _REWRITTEN.sub(_rewritten, _MARKED.sub(_without_marks, seen))
    return _AM_TAKEN_APART.sub(_with_am, plain)


def folded(text: str) -> str:
    """Return a text in small letters as words are folded, by us and the engine, so that both find the same forms.

    folded("Hauptstra\u00dfe \u0141\u00f3d\u017a")  # "hauptstrasse lodz"
    """
    if text.isascii():
        return text.lower()
    return _LATIN.sub(lambda letter: _plain_letter(letter[0]), normalized(text)).lower()


def divided(text: str, *, characters: bool = False) -> str:
    """Return a normalized text with spaces around each word of a text without spaces, and around each emoji.

    No dictionary knows every name, and it may divide a query in other places than the text. So the words are pairs of
    neighbouring characters. With `characters`, each character is a word too, and so is each part of an emoji, so that a
    query of one finds it. A single Hiragana is a particle or an ending, and no word.
    """
    if is_simple(text):
        return text

    def words_of(match: re.Match[str]) -> str:
        if match[1]:
            parts = emoji_parts(match[1]) if characters else ()
            return f" {' '.join((match[1], *parts))} "
        run = characters_of(match[0])
        if len(run) == 1:
            return " " if _IS_PARTICLE.fullmatch(match[0]) else f" {match[0]} "
        pairs = map("".join, pairwise(run))
        return f" {' '.join([*pairs, *run] if characters else pairs)} "

    return _UNDIVIDED.sub(words_of, text)


def words(text: str, *, signs: bool = True) -> list[TextWord]:
    """Return the words of a text in order, with their places. A text without spaces gives its characters.

    Without `signs`, a name is several words: `self.read_tree` is `self` and `read_tree`.
    """
    if text.isascii():
        simple = (_ASCII if signs else _ASCII_ALONE).finditer(text)
        return [TextWord(match[0], match.start(), match.end()) for match in simple]
    aligned, found = _align(text), list[TextWord]()
    for match in (_STANDING if signs else _STANDING_ALONE).finditer(aligned.text):
        if not _IS_RUN.match(match[0]):
            found.append(_word_at(aligned, match.start(), match.end()))
            continue
        for character in _CHARACTERS.finditer(match[0]):
            place = match.start() + character.start()
            found.append(_word_at(aligned, place, match.start() + character.end(), joined=place > match.start()))
    return found


def words_of_phrases(text: str) -> list[str]:
    """Return the words of a normalized text as phrases are compared.

    A name is several words, so that its dashes make no difference. A text without spaces is its characters and an emoji
    its parts, so that a phrase may begin anywhere in it.
    """
    return (_OF_SIMPLE_PHRASES if is_simple(text) else _OF_PHRASES).findall(text)


def runs(text: str) -> list[str]:
    """Return the runs of letters and digits in a normalized text, and the emojis; not divided if it has no spaces."""
    return (_ASCII_ALONE if is_simple(text) else LETTERS).findall(text)


def sample_words(text: str) -> list[str]:
    """Return words of a text, as it has them, that a person could search for: of three letters, or a few characters."""
    return _SAMPLED.findall(text)


def backwards(word: str) -> str:
    """Return a word with its characters in reverse order, each with its marks."""
    return "".join(reversed(_PIECES.findall(word)))


def characters_of(text: str) -> list[str]:
    """Return the characters of a run without spaces, each with its marks."""
    return _CHARACTERS.findall(text) if _MARK.search(text) else list(text)


def is_pair(word: str) -> bool:
    """Return whether a word of a query is two characters of a text without spaces."""
    return _IS_RUN.fullmatch(word) is not None and len(characters_of(word)) == 2


def is_pair_of_sounds(word: str) -> bool:
    """Return whether a word of a query is two characters of Thai, Lao, Khmer or Burmese, which write sounds."""
    return _IS_SOUND.match(word) is not None and is_pair(word)


def overlapped(pair: str, following: str) -> str:
    """Return three characters of which these are the first and the last pair; "" if they are none."""
    before, after = characters_of(pair), characters_of(following)
    return pair + after[-1] if before[-1] == after[0] else ""


def is_unspaced(word: str) -> bool:
    """Return whether a word, normalized or not, begins with a character of a script without spaces."""
    return _IS_RUN.match(normalized(word[:1])) is not None


def is_mostly_unspaced(text: str) -> bool:
    """Return whether most letters of a text are of scripts without spaces."""
    if is_simple(text):
        return False
    plain = normalized(text)
    unspaced = sum(map(len, _IS_RUN.findall(plain)))
    return 2 * unspaced > sum(map(len, LETTERS_ALONE.findall(plain)))


def standing(words: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds words, as a text has them, where each is a word of its own; None without words.

    A word of a text without spaces may stand anywhere, but no word ends before the marks of its last letter.
    """
    found = list[str]()
    for word in sorted(words, key=lambda word: -len(word)):
        alone = not (is_unspaced(word) or _IS_EMOJI.match(word))
        before, behind = (rf"(?<![^\W{UNSPACED}])(?<![{MARKS}])", rf"(?![^\W{UNSPACED}])") if alone else ("", "")
        found.append(f"{before}{re.escape(word)}{behind}(?!(?!\u200b)[{ATTACHED}])")
    return re.compile("|".join(found)) if found else None


def emoji_parts(word: str) -> tuple[str, ...]:
    """Return the emojis that one is put together from; none for any other word."""
    if not _IS_EMOJI.fullmatch(word):
        return ()
    parts = _EMOJI_PARTS.findall(word)
    return () if parts == [word] else tuple(parts)


def is_excludable(word: str) -> bool:
    """Return whether a word after a minus is to be excluded: a shorter one may be an option, such as -v or -rf.

    An alphabet needs three letters, a script of syllables two characters, and an emoji is enough.
    """
    return _EXCLUDABLE.match(normalized(word)) is not None


def has_marks(text: str) -> bool:
    """Return whether a text has a sign that belongs to a word and is no letter: a mark, or a part of an emoji."""
    return not text.isascii() and _MARK_OR_EMOJI.search(text) is not None


def _word_at(aligned: _Aligned, start: int, end: int, *, joined: bool = False) -> TextWord:
    return TextWord(aligned.text[start:end], aligned.starts[start], aligned.ends[end - 1], joined)


def _align(text: str) -> _Aligned:
    """Normalize a text, and remember where its characters were.

    What is normalized together is a piece, such as a letter with its accents; some pieces at once are faster.
    """
    plain = normalized(text)
    if plain == text:
        return _Aligned(text, range(len(text)), range(1, len(text) + 1))
    written, starts, ends = list[str](), list[int](), list[int]()
    for some in _SOME_PIECES.finditer(text):
        if normalized(some[0]) == some[0]:
            written.append(some[0])
            starts += range(some.start(), some.end())
            ends += range(some.start() + 1, some.end() + 1)
            continue
        for piece in _PIECES.finditer(text, some.start(), some.end()):
            own = normalized(piece[0])
            written.append(own)
            starts += [piece.start()] * len(own)
            seen = len(piece[0].rstrip("\u200b"))
            ends += [piece.start() + seen] * len(own)
    return _Aligned("".join(written), starts, ends)


@lru_cache(maxsize=2048)
def _plain_letter(letter: str) -> str:
    """Return a letter of the Latin alphabet as it is written in ASCII; itself if it is not known."""
    plain = ""
    for sign in unicodedata.normalize("NFKD", letter):
        named = _LATIN_NAME.fullmatch(unicodedata.name(sign, ""))
        plain += sign if sign.isascii() else _LETTERS_LIKE.get(sign.lower()) or (named[1] if named else "")
    return plain or letter


def _without_marks(match: re.Match[str]) -> str:
    """Return letters without accents, points and marks, and with one form of sigma: what combines is not to be seen."""
    parts = _KEPT.sub(lambda kept: unicodedata.normalize("NFC", kept[0]), unicodedata.normalize("NFKD", match[0]))
    return (
        "".join(sign for sign in parts if unicodedata.category(sign) not in ("Mn", "Cf", "Lm"))
        .lower()
        .replace("ς", "σ")
    )


def _rewritten(match: re.Match[str]) -> str:
    """Return a digit as that of ASCII, and a letter as the one that it is read as."""
    return _SAME.get(match[0]) or str(unicodedata.digit(match[0]))


def _with_am(match: re.Match[str]) -> str:
    """Return one letter, after its tone, for the two that NFKC and some keyboards make of a vowel."""
    return f"{match[2]}{AM[AM_SIGN.index(match[1])]}"
