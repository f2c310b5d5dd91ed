"""The languages of texts: names, codes, and which one a text is in, found by py3langid."""

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
LANGUAGE_CODES = {
    code: name
    for name, codes in LANGUAGE_NAMES.items()
    for code in re.findall(r"\b[a-z]{2}\b", codes)
}
LOCALE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]{2,4})?")
ENGLISH = re.compile(
    r"\b(?:the|and|of|to|is|are|was|for|with|that|this|not|has|have|on|in|it|be|by|from|as|at|an|we|you|or)\b"
)
WORDS_PER_FREQUENT = 12
"""One word of this many, or more, is one of `ENGLISH` in an English text."""
MIN_LANGUAGE_CHARS = 30
"""Shorter texts say too little about their language."""
MIN_LANGUAGE_SHARE = 0.08
"""A language of fewer texts does not count."""
MAX_TEXTS = 120
MAX_LANGUAGES = 4
_BETWEEN = re.compile(r"[-_.@ (,;:/|\[]")
"""What is between a language and the rest: `de-Latn-DE`, `de_DE.UTF-8`, `German (Austria)`,
`de,en;q=0.9`."""


def language_of(code: object) -> str | None:
    """Return the language of a code such as `de` or `de_AT`, or of its name; None if it is not
    known."""
    if (text := str(code).lower()) in LANGUAGE_NAMES:
        return text
    return LANGUAGE_CODES.get(text[:2]) if LOCALE.fullmatch(str(code)) else None


def language_named(value: object) -> str | None:
    """Return the language that a value of a database means: a code or a name in any case, with a
    country or a script beside it. None if it is not known.

    language_named("DE"), language_named("deu "), language_named("Deutsch"),
    language_named("de_DE.UTF-8")  # "german"
    """
    text = _plain(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    words = _BETWEEN.sub(" ", text).split()
    if not words:
        return None
    return (
        _BY_NAME.get(text)
        or _BY_NAME.get(words[0])
        or (_BY_NAME.get(words[-1]) if len(words[-1]) > 3 else None)
    )


def _plain(text: str) -> str:
    """Return a text without capitals and accents, and without what surrounds it."""
    parts = unicodedata.normalize("NFKD", text.strip().strip("\0\ufeff'\"").strip()).casefold()
    return unicodedata.normalize(
        "NFKC", "".join(sign for sign in parts if not unicodedata.combining(sign))
    )


_BY_NAME = {
    _plain(one): name for name, codes in LANGUAGE_NAMES.items() for one in (name, *codes.split())
}


def find_languages(texts: Sequence[str]) -> list[str]:
    """Return the languages of these texts that are frequent, the most frequent first; english if
    nothing tells it."""
    long = sorted({text for text in texts if len(text) >= MIN_LANGUAGE_CHARS})
    chosen = long[:: max(1, len(long) // MAX_TEXTS)][:MAX_TEXTS]
    doubtful = [text for text in chosen if not _looks_english(text)]
    if len(doubtful) < max(1, MIN_LANGUAGE_SHARE * len(chosen)):
        return ["english"]
    counts = Counter({"english": len(chosen) - len(doubtful)})
    counts.update(
        filter(None, (language_of(_identifier(()).classify(text)[0]) for text in doubtful))
    )
    found = [
        name
        for name, count in counts.most_common(MAX_LANGUAGES)
        if count >= max(2, MIN_LANGUAGE_SHARE * len(chosen))
    ]
    return found or ["english"]


def has_unknown_language(texts: Sequence[str]) -> bool:
    """Return whether most of these texts are in one language that `LANGUAGE_NAMES` lacks, such as
    Polish."""
    long = [text for text in texts if len(text) >= MIN_LANGUAGE_CHARS]
    codes = Counter(_identifier(()).classify(text)[0] for text in long if not _looks_english(text))
    return any(2 * count > len(long) and language_of(code) is None for code, count in codes.items())


def _looks_english(text: str) -> bool:
    """Return whether a text has as many of the frequent words of English as few texts in other
    languages do."""
    beginning = text[:600].lower()
    frequent = len(ENGLISH.findall(beginning)) * WORDS_PER_FREQUENT
    return beginning.isascii() and frequent >= len(beginning.split())


def choose_language(text: str, languages: tuple[str, ...]) -> str:
    """Return which one of these languages a text is in; the first if its words do not tell it."""
    found = language_of(_identifier(languages).classify(text)[0])
    return found if found in languages else languages[0]


@lru_cache(maxsize=16)
def _identifier(languages: tuple[str, ...]) -> Any:
    """Return the model, restricted to these languages if there are any. It takes a second or more
    to load."""
    from py3langid import langid

    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    codes = [
        code for code, name in LANGUAGE_CODES.items() if name in languages and code in found.labels
    ]
    if codes:
        found.set_languages(codes)
    return found
