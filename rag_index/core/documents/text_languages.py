"""The languages of texts: their names and codes, and detection by py3langid."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

LANGUAGE_NAMES = {
    "arabic": "ar ara arb العربية arabisch arabe",
    "azerbaijani": "az aze azj azeri azərbaycan azərbaycanca azərbaycan_dili aserbaidschanisch",
    "basque": "eu eus baq euskara euskera baskisch",
    "bengali": "bn ben bangla বাংলা bengalisch",
    "catalan": "ca cat català valencian valencià katalanisch",
    "chinese": "zh zho chi cmn mandarin 中文 汉语 漢語 chinesisch chinois",
    "danish": "da dan dansk dänisch danois",
    "dutch": "nl nld dut nederlands flemish vlaams niederländisch néerlandais",
    "english": "en eng englisch anglais inglés inglese inglês engels engelsk engelska",
    "finnish": "fi fin suomi finnisch finnois",
    "french": "fr fra fre français französisch francés francese francês frans fransk",
    "german": "de deu ger deutsch allemand alemán tedesco alemão duits tysk tyska",
    "greek": "el ell gre ελληνικά griechisch grec",
    "hebrew": "he heb iw עברית hebräisch hébreu",
    "hungarian": "hu hun magyar ungarisch hongrois",
    "indonesian": "id ind in_id bahasa_indonesia bahasa indonesisch",
    "italian": "it ita italiano italienisch italien italiaans",
    "japanese": "ja jpn 日本語 japanisch japonais",
    "kazakh": "kk kaz қазақ қазақша қазақ_тілі kasachisch",
    "nepali": "ne nep नेपाली nepalesisch",
    "norwegian": "no nor nb nob nn nno norsk bokmål nynorsk norwegisch",
    "portuguese": "pt por português brazilian portugiesisch portugais portugués portoghese",
    "romanian": "ro ron rum română moldovan rumänisch roumain",
    "russian": "ru rus русский russisch russe ruso russo",
    "slovene": "sl slv slovenian slovenščina slowenisch",
    "spanish": "es spa español castellano castilian spanisch espagnol spagnolo espanhol spaans",
    "swedish": "sv swe svenska schwedisch suédois",
    "tajik": "tg tgk тоҷикӣ tadschikisch",
    "turkish": "tr tur türkçe türkisch turc turco",
}
"""The codes (ISO 639) and the names of each language, as databases have them."""


def _languages_by_code() -> dict[str, str]:
    by_code: dict[str, str] = {}
    for language, names in LANGUAGE_NAMES.items():
        for code in re.findall(r"\b[a-z]{2}\b", names):
            by_code[code] = language
    return by_code


LANGUAGE_CODES = _languages_by_code()
"""The language of each code of two letters."""
LOCALE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]{2,4})?")
"""A code of two letters, with a country or a script if there is one: `de`, `de_AT`, `zh-Hans`."""
ENGLISH = re.compile(
    r"\b(?:the|and|of|to|is|are|was|for|with|that|this|not|has|have|on|in|it|be|by|from|as|at|an|we|you|or)\b"
)
"""Frequent words of English."""
WORDS_PER_FREQUENT = 12
"""A text counts as English if at least one word in 12 is one of `ENGLISH`."""
MIN_LANGUAGE_CHARS = 30
"""Shorter texts, in characters, are not reliable."""
MIN_LANGUAGE_SHARE = 0.08
"""A language needs this share of the texts."""
MAX_TEXTS = 120
"""Texts that are classified at most, evenly spread. Chosen; bounds the time."""
MAX_LANGUAGES = 4
"""Languages of an index that are suggested at most. Chosen."""
_BETWEEN = re.compile(r"[-_.@ (,;:/|\[]")
"""The characters between a language and the rest: `de-Latn-DE`, `de_DE.UTF-8`, `German (Austria)`,
`de,en;q=0.9`."""


def language_of(code: object) -> str | None:
    """Return the language of a code such as `de` or `de_AT`, or of its English name; None if it is
    unknown."""
    text = str(code).lower()
    if text in LANGUAGE_NAMES:
        return text
    if not LOCALE.fullmatch(str(code)):
        return None
    return LANGUAGE_CODES.get(text[:2])


def language_named(value: object) -> str | None:
    """Return the language that a database value names: by a code or a name in any case, with or
    without a country or a script. None if it is unknown.

    Example:
        language_named("de_DE.UTF-8")  # "german"; so with "DE", "deu " and "Deutsch"
    """
    text = _plain(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    words = _BETWEEN.sub(" ", text).split()
    if not words:
        return None
    # Names of several words come first: azərbaycan_dili.
    for name in (text, words[0]):
        if name in _BY_NAME:
            return _BY_NAME[name]
    # "Swiss German". A short end may be a country, as in xx_DE.
    last = words[-1]
    return _BY_NAME.get(last) if len(last) > 3 else None


def _plain(text: str) -> str:
    """Return a text in small letters, without accents and surrounding quotes and spaces."""
    trimmed = text.strip().strip("\0\ufeff'\"").strip()
    decomposed = unicodedata.normalize("NFKD", trimmed).casefold()
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return unicodedata.normalize("NFKC", letters)


def _languages_by_name() -> dict[str, str]:
    by_name: dict[str, str] = {}
    for language, names in LANGUAGE_NAMES.items():
        for name in (language, *names.split()):
            by_name[_plain(name)] = language
    return by_name


_BY_NAME = _languages_by_name()
"""The language of each name and code, in the form of `_plain`."""


def find_languages(texts: Sequence[str]) -> list[str]:
    """Return the frequent languages of these texts, the most frequent first; english if there is
    none."""
    long = sorted({text for text in texts if len(text) >= MIN_LANGUAGE_CHARS})
    step = max(1, len(long) // MAX_TEXTS)
    chosen = long[::step][:MAX_TEXTS]
    doubtful = [text for text in chosen if not _looks_english(text)]
    # py3langid takes a second to load: it is not needed for an English index.
    if len(doubtful) < max(1, MIN_LANGUAGE_SHARE * len(chosen)):
        return ["english"]
    counts = Counter({"english": len(chosen) - len(doubtful)})
    for text in doubtful:
        language = language_of(_detected_code(text))
        if language is not None:
            counts[language] += 1
    least = max(2, MIN_LANGUAGE_SHARE * len(chosen))
    found = [name for name, count in counts.most_common(MAX_LANGUAGES) if count >= least]
    return found or ["english"]


def has_unknown_language(texts: Sequence[str]) -> bool:
    """Return whether most of these texts are in one language that `LANGUAGE_NAMES` lacks, such as
    Polish."""
    long = [text for text in texts if len(text) >= MIN_LANGUAGE_CHARS]
    codes = Counter(_detected_code(text) for text in long if not _looks_english(text))
    if not codes:
        return False
    code, count = codes.most_common(1)[0]
    return 2 * count > len(long) and language_of(code) is None


def _looks_english(text: str) -> bool:
    """Return whether a text has so many of the frequent words of English as few texts in other
    languages have."""
    beginning = text[:600].lower()
    if not beginning.isascii():
        return False
    frequent = len(ENGLISH.findall(beginning)) * WORDS_PER_FREQUENT
    return frequent >= len(beginning.split())


def choose_language(text: str, languages: tuple[str, ...]) -> str:
    """Return the language of a text, which is one of these; the first if detection fails."""
    found = language_of(_detected_code(text, languages))
    return found if found in languages else languages[0]


def _detected_code(text: str, languages: tuple[str, ...] = ()) -> str:
    """Return the code of the most probable language of a text, such as "de"."""
    code, _score = _identifier(languages).classify(text)
    return str(code)


@lru_cache(maxsize=16)
def _identifier(languages: tuple[str, ...]) -> Any:
    """Return the model, restricted to these languages if there are any. Loading takes a second or
    more."""
    from py3langid import langid

    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    codes = [
        code for code, name in LANGUAGE_CODES.items() if name in languages and code in found.labels
    ]
    if codes:
        found.set_languages(codes)
    return found
