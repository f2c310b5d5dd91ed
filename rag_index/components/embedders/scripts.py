"""Characters by what they are in words, as classes of characters of patterns: the scripts, marks
and emojis.

A script is listed here only if its words need care. Python's `\\w` knows the letters of all others.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA = "\u3041-\u309f"
KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
HANGUL = "\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb"
THAI = "\u0e01-\u0e3a\u0e40-\u0e4e"
LAO = "\u0e81-\u0ece\u0edc-\u0edf"
KHMER = "\u1780-\u17d3\u17d7\u17dc\u17dd"
BURMESE = "\u1000-\u103f\u1050-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"
SCRIPTS_WITHOUT_SPACES = (HAN, HIRAGANA, KATAKANA, HANGUL, THAI, LAO, KHMER, BURMESE)
UNSPACED = "".join(SCRIPTS_WITHOUT_SPACES)
"""The scripts that are found by pairs of characters. Korean has spaces, but also particles that
stand behind a noun without one."""
SOUNDS = f"{THAI}{LAO}{KHMER}{BURMESE}"
"""Those of them whose characters are sounds. In the others, two characters are often a word."""
SYLLABLES = f"\u0900-\u0dff\u0f00-\u0fff\u1200-\u139f{UNSPACED}"
"""Scripts in which two characters are as good as a short word of an alphabet."""

JOINER, WORD_END = "\u200d", "\u200b"
"""Signs without width: one joins letters, or makes one emoji of two; the other shows where a word
of Khmer ends."""
ACCENTED = (
    "\u00ad\u018f\u0300-\u06ff\u0750-\u077f\u08a0-\u08ff\u1ab0-\u1aff\u1dc0-\u1fff\u200c\u200e\u200f\u2060"
    "\u20d0-\u20ff\ufeff"
)
"""Greek, Cyrillic, Hebrew and Arabic, whose accents and marks the engine leaves, as it leaves a
large schwa, and what combines with letters and makes no difference."""
LOOKS = "\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001f3fb-\U0001f3ff\u180b-\u180f\u17b4\u17b5"
"""What chooses among the looks of a sign, as skin tones do, and two vowels that nobody sees."""
STACKED = "\u1039\u17d2"
"""What puts the next letter of Burmese and Khmer below the one before."""
REPEATED = "\u0e2f\u0e46\u0eaf\u0ec6\u17d7"
"""Signs of Thai, Lao and Khmer that repeat a word or cut it short."""
AM = "\u0e33\u0eb3"
"""A vowel of Thai and Lao, which is a letter in Unicode, and belongs to the character before it."""
AM_SIGN, AM_TONES, AM_END = "\u0e4d\u0ecd", "\u0e48-\u0e4b\u0ec8-\u0ecb", "\u0e32\u0eb2"
"""The two parts into which NFKC takes it, and the tones that stand between."""

PICTURES = (
    "\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3\u23f8-\u23fa\u25aa\u25ab\u25b6\u25c0"
    "\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728"
    "\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935"
    "\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\U0001f000-\U0001f0ff\U0001f170\U0001f171\U0001f17e\U0001f17f"
    "\U0001f18e\U0001f191-\U0001f19a\U0001f200-\U0001f3fa\U0001f400-\U0001faff\U0001fc00-\U0001fffd"
)
"""Extended_Pictographic of Unicode, but for © and ®, which stand at words, and for what NFKC writes
as letters and punctuation: ™, ℹ, Ⓜ, ‼, ⁉, ㊗ and ㊙."""
FLAG_LETTERS, FLAG_TAGS = "\U0001f1e6-\U0001f1ff", "\U000e0020-\U000e007f"
SIMPLE = (
    "\0-\u0148\u014a-\u02bb\u02bd-\u05ff\u1c80-\u1c8f\u1d00-\u2193\u2200-\u22ff\u2500-\u257f\u2c60-\u2c7f\ua720-\ua7ff"
    "\uab30-\uab6f\ufb00-\ufb4f"
)
"""Latin, Greek, Cyrillic, Armenian and Hebrew, and signs that are no words. Words of nothing else
need less care."""


@cache
def marks() -> str:
    """Return what combines with letters, and makes another word of them: the vowels of Devanagari,
    the tones of Thai. The result is the inside of a class of characters.

    Scripts beyond the first plane, which few people write today, are left out, since they would
    make each pattern three times as slow.
    """
    makes_no_difference = re.compile(f"[{ACCENTED}{LOOKS}]")
    found = [mark for mark in _all_marks() if not makes_no_difference.match(mark)]
    return _ranges(found)


@cache
def attached() -> str:
    """Return what is normalized together with the letter before it, as the inside of a class of
    characters."""
    return f"{_ranges(_all_marks())}{_ATTACHED}"


@cache
def _all_marks() -> list[str]:
    """Return all marks of the first plane, in order."""
    codes = chain(range(0x300, 0x3400), range(0xA000, 0xAC00), range(0xFB00, 0xFF00))
    return [sign for sign in map(chr, codes) if is_mark(sign)]


def is_mark(sign: str) -> bool:
    """Return whether a sign combines with the letter before it: an accent, a point, a vowel sign or
    a tone."""
    return unicodedata.category(sign) in ("Mn", "Mc")


def is_attached(sign: str) -> bool:
    """Return whether a sign is normalized together with the letter before it."""
    if _IS_ATTACHED.match(sign):
        return True
    return is_mark(sign)


def _ranges(signs: Sequence[str]) -> str:
    """Return signs in order as a class of characters has them: "a-cx-x" for a, b, c and x."""
    ranges = list[str]()
    start = before = ""
    for sign in signs:
        follows = before and ord(sign) == ord(before) + 1
        if not follows:
            if start:
                ranges.append(f"{start}-{before}")
            start = sign
        before = sign
    if start:
        ranges.append(f"{start}-{before}")
    return "".join(ranges)


_ATTACHED = f"{LOOKS}{AM}\u00ad{WORD_END}-\u200f\u2060\ufeff\uff9e\uff9f\u1160-\u11ff\ud7b0-\ud7fb"
"""Beside marks: signs without width, the voice of half-width Katakana, and parts of Korean
syllables."""
_IS_ATTACHED = re.compile(f"[{_ATTACHED}]")
