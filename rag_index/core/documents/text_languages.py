"""The languages of texts: names, codes, and which one a text is in, found by py3langid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

LANGUAGE_CODES = {
    "ar": "arabic", "az": "azerbaijani", "eu": "basque", "bn": "bengali", "ca": "catalan", "zh": "chinese",
    "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish", "fr": "french", "de": "german", "el": "greek",
    "he": "hebrew", "hu": "hungarian", "id": "indonesian", "it": "italian", "ja": "japanese", "kk": "kazakh",
    "ne": "nepali", "nb": "norwegian", "nn": "norwegian", "no": "norwegian", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sl": "slovene", "es": "spanish", "sv": "swedish", "tg": "tajik", "tr": "turkish",
}  # fmt: skip
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


def language_of(code: object) -> str | None:
    """Return the language of a code such as `de` or `de_AT`, or of its name; None if it is not known."""
    text = str(code).lower()
    return (
        text
        if text in LANGUAGE_CODES.values()
        else LANGUAGE_CODES.get(text[:2])
        if LOCALE.fullmatch(str(code))
        else None
    )


def find_languages(texts: Sequence[str]) -> list[str]:
    """Return the languages of these texts that are frequent, the most frequent first; english if nothing tells it."""
    long = sorted({text for text in texts if len(text) >= MIN_LANGUAGE_CHARS})
    chosen = long[:: max(1, len(long) // MAX_TEXTS)][:MAX_TEXTS]
    doubtful = []
    for text in chosen:  # English if it has as many of its frequent words as few texts in other languages do
        beginning = text[:600].lower()
        frequent = len(ENGLISH.findall(beginning)) * WORDS_PER_FREQUENT
        if not beginning.isascii() or frequent < len(beginning.split()):
            doubtful.append(text)
    if len(doubtful) < max(1, MIN_LANGUAGE_SHARE * len(chosen)):
        return ["english"]
    counts = Counter({"english": len(chosen) - len(doubtful)})
    counts.update(filter(None, (language_of(_identifier(()).classify(text)[0]) for text in doubtful)))
    found = [
        name for name, count in counts.most_common(MAX_LANGUAGES) if count >= max(2, MIN_LANGUAGE_SHARE * len(chosen))
    ]
    return found or ["english"]


def choose_language(text: str, languages: tuple[str, ...]) -> str:
    """Return which one of these languages a text is in; the first if its words do not tell it."""
    found = language_of(_identifier(languages).classify(text)[0])
    return found if found in languages else languages[0]


@lru_cache(maxsize=16)
def _identifier(languages: tuple[str, ...]) -> Any:
    """Return the model, restricted to these languages if there are any. It takes a second or more to load."""
    from py3langid import langid

    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    codes = [code for code, name in LANGUAGE_CODES.items() if name in languages and code in found.labels]
    if codes:
        found.set_languages(codes)
    return found
