"""The words of texts, in every script. This module alone decides where a word begins and ends, and
what is one word.

Texts, queries, names, phrases, exclusions, highlights, soft match, spelling, synonyms and
calibration find words here, and the page marks them by the same rules (`marks.js`).
docs/retrieval.md lists the scripts.

1. `normalized` writes what makes no difference in one form: wide letters, accents and points of
   some alphabets, digits, apostrophes, signs without width, and skin tones.
2. **A word** is a run of letters, digits and `MARKS`, with the signs of names such as `g++`. In
   scripts like Devanagari the vowels are such marks, which `\\w` leaves out.
3. **A text without spaces** (`UNSPACED`) has no words that a program could find without a
   dictionary. Its words are pairs of neighbouring characters. A character is a letter with its
   marks.
4. **An emoji** is a word. One that is put together from others is a word, too, and they are its
  parts.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from rag_index.components.embedders.scripts import (
    ACCENTED,
    AM,
    AM_END,
    AM_SIGN,
    AM_TONES,
    FLAG_LETTERS,
    FLAG_TAGS,
    HIRAGANA,
    JOINER,
    LOOKS,
    PICTURES,
    REPEATED,
    SCRIPTS_WITHOUT_SPACES,
    SIMPLE,
    SOUNDS,
    STACKED,
    SYLLABLES,
    UNSPACED,
    WORD_END,
    attached,
    is_attached,
    marks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOT_SIMPLE = re.compile(f"[^{SIMPLE}]")
_MARKED, _MARKED_OR_JOINED = re.compile(f"[{ACCENTED}]+"), re.compile(f"[{ACCENTED}{JOINER}]+")
_KEPT = re.compile("([\u0438\u0443\u0418\u0423])\u0306")
"""Short i and u of Cyrillic, which endings are made of."""
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
"""Letters that are written as others: an apostrophe, and consonants of Bengali and Malayalam
without a vowel, which older texts write with a joiner."""
_REWRITTEN = re.compile(rf"[^\D0-9]|[{''.join(_SAME)}]")
_AM_TAKEN_APART = re.compile(f"([{AM_SIGN}])([{AM_TONES}]*)([{AM_END}])")
_LATIN = re.compile(
    "[\u00aa-\u02af\u1d00-\u1dbf\u1e00-\u1eff\u2100-\u218f\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f]"
)
_LATIN_NAME = re.compile(
    r"LATIN (?:[A-Z]+ )*?(?:LETTER|LIGATURE) (?:[A-Z]+ )*?([A-Z]{1,2})(?: WITH .*)?"
)
"""The name of a letter in Unicode, and the letters that it is made from."""
_LETTERS_LIKE = {
    "\u00df": "ss",
    "\u00fe": "th",
    "\u00f0": "d",
    "\u014b": "n",
    "\u0138": "q",
    "\u0259": "a",
}
"""Letters with a name of their own, as the engine folds them."""

_PICTURE = f"[{PICTURES}][{FLAG_TAGS}]*+"
_EMOJI = f"[{FLAG_LETTERS}]{{2}}|{_PICTURE}(?:{JOINER}{_PICTURE})*+"
"""A flag, a picture, or several that are joined: a woman and a computer are a programmer."""
_EMOJI_PART = f"[{FLAG_LETTERS}]{{2}}|[{PICTURES}]"
_RUN = "|".join(f"[{script}]+" for script in SCRIPTS_WITHOUT_SPACES)
"""A run of one script without spaces: in Japanese, a word seldom goes on in another script."""
_UNSPACED_OR_EMOJI = f"(?=[{UNSPACED}{PICTURES}{FLAG_LETTERS}])(?:({_EMOJI})|{_RUN})"
"""Both begin with few characters: patterns with all of these alone are slow."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What patterns of words are made of: with `marks`, in all scripts, and without, in simple
    texts."""

    marks: str = ""
    """What belongs to words although `\\w` leaves it out, as a class of characters has it."""

    @property
    def letter(self) -> str:
        return rf"[\w{self.marks}]" if self.marks else r"\w"

    @property
    def letters(self) -> str:
        """Return the pattern of letters that stand together in one script, or in scripts with
        spaces."""
        return rf"(?:[^\W{UNSPACED}]++|[{self.marks}]++)++" if self.marks else r"\w++"

    @property
    def emoji_or(self) -> str:
        """Return what stands before the pattern of a word to find emojis, too."""
        return f"{_EMOJI}|" if self.marks else ""

    @property
    def alphanumeric(self) -> str:
        """Return the pattern of a letter, a digit or a mark."""
        return rf"(?:[^\W_]|[{self.marks}])" if self.marks else r"[^\W_]"

    @property
    def alphabetic(self) -> str:
        """Return the pattern of a letter or a mark."""
        return rf"(?:[^\W\d_]|[{self.marks}])" if self.marks else r"[^\W\d_]"

    def named(self, letters: str) -> str:
        """Return the pattern of a word with the signs that names have: before, between and behind
        its letters."""
        before = rf"(?<![\w{self.marks}.+#@$])[.#@$]"
        behind = rf"[+#]++(?!{self.letter})|\*(?![*\w{self.marks}])"
        return f"(?:{before})?{letters}(?:[-.']{letters})*+(?:{behind})?"


class TextPattern:
    """A pattern for simple texts, and one for all scripts, which takes milliseconds to make once a
    text needs it."""

    def __init__(self, source: Callable[[Signs], str]) -> None:
        self._source, self._simple = source, re.compile(source(Signs()))

    def of(self, text: str) -> re.Pattern[str]:
        """Return the pattern for a text."""
        return self._simple if is_simple(text) else self._full

    def words_in(self, text: str) -> list[str]:
        """Return everything in a text that fits, in order."""
        return self.of(text).findall(text)

    @cached_property
    def _full(self) -> re.Pattern[str]:
        return re.compile(self._source(Signs(marks())))


WORD = TextPattern(lambda signs: signs.emoji_or + signs.named(f"{signs.letter}++"))
"""A word of a text that is `divided`, with its signs: `6.1.56`, `g++`, `.net`, `boundary-layer`."""
LETTERS = TextPattern(lambda signs: f"{signs.emoji_or}{signs.letter}++")
"""A word without its signs; a run of a script without spaces, if the text is not divided."""
LETTERS_ALONE = TextPattern(lambda signs: f"{signs.alphabetic}++")
"""Letters without digits."""
_STANDING = TextPattern(
    lambda signs: (f"{_UNSPACED_OR_EMOJI}|" if signs.marks else "") + signs.named(signs.letters)
)
"""A word as it stands in a text, with its signs, or a run of a script without spaces."""
_STANDING_ALONE = TextPattern(
    lambda signs: (f"{_UNSPACED_OR_EMOJI}|" if signs.marks else "") + signs.letters
)
OF_PHRASES = TextPattern(
    lambda signs: (
        (f"{_EMOJI_PART}|{_character(signs)}|" if signs.marks else "") + f"{signs.letters}[+#]*+"
    )
)
"""A word as phrases are compared. A name is several words, so that its dashes make no difference. A
text without spaces is its characters and an emoji its parts, so that a phrase may begin anywhere in
it."""
SAMPLED = TextPattern(
    lambda signs: (
        rf"(?:{_character(signs)}){{2,4}}|(?:[^\W\d_]|[{signs.marks}\u200c{JOINER}]){{3,}}"
        if signs.marks
        else r"[^\W\d_]{3,}"
    )
)
"""A word that a person could search for, as a text has it: of three letters, or a few
characters."""


def _character(signs: Signs) -> str:
    """Return the pattern of a character of a text without spaces, with its marks."""
    return rf"[{UNSPACED}](?:[{STACKED}][{UNSPACED}]|[{signs.marks}{AM}])*+"


class _Scripts:
    """Patterns of texts that are not simple, made once one is met."""

    def __init__(self) -> None:
        signs = Signs(marks())
        self.unseen = re.compile(f"[{LOOKS}]+|{WORD_END}(?<=[{UNSPACED}]{WORD_END})")
        """Looks, and what shows where a word of Khmer ends, which few texts have."""
        self.joins_no_emojis = re.compile(
            f"{JOINER}(?:(?<![{PICTURES}{FLAG_TAGS}]{JOINER})|(?![{PICTURES}]))"
        )
        self.undivided = re.compile(_UNSPACED_OR_EMOJI)
        self.run, self.emoji, self.emoji_part = (
            re.compile(_RUN),
            re.compile(_EMOJI),
            re.compile(_EMOJI_PART),
        )
        self.sound, self.particle = re.compile(f"[{SOUNDS}]"), re.compile(f"[{HIRAGANA}{REPEATED}]")
        self.character, self.mark = (
            re.compile(_character(signs)),
            re.compile(f"[{signs.marks}{AM}]"),
        )
        self.mark_or_emoji = re.compile(
            f"[{signs.marks}{PICTURES}{FLAG_LETTERS}{FLAG_TAGS}{JOINER}]"
        )
        end_of_am = f"(?<=[{AM_SIGN}])[{AM_END}]|(?<=[{AM_SIGN}][{AM_TONES}])[{AM_END}]"
        piece = f"[{PICTURES}](?:[{attached()}{FLAG_TAGS}]|(?<={JOINER})[{PICTURES}])*+"
        piece += f"|.(?:[{attached()}]|{end_of_am})*+"
        self.piece, self.some_pieces = (
            re.compile(one, re.DOTALL) for one in (piece, f"(?:{piece}){{1,24}}")
        )
        """What is normalized as one, an emoji or a letter with all that belongs to it; and some of
        them."""
        self.excludable = re.compile(rf"[{SYLLABLES}][{SYLLABLES}{signs.marks}]|{_EMOJI}")


@cache
def _scripts() -> _Scripts:
    return _Scripts()


class TextWord(NamedTuple):
    """A word of a text, normalized, and where it stands; of a text without spaces, a character."""

    text: str
    start: int
    end: int
    joined: bool = False
    """Whether it is a character that follows another one of its script, with which it is a pair."""


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A normalized text, with the beginning and the end of each of its characters in the text that
    was given."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def is_simple(text: str) -> bool:
    """Return whether a text has nothing but letters of Latin, Greek, Cyrillic, Armenian and Hebrew
    and their signs.

    Words of such a text need less care, and most texts are so.
    """
    return text.isascii() or _NOT_SIMPLE.search(text) is None


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
    seen = _scripts().joins_no_emojis.sub("", _scripts().unseen.sub("", composed))
    plain = _REWRITTEN.sub(_rewritten, _MARKED.sub(_without_marks, seen))
    return _AM_TAKEN_APART.sub(_with_am, plain)


def folded(text: str) -> str:
    """Return a text in small letters as words are folded, by us and the engine, so that both find
    the same forms.

    folded("Hauptstra\u00dfe \u0141\u00f3d\u017a")  # "hauptstrasse lodz"
    """
    if text.isascii():
        return text.lower()
    return _LATIN.sub(lambda letter: _plain_letter(letter[0]), normalized(text)).lower()


def divided(text: str, *, characters: bool = False) -> str:
    """Return a normalized text with spaces around each word of a text without spaces, and around
    each emoji.

    No dictionary knows every name, and it may divide a query in other places than the text. So the
    words are pairs of neighbouring characters. With `characters`, each character is a word too, and
    so is each part of an emoji, so that a query of one finds it. A single Hiragana is a particle or
    an ending, and no word.
    """
    if is_simple(text):
        return text

    def words_of(match: re.Match[str]) -> str:
        if match[1]:
            parts = emoji_parts(match[1]) if characters else ()
            return f" {' '.join((match[1], *parts))} "
        run = characters_of(match[0])
        if len(run) == 1:
            return " " if _scripts().particle.fullmatch(match[0]) else f" {match[0]} "
        pairs = map("".join, pairwise(run))
        return f" {' '.join([*pairs, *run] if characters else pairs)} "

    return _scripts().undivided.sub(words_of, text)


def words(text: str, *, signs: bool = True) -> list[TextWord]:
    """Return the words of a text in order, with their places. A text without spaces gives its
    characters.

    Without `signs`, a name is several words: `self.read_tree` is `self` and `read_tree`.
    """
    pattern = (_STANDING if signs else _STANDING_ALONE).of(text)
    if text.isascii():
        return [TextWord(match[0], match.start(), match.end()) for match in pattern.finditer(text)]
    aligned, found = _align(text), list[TextWord]()
    for match in pattern.finditer(aligned.text):
        if not is_unspaced(match[0]):
            found.append(_word_at(aligned, match.start(), match.end()))
            continue
        for character in _scripts().character.finditer(match[0]):
            place = match.start() + character.start()
            found.append(
                _word_at(
                    aligned, place, match.start() + character.end(), joined=place > match.start()
                )
            )
    return found


def backwards(word: str) -> str:
    """Return a word with its characters in reverse order, each with its marks."""
    return word[::-1] if word.isascii() else "".join(reversed(_scripts().piece.findall(word)))


def characters_of(text: str) -> list[str]:
    """Return the characters of a run without spaces, each with its marks."""
    return _scripts().character.findall(text) if _scripts().mark.search(text) else list(text)


def is_pair(word: str) -> bool:
    """Return whether a word of a query is two characters of a text without spaces."""
    return (
        not is_simple(word)
        and bool(_scripts().run.fullmatch(word))
        and len(characters_of(word)) == 2
    )


def is_pair_of_sounds(word: str) -> bool:
    """Return whether a word of a query is two characters of Thai, Lao, Khmer or Burmese, which
    write sounds."""
    return is_pair(word) and _scripts().sound.match(word) is not None


def overlapped(pair: str, following: str) -> str:
    """Return three characters of which these are the first and the last pair; "" if they are
    none."""
    before, after = characters_of(pair), characters_of(following)
    return pair + after[-1] if before[-1] == after[0] else ""


def is_unspaced(word: str) -> bool:
    """Return whether a word, normalized or not, begins with a character of a script without
    spaces."""
    return not is_simple(word[:1]) and _scripts().run.match(normalized(word[:1])) is not None


def is_mostly_unspaced(text: str) -> bool:
    """Return whether most letters of a text are of scripts without spaces."""
    if is_simple(text):
        return False
    plain = normalized(text)
    unspaced = sum(map(len, _scripts().run.findall(plain)))
    return 2 * unspaced > sum(map(len, LETTERS_ALONE.words_in(plain)))


def places(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where words, as a text has them, stand in it as words of their own, in order; of two
    there, the longer."""
    found = list[tuple[int, int]]()
    for word in filter(None, words):
        start = text.find(word)
        while start >= 0:
            if _stands_alone(text, start, start + len(word)):
                found.append((start, start + len(word)))
            start = text.find(word, start + 1)
    chosen, last = list[tuple[int, int]](), 0
    for start, end in sorted(found, key=lambda place: (place[0], -place[1])):
        if start >= last:
            chosen.append((start, end))
            last = end
    return chosen


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether a part of a text is neither a part of a word nor of a character."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if after and after != WORD_END and is_attached(after):
        return False  # its last letter has a mark more
    if is_unspaced(text[start]) or is_emoji(text[start:end]):
        return True
    return not (_is_spaced_letter(before) or (after and _is_spaced_letter(after)))


def _is_spaced_letter(sign: str) -> bool:
    """Return whether a sign is a letter, a digit or a mark of a script with spaces."""
    return bool(LETTERS.of(sign).match(sign)) and not is_unspaced(sign) and not is_emoji(sign)


def emoji_parts(word: str) -> tuple[str, ...]:
    """Return the emojis that one is put together from; none for any other word."""
    if not is_emoji(word):
        return ()
    parts = _scripts().emoji_part.findall(word)
    return () if parts == [word] else tuple(parts)


def is_emoji(word: str) -> bool:
    """Return whether a normalized word is an emoji."""
    return not is_simple(word) and _scripts().emoji.fullmatch(word) is not None


def is_excludable(word: str) -> bool:
    """Return whether a word after a minus is to be excluded: a shorter one may be an option, such
    as -v or -rf.

    An alphabet needs three letters, a script of syllables two characters, and an emoji is enough.
    """
    plain = normalized(word)
    return re.match(r"[^\W\d_]{3}", plain) is not None or (
        not is_simple(plain) and _scripts().excludable.match(plain) is not None
    )


def has_marks(text: str) -> bool:
    """Return whether a text has a sign that belongs to a word and is no letter: a mark, or a part
    of an emoji."""
    return not text.isascii() and _scripts().mark_or_emoji.search(text) is not None


def _word_at(aligned: _Aligned, start: int, end: int, *, joined: bool = False) -> TextWord:
    return TextWord(aligned.text[start:end], aligned.starts[start], aligned.ends[end - 1], joined)


def _align(text: str) -> _Aligned:
    """Normalize a text, and remember where its characters were.

    What is normalized together is a piece, such as a letter with its accents; some pieces at once
    are faster.
    """
    plain = normalized(text)
    if plain == text:
        return _Aligned(text, range(len(text)), range(1, len(text) + 1))
    written, starts, ends = list[str](), list[int](), list[int]()
    for some in _scripts().some_pieces.finditer(text):
        if normalized(some[0]) == some[0]:
            written.append(some[0])
            starts += range(some.start(), some.end())
            ends += range(some.start() + 1, some.end() + 1)
            continue
        for piece in _scripts().piece.finditer(text, some.start(), some.end()):
            own, seen = normalized(piece[0]), len(piece[0].rstrip(WORD_END))
            written.append(own)
            starts += [piece.start()] * len(own)
            ends += [piece.start() + seen] * len(own)
    return _Aligned("".join(written), starts, ends)


@lru_cache(maxsize=2048)
def _plain_letter(letter: str) -> str:
    """Return a letter of the Latin alphabet as it is written in ASCII; itself if it is not
    known."""
    plain = ""
    for sign in unicodedata.normalize("NFKD", letter):
        named = _LATIN_NAME.fullmatch(unicodedata.name(sign, ""))
        plain += (
            sign
            if sign.isascii()
            else _LETTERS_LIKE.get(sign.lower()) or (named[1] if named else "")
        )
    return plain or letter


def _without_marks(match: re.Match[str]) -> str:
    """Return letters without accents, points and marks, and with one form of sigma: what combines
    is not to be seen."""
    parts = _KEPT.sub(
        lambda kept: unicodedata.normalize("NFC", kept[0]), unicodedata.normalize("NFKD", match[0])
    )
    return (
        "".join(sign for sign in parts if unicodedata.category(sign) not in ("Mn", "Cf", "Lm"))
        .lower()
        .replace("ς", "σ")
    )


def _rewritten(match: re.Match[str]) -> str:
    """Return a digit as that of ASCII, and a letter as the one that it is read as."""
    return _SAME.get(match[0]) or str(unicodedata.digit(match[0]))


def _with_am(match: re.Match[str]) -> str:
    """Return one letter, after its tone, for the two that NFKC and some keyboards make of a
    vowel."""
    return f"{match[2]}{AM[AM_SIGN.index(match[1])]}"
