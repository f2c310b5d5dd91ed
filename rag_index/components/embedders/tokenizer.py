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
        if not self.marks:
            return r"\w"
        return rf"[\w{self.marks}]"

    @property
    def letters(self) -> str:
        """Return the pattern of letters that stand together in one script, or in scripts with
        spaces."""
        if not self.marks:
            return r"\w++"
        return rf"(?:[^\W{UNSPACED}]++|[{self.marks}]++)++"

    @property
    def emoji_or(self) -> str:
        """Return what stands before the pattern of a word to find emojis, too."""
        return f"{_EMOJI}|" if self.marks else ""

    @property
    def unspaced_or(self) -> str:
        """Return what stands before a pattern to find runs without spaces and emojis, too."""
        return f"{_UNSPACED_OR_EMOJI}|" if self.marks else ""

    @property
    def alphanumeric(self) -> str:
        """Return the pattern of a letter, a digit or a mark."""
        if not self.marks:
            return r"[^\W_]"
        return rf"(?:[^\W_]|[{self.marks}])"

    @property
    def alphabetic(self) -> str:
        """Return the pattern of a letter or a mark."""
        if not self.marks:
            return r"[^\W\d_]"
        return rf"(?:[^\W\d_]|[{self.marks}])"

    def named(self, letters: str) -> str:
        """Return the pattern of a word with the signs that names have: before, between and behind
        its letters."""
        # ".net"
        before = rf"(?<![\w{self.marks}.+#@$])[.#@$]"
        # "can't", "boundary-layer"
        between = rf"[-.']{letters}"
        # "g++", "A*"
        behind = rf"[+#]++(?!{self.letter})|\*(?![*\w{self.marks}])"
        return f"(?:{before})?{letters}(?:{between})*+(?:{behind})?"


class TextPattern:
    """A pattern for simple texts, and one for all scripts, which takes milliseconds to make once a
    text needs it."""

    def __init__(self, source: Callable[[Signs], str]) -> None:
        self._source = source
        self._simple = re.compile(source(Signs()))

    def of(self, text: str) -> re.Pattern[str]:
        """Return the pattern for a text."""
        return self._simple if is_simple(text) else self._full

    def words_in(self, text: str) -> list[str]:
        """Return everything in a text that fits, in order."""
        return self.of(text).findall(text)

    @cached_property
    def _full(self) -> re.Pattern[str]:
        signs = Signs(marks())
        return re.compile(self._source(signs))


WORD = TextPattern(lambda signs: signs.emoji_or + signs.named(f"{signs.letter}++"))
"""A word of a text that is `divided`, with its signs: `6.1.56`, `g++`, `.net`, `boundary-layer`."""
LETTERS = TextPattern(lambda signs: f"{signs.emoji_or}{signs.letter}++")
"""A word without its signs; a run of a script without spaces, if the text is not divided."""
LETTERS_ALONE = TextPattern(lambda signs: f"{signs.alphabetic}++")
"""Letters without digits."""
_STANDING = TextPattern(lambda signs: signs.unspaced_or + signs.named(signs.letters))
"""A word as it stands in a text, with its signs, or a run of a script without spaces."""
_STANDING_ALONE = TextPattern(lambda signs: signs.unspaced_or + signs.letters)
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
    stacked = f"[{STACKED}][{UNSPACED}]"
    return rf"[{UNSPACED}](?:{stacked}|[{signs.marks}{AM}])*+"


class _Scripts:
    """Patterns of texts that are not simple, made once one is met."""

    def __init__(self) -> None:
        signs = Signs(marks())
        self.unseen = re.compile(f"[{LOOKS}]+|{WORD_END}(?<=[{UNSPACED}]{WORD_END})")
        """Looks, and what shows where a word of Khmer ends, which few texts have."""
        before_no_picture = f"(?<![{PICTURES}{FLAG_TAGS}]{JOINER})"
        self.joins_no_emojis = re.compile(f"{JOINER}(?:{before_no_picture}|(?![{PICTURES}]))")
        self.undivided = re.compile(_UNSPACED_OR_EMOJI)
        self.run = re.compile(_RUN)
        self.emoji = re.compile(_EMOJI)
        self.emoji_part = re.compile(_EMOJI_PART)
        self.sound = re.compile(f"[{SOUNDS}]")
        self.particle = re.compile(f"[{HIRAGANA}{REPEATED}]")
        self.character = re.compile(_character(signs))
        self.mark = re.compile(f"[{signs.marks}{AM}]")
        parts_of_emojis = f"{PICTURES}{FLAG_LETTERS}{FLAG_TAGS}{JOINER}"
        self.mark_or_emoji = re.compile(f"[{signs.marks}{parts_of_emojis}]")
        end_of_am = f"(?<=[{AM_SIGN}])[{AM_END}]|(?<=[{AM_SIGN}][{AM_TONES}])[{AM_END}]"
        piece = f"[{PICTURES}](?:[{attached()}{FLAG_TAGS}]|(?<={JOINER})[{PICTURES}])*+"
        piece += f"|.(?:[{attached()}]|{end_of_am})*+"
        self.piece = re.compile(piece, re.DOTALL)
        """What is normalized as one: an emoji, or a letter with all that belongs to it."""
        self.some_pieces = re.compile(f"(?:{piece}){{1,24}}", re.DOTALL)
        self.excludable = re.compile(rf"[{SYLLABLES}][{SYLLABLES}{signs.marks}]|{_EMOJI}")


@cache
def _scripts() -> _Scripts:
    return _Scripts()


class TextWord(NamedTuple):
    """A word of a text, normalized, and where it stands. In a text without spaces, each character
    is a word."""

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
    """Return whether a text has only letters of Latin, Greek, Cyrillic, Armenian and Hebrew, and
    their signs.

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
    seen = _scripts().unseen.sub("", composed)
    seen = _scripts().joins_no_emojis.sub("", seen)
    plain = _MARKED.sub(_without_marks, seen)
    plain = _REWRITTEN.sub(_rewritten, plain)
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
    words are pairs of neighbouring characters. A single Hiragana is a particle or an ending, and is
    left out.

    Args:
        characters: Whether each character is a word too, and each part of an emoji, so that a query
            of one finds it.
    """
    if is_simple(text):
        return text

    def words_of(match: re.Match[str]) -> str:
        emoji = match[1]
        if emoji:
            parts = emoji_parts(emoji) if characters else ()
            return f" {' '.join((emoji, *parts))} "
        run = characters_of(match[0])
        if len(run) == 1:
            return " " if _scripts().particle.fullmatch(match[0]) else f" {match[0]} "
        found = ["".join(pair) for pair in pairwise(run)]
        if characters:
            found += run
        return f" {' '.join(found)} "

    return _scripts().undivided.sub(words_of, text)


def words(text: str, *, signs: bool = True) -> list[TextWord]:
    """Return the words of a text in order, with their places. A text without spaces gives its
    characters.

    Without `signs`, a name is several words: `self.read_tree` is `self` and `read_tree`.
    """
    pattern = (_STANDING if signs else _STANDING_ALONE).of(text)
    if text.isascii():
        return [TextWord(match[0], match.start(), match.end()) for match in pattern.finditer(text)]
    aligned = _align(text)
    found = list[TextWord]()
    for match in pattern.finditer(aligned.text):
        start = match.start()
        if not is_unspaced(match[0]):
            found.append(_word_at(aligned, start, match.end()))
            continue
        for character in _scripts().character.finditer(match[0]):
            place = start + character.start()
            end = start + character.end()
            found.append(_word_at(aligned, place, end, joined=place > start))
    return found


def backwards(word: str) -> str:
    """Return a word with its characters in reverse order, each with its marks."""
    if word.isascii():
        return word[::-1]
    pieces = _scripts().piece.findall(word)
    return "".join(reversed(pieces))


def characters_of(text: str) -> list[str]:
    """Return the characters of a run without spaces, each with its marks."""
    if not _scripts().mark.search(text):
        return list(text)
    return _scripts().character.findall(text)


def is_pair(word: str) -> bool:
    """Return whether a word of a query is two characters of a text without spaces."""
    if is_simple(word) or not _scripts().run.fullmatch(word):
        return False
    return len(characters_of(word)) == 2


def is_pair_of_sounds(word: str) -> bool:
    """Return whether a word of a query is two characters of Thai, Lao, Khmer or Burmese, which
    write sounds."""
    if not is_pair(word):
        return False
    return _scripts().sound.match(word) is not None


def overlapped(pair: str, following: str) -> str:
    """Return the three characters of a pair and a following word that share one; "" if they share
    none."""
    before = characters_of(pair)
    after = characters_of(following)
    # "हिन्दी" has marks, and no character of a text without spaces
    if not after or before[-1] != after[0]:
        return ""
    return pair + after[-1]


def is_unspaced(word: str) -> bool:
    """Return whether a word, normalized or not, begins with a character of a script without
    spaces."""
    first = word[:1]
    if is_simple(first):
        return False
    return _scripts().run.match(normalized(first)) is not None


def is_mostly_unspaced(text: str) -> bool:
    """Return whether most letters of a text are of scripts without spaces."""
    if is_simple(text):
        return False
    plain = normalized(text)
    unspaced = sum(map(len, _scripts().run.findall(plain)))
    return 2 * unspaced > sum(map(len, LETTERS_ALONE.words_in(plain)))


def places(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where words, as a text has them, stand in it as words of their own, in order. Of two
    words that overlap, the longer counts."""
    found = list[tuple[int, int]]()
    for word in filter(None, words):
        start = text.find(word)
        while start >= 0:
            end = start + len(word)
            if _stands_alone(text, start, end):
                found.append((start, end))
            start = text.find(word, start + 1)
    found.sort(key=lambda place: (place[0], -place[1]))
    chosen = list[tuple[int, int]]()
    last = 0
    for start, end in found:
        if start >= last:
            chosen.append((start, end))
            last = end
    return chosen


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether a part of a text is neither a part of a word nor of a character."""
    after = text[end : end + 1]
    # its last letter has a mark more
    if after and after != WORD_END and is_attached(after):
        return False
    if is_unspaced(text[start]) or is_emoji(text[start:end]):
        return True
    before = text[start - 1 : start]
    if _is_spaced_letter(before):
        return False
    return not after or not _is_spaced_letter(after)


def _is_spaced_letter(sign: str) -> bool:
    """Return whether a sign is a letter, a digit or a mark of a script with spaces."""
    if not LETTERS.of(sign).match(sign):
        return False
    return not is_unspaced(sign) and not is_emoji(sign)


def emoji_parts(word: str) -> tuple[str, ...]:
    """Return the emojis that one is put together from; none for any other word."""
    if not is_emoji(word):
        return ()
    parts = _scripts().emoji_part.findall(word)
    return () if parts == [word] else tuple(parts)


def is_emoji(word: str) -> bool:
    """Return whether a normalized word is an emoji."""
    if is_simple(word):
        return False
    return _scripts().emoji.fullmatch(word) is not None


def is_excludable(word: str) -> bool:
    """Return whether a word after a minus is to be excluded: a shorter one may be an option, such
    as -v or -rf.

    An alphabet needs three letters, a script of syllables two characters, and an emoji is enough.
    """
    plain = normalized(word)
    if re.match(r"[^\W\d_]{3}", plain):
        return True
    if is_simple(plain):
        return False
    return _scripts().excludable.match(plain) is not None


def has_marks(text: str) -> bool:
    """Return whether a text has a sign that belongs to a word and is no letter: a mark, or a part
    of an emoji."""
    if text.isascii():
        return False
    return _scripts().mark_or_emoji.search(text) is not None


def _word_at(aligned: _Aligned, start: int, end: int, *, joined: bool = False) -> TextWord:
    first = aligned.starts[start]
    last = aligned.ends[end - 1]
    return TextWord(aligned.text[start:end], first, last, joined)


def _align(text: str) -> _Aligned:
    """Normalize a text, and record where its characters were.

    What is normalized together is a piece, such as a letter with its accents. Several pieces at
    once are faster.
    """
    plain = normalized(text)
    if plain == text:
        return _Aligned(text, range(len(text)), range(1, len(text) + 1))
    written, starts, ends = list[str](), list[int](), list[int]()
    for pieces in _scripts().some_pieces.finditer(text):
        begin, end = pieces.span()
        # none of them changes
        if normalized(pieces[0]) == pieces[0]:
            written.append(pieces[0])
            starts += range(begin, end)
            ends += range(begin + 1, end + 1)
            continue
        for piece in _scripts().piece.finditer(text, begin, end):
            own = normalized(piece[0])
            seen = len(piece[0].rstrip(WORD_END))
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
        like = sign if sign.isascii() else _LETTERS_LIKE.get(sign.lower())
        # "LATIN SMALL LETTER O WITH STROKE"
        named = _LATIN_NAME.fullmatch(unicodedata.name(sign, ""))
        if like:
            plain += like
        elif named:
            plain += named[1]
    return plain or letter


def _without_marks(match: re.Match[str]) -> str:
    """Return letters without accents, points and marks, and with one form of sigma: what combines
    is not to be seen."""
    apart = unicodedata.normalize("NFKD", match[0])
    apart = _KEPT.sub(lambda kept: unicodedata.normalize("NFC", kept[0]), apart)
    letters = [sign for sign in apart if unicodedata.category(sign) not in ("Mn", "Cf", "Lm")]
    return "".join(letters).lower().replace("ς", "σ")


def _rewritten(match: re.Match[str]) -> str:
    """Return a digit as that of ASCII, and a letter as the one that it is read as."""
    letter = _SAME.get(match[0])
    if letter:
        return letter
    return str(unicodedata.digit(match[0]))


def _with_am(match: re.Match[str]) -> str:
    """Return one letter, after its tone, for the two that NFKC and some keyboards make of a
    vowel."""
    sign, tone, _ = match.groups()
    return tone + AM[AM_SIGN.index(sign)]
