"""Sparse vectors by BM25: each word of a text is a dimension, and rare words count more.

The weight of a word in a chunk is BM25's term frequency part, with k = 1.2, b = 0.75 and an average length of 100 words
(Robertson and Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond, 2009). The store multiplies it by the
word's inverse document frequency when it searches. Qdrant's own code makes the vectors, so the dimension of a word is
the one that a server would compute.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.core.documents.text_languages import choose_language
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.core.settings.index import CODE, NO_LANGUAGE, split_languages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.core.settings import IndexSettings

DEFINES = "defines"
"""The beginning of a word that stands for the definition of a name."""

NAMED_BY = ("path", "qualified_name", "signature")
"""The payload fields by whose words a chunk of source code is found, beside its text."""

_NAME = re.compile(r"[^\W\d]\w*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""A run of capitals (`HTTP` of `HTTPServer`), a word with or without its capital, or digits."""
_MARKED = re.compile(
    "[\u00ad\u018f\u0300-\u06ff\u0750-\u077f\u08a0-\u08ff\u1ab0-\u1aff\u1dc0-\u1fff\u200c-\u200f\u2060\u20d0-\u20ff\ufeff]+"
)
"""Greek, Cyrillic, Hebrew and Arabic, whose accents and marks the engine leaves, as it leaves a large schwa, and what
combines with letters."""
_LATIN = re.compile("[\u00aa-\u02af\u1d00-\u1dbf\u1e00-\u1eff\u2100-\u218f\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f]")
_LETTER = re.compile(r"LATIN (?:[A-Z]+ )*?(?:LETTER|LIGATURE) (?:[A-Z]+ )*?([A-Z]{1,2})(?: WITH .*)?")
"""The name of a letter in Unicode, and the letters that it is made from."""
_LETTERS_LIKE = {
    "\u00df": "ss", "\u00fe": "th", "\u00f0": "d", "\u014b": "n", "\u0138": "q", "\u0259": "a",
}  # fmt: skip
"""Letters with a name of their own, as the engine folds them."""
_KEPT = re.compile("([\u0438\u0443\u0418\u0423])\u0306")
"""Short i and u of Cyrillic, which endings are made of."""
BM25_VERSION = 5
"""Raise it, and INDEX_VERSION, if the same text would get another sparse vector: no collection is asked for other words
than it has."""
BM25_K, BM25_B, AVERAGE_LENGTH = 1.2, 0.75, 100.0
"""A text of 400 characters has some 40 words that count. Taking such texts for shorter than average finds more once
meaning and words are added up. With the mean of each collection (19 to 68 words), words alone
found .007 and .010 more in two test collections, but searches by both less where texts are short (.987 to .985)."""
MAX_POINT_WORDS = 160
"""Distinct words of a query that count: of more, those that are long or repeated, since rare words are long."""
MAX_REMEMBERED = 64
"""Characters of a run without white space whose words are remembered."""
MAX_KNOWN_QUERIES, MAX_KNOWN_WORDS = 256, 50_000
"""Queries whose words are remembered, and words whose dimensions are: some 15 MB."""
MAX_HIGHLIGHTED = 4000
"""Characters of a text in which words of a query are marked."""
MAX_NAME = 200
"""Characters of a name by which a document is found as a whole."""
_SIGN = re.compile(r"[-._+#@$*A-Z](?:(?<=[+#@$*_])|(?<=\w[-.])(?=\w)|(?<=[\s(]\.)(?=\w)|(?<=[a-z][A-Z]))")
"""What tells a word that is more than letters: a sign, a dot or a dash inside, or a capital after a small letter."""
_WORD = re.compile(r"(?:(?<![\w.+#@$])[.#@$])?\w++(?:[-.']\w++)*+(?:[+#]++(?!\w)|\*(?![*\w]))?")
"""A word with its signs: `6.1.56`, `g++`, `.net`, `boundary-layer`."""
_SPELLED = {"+": "plus", "#": "sharp", "*": "star", ".": "dot", "@": "at", "$": "dollar"}
_SIGNS = "".join(_SPELLED)
_OPAQUE = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_HIRAGANA = "\u3041-\u309f"
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
UNSPACED = f"{_HAN}{_HIRAGANA}{_KATAKANA}"
"""The characters of scripts without spaces, as a class of characters has them."""
_UNSPACED = re.compile(f"[{_HAN}]+|[{_HIRAGANA}]+|[{_KATAKANA}]+")
"""A run of Han characters, Hiragana or Katakana: in Japanese, a word seldom goes on in another script."""
COMBINED = (
    "\u00ad\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u200c-\u200f\u2060\u20d0-\u20ff\ufeff"
)
"""What stands inside a word and is not to be seen: accents of their own, points, and signs without width."""
_STANDING = re.compile(_WORD.pattern.replace(r"\w++", rf"(?:\w[{COMBINED}]*+)++"))
"""A word with its signs as it stands in a text that is not folded."""
_FORM = re.compile(f"[{UNSPACED}]|" + _WORD.pattern.replace(r"\w++", rf"(?:[^\W{UNSPACED}][{COMBINED}]*+)++"))
"""A word with its signs, or a character of a text without spaces."""
_PARTICLE = re.compile(f"[{_HIRAGANA}]")
_LETTERS, _SPACE, _BETWEEN = re.compile(r"\w+"), re.compile(r"\s"), re.compile(r"[-._' ]")
_LETTERS_OF_NAME = re.compile(r"[^\W_]+|[+#]+")
_HUMP = re.compile(r"([a-z])([A-Z])")
_LETTER_WITH_SIGNS = re.compile(r"(?<![\w.+#@$])[^\W\d_](?:[+#]++(?!\w)|\*(?![*\w]))")
_LIKE_NAME = re.compile(
    r"[^\W\d].*\d|\w\w[._]\w\w|[a-z][A-Z]|[A-Z]{2}-\w|\w-[A-Z]{2}|\d{5}|\d\.\d+\.\d|\d{3}.*[A-Z]"
    r"|\d{3}-[a-z]\d*$|^(?!(?:1[5-9]|20)\d\d-)\d{3,}-\d{3,}$"
)
"""What looks like a name and is no word of a language: MBP-HAM805, 0x80070005, 2.4.1, plan_v2.xlsx, getUser, 100234."""
FIRST_NAME = 2**31
"""The dimensions of names begin here; those of words are below."""


def split_identifiers(text: str) -> str:
    """Return the text with each compound name replaced by the whole name and its parts.

    `JsonTreeReader` and `json_tree_reader` both become "jsontreereader json tree reader", so that each is found by the
    other and by its parts. Other text stays as it is.
    """
    return _NAME.sub(_spelled_out, text)


def split_unspaced(text: str, *, characters: bool = False) -> str:
    """Return the text with Chinese and Japanese in pairs of neighbouring characters, as words: whatever their language.

    No dictionary knows every name, and it may divide a query in other places than the text. With `characters`, each
    character is a word too, so that a query of one finds it. A single Hiragana is a particle or an ending, and no word.
    """

    def words(match: re.Match[str]) -> str:
        run = match[0]
        if len(run) == 1:
            return " " if _PARTICLE.fullmatch(run) else f" {run} "
        pairs = map("".join, pairwise(run))
        return f" {' '.join([*pairs, *run] if characters else pairs)} "

    return text if text.isascii() else _UNSPACED.sub(words, text)


def is_pair(word: str) -> bool:
    """Return whether a word of a query is two characters of a text without spaces."""
    return len(word) == 2 and _UNSPACED.fullmatch(word) is not None


def is_compound_name(text: str) -> bool:
    """Return whether a text is one name of several parts, such as `read_tree`."""
    name = text.strip()
    return name.isidentifier() and split_identifiers(name) != name


def names_of(payload: Mapping[str, Any]) -> str:
    """Return the path of a chunk of source code and the names of its symbol, a line each."""
    return "\n".join(str(payload[field]) for field in NAMED_BY if payload.get(field))


def key_words(document_id: str) -> str:
    """Return the words of a key by which its document is found, and all of them as one; "" if it is but a number."""
    if not re.search(r"[^\W\d_]{2}", document_id) or _OPAQUE.fullmatch(document_id):
        return ""
    words = re.findall(r"[^\W_]+", document_id)
    return " ".join([*words, "".join(words)] if len(words) > 1 else words)


def definitions(text: str) -> str:
    """Return a word for each name in the text that only the definition of that name has, not its uses. A query has such
    a word for each of its names, so that a definition is found before its uses."""
    return " ".join(DEFINES + "".join(_parts(match[0])).lower() for match in _NAME.finditer(text))


def without_accents(text: str) -> str:
    """Return a text with one form for letters that look alike; the engine leaves the accents of some alphabets."""
    return text if text.isascii() else _MARKED.sub(_without_marks, unicodedata.normalize("NFKC", text))


def folded(text: str) -> str:
    """Return a text in small letters as words are folded, by us and the engine, so that both find the same forms.

    folded("Hauptstra\u00dfe \u0141\u00f3d\u017a")  # "hauptstrasse lodz"
    """
    if text.isascii():
        return text.lower()
    return _LATIN.sub(lambda letter: _plain_letter(letter[0]), without_accents(text)).lower()


@lru_cache(maxsize=2048)
def _plain_letter(letter: str) -> str:
    """Return a letter of the Latin alphabet as it is written in ASCII; itself if it is not known."""
    plain = ""
    for sign in unicodedata.normalize("NFKD", letter):
        named = _LETTER.fullmatch(unicodedata.name(sign, ""))
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


def _spelled_out(match: re.Match[str]) -> str:
    parts = _parts(match[0])
    return f"{''.join(parts).lower()} {' '.join(parts)}" if len(parts) > 1 else parts[0]


def _parts(name: str) -> list[str]:
    parts = _PART.findall(name) if name.isascii() else [part for part in name.split("_") if part]
    return parts or [name]


def _with_compounds(text: str) -> str:
    """Return the text with a word more for each compound and each word with signs: `jsonDecode`, `6.1.56`, `g++`. A
    single letter with signs is no word without them: C is another language than C++."""
    extra, last = list[str](), 0
    for sign in _SIGN.finditer(text):
        if sign.start() >= last:
            begin = max(text.rfind(" ", 0, sign.start()), text.rfind("\n", 0, sign.start())) + 1
            last = end.start() if (end := _SPACE.search(text, sign.end())) else len(text)
            add = _added if last - begin <= MAX_REMEMBERED else _added.__wrapped__
            if more := add(text[begin:last]):
                extra.append(more)
    if not extra:
        return text
    if any(map(text.__contains__, "+#*")):  # the pattern alone takes as long as all else
        text = _LETTER_WITH_SIGNS.sub(" ", text)
    return f"{text} {' '.join(extra)}"


@lru_cache(maxsize=20_000)
def _added(run: str) -> str:
    """Return what a text gets for the words of a run of it: "" if the engine takes all of them as they stand."""
    added: list[str] = []
    for word in _WORD.findall(run):
        whole, parts = _compound(word)
        if parts or whole != word:
            added.append(f"{whole} {parts}" if _HUMP.search(word) else whole)
    return " ".join(added)


def _compound(word: str) -> tuple[str, str]:
    """Return a word as one of letters and digits, and its parts; no parts if it is not a compound. Numbers stay apart
    in it: 1.11 is not 11.1, and ORA-01018 is ora01018."""
    bare = word.strip(_SIGNS)
    if bare != word:  # as letters, which no stemmer and no tokenizer takes away
        return "".join(_SPELLED.get(one, one) for one in word), bare if len(bare) > 1 else ""
    parts = [part for part in _BETWEEN.split(_HUMP.sub(r"\1 \2", word)) if part]
    if len(parts) < 2:
        return word, ""
    if "'" in word:
        return " ".join(parts), ""
    whole = parts[0]
    for before, part in pairwise(parts):
        whole += f"x{part}" if before[-1].isdigit() and part[0].isdigit() else part
    return whole, " ".join(parts)


def letters(text: str) -> str:
    """Return a name in letters, digits and the signs of names alone, whatever its case and accents."""
    return "".join(_LETTERS_OF_NAME.findall(folded(text)))


def name_dimension(name: str) -> int | None:
    """Return the dimension of a name as a whole, such as a key or a title; None if it has no letters or is too long. It
    is above those of words. A document whose name is the query is found by it, however common the words are."""
    plain = letters(name) if len(name) <= MAX_NAME else ""
    return FIRST_NAME | int.from_bytes(blake2b(plain.encode(), digest_size=4).digest(), "big") if plain else None


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of a query: the dimensions of all of it and of its parts, if it is a compound, and how often it stands."""

    whole: frozenset[int]
    parts: frozenset[int] = frozenset()
    count: float = 1
    strict: bool = False
    """Whether texts that have the parts alone are not meant, as with CVE-2021-44228 and g++."""
    like_name: bool = False
    """Whether it looks like a name, as MBP-HAM805, 2.4.1 and plan_v2.xlsx do."""

    @property
    def dimensions(self) -> frozenset[int]:
        return self.whole | self.parts

    def known(self, having: Mapping[int, int]) -> frozenset[int]:
        """Return the dimensions that count where this many chunks have each of them."""
        return self.whole if self.strict and any(having.get(one) for one in self.whole) else self.dimensions

    def counting(self, count: float) -> QueryWord:
        """Return the same word, which counts as if it stood this often."""
        return replace(self, count=count)

    def is_in(self, found: set[int]) -> bool:
        """Return whether a text with these dimensions has the word."""
        return not self.whole.isdisjoint(found) or (bool(self.parts) and not self.strict and self.parts <= found)


@dataclass(frozen=True, slots=True)
class Bm25Model:
    """Everything that decides the sparse vector of a text. A collection records it in its metadata."""

    language: str
    identifiers: bool = False
    """Whether names of source code are taken apart: see `identifiers`."""
    version: int = BM25_VERSION

    @property
    def fingerprint(self) -> str:
        """Name the model: when it changes, the index has to be rebuilt."""
        return f"bm25-{self.version}-{self.language}{'-code' if self.identifiers else ''}"

    @classmethod
    def from_metadata(cls, recorded: Any) -> Bm25Model | None:
        """Return the recorded model; None if the collection has no sparse vectors, or ones of another version."""
        try:
            model = cls(**recorded)
        except TypeError:
            return None
        return model if model.version == BM25_VERSION else None


def bm25_model(index: IndexSettings) -> Bm25Model | None:
    """Return the model of an index, None if it is searched by meaning alone."""
    if index.search == "dense":
        return None
    return Bm25Model(index.language, identifiers=index.kind == CODE)


class Bm25Encoder:
    """A maker of sparse vectors, cheap to make: there is no model to load."""

    def __init__(self, model: Bm25Model) -> None:
        self.model, self._split = model, model.identifiers
        self.languages = split_languages(model.language)
        self._engines = [_engine(language) for language in self.languages]
        self.words = lru_cache(MAX_KNOWN_QUERIES)(self._words)
        self._known = lru_cache(MAX_KNOWN_WORDS)(self.dimensions)
        self._known_prepared = lru_cache(MAX_KNOWN_WORDS)(lambda word: self.dimensions(self._prepared(word)))
        self._known_form = lru_cache(MAX_KNOWN_WORDS)(self._form)

    def documents(
        self, texts: Iterable[str], languages: Iterable[str] = (), names: Sequence[Iterable[str]] = ()
    ) -> SparseVectors:
        """Return the sparse vector of each text; one without words gets an empty row.

        `languages` has the language of each text, as far as it is known. The words of the other texts tell it. `names`
        are those by which each text is found as a whole.
        """
        found = [
            self._engine_for(text, language).embed_document(self._prepared(text))
            for text, language in zip_longest(texts, languages, fillvalue="")
        ]
        indices, values = [vector.indices for vector in found], [vector.values for vector in found]
        for row, some in enumerate(names):
            own = sorted({one for name in some if (one := name_dimension(name)) is not None})
            indices[row], values[row] = [*indices[row], *own], [*values[row], *[1.0] * len(own)]
        return SparseVectors.from_lists(indices, values)

    def query(self, text: str) -> SparseVector:
        """Return the sparse vector of a query: how often it has each word, as each language has it. A few words do not
        tell their language, and a text that matches has them as its own language does."""
        counts = Counter[int]()
        for word in self.words(text).values():
            counts.update(dict.fromkeys(word.dimensions, word.count))
        return SparseVector(tuple(sorted(counts)), tuple(float(counts[one]) for one in sorted(counts)))

    def _words(self, query: str) -> Mapping[str, QueryWord]:
        """Return the words of a query that count, in order. Each step of a search needs them."""
        split = _LETTERS if self._split else _WORD
        counts = Counter(split.findall(split_unspaced(without_accents(query))))
        if len(counts) > MAX_POINT_WORDS:
            kept = set(sorted(counts, key=lambda word: -len(word) * counts[word])[:MAX_POINT_WORDS])
            counts = Counter({word: count for word, count in counts.items() if word in kept})
        words = {word: self._query_word(word, count) for word, count in counts.items()}
        return MappingProxyType({word: one for word, one in words.items() if one.dimensions})

    def matched(self, words: Mapping[str, QueryWord], texts: Iterable[str]) -> list[tuple[str, ...]]:
        """Return which of these words of a query each text has, in some form; of a compound, the whole of it."""
        found = (set(self._engine_for(one).embed_query(self._prepared(one)).indices) for one in texts)
        return [tuple(name for name, word in words.items() if word.is_in(own)) for own in found]

    def highlights(self, words: Mapping[str, QueryWord], text: str) -> tuple[str, ...]:
        """Return the words of a text, as they stand in it, that are words of a query in some form, each once.
        encoder.highlights(encoder.words("printer offline"), "Printers go offline")  # ("Printers", "offline")
        """
        text, split = text[:MAX_HIGHLIGHTED], _LETTERS if self._split else _STANDING
        wanted = frozenset[int]().union(*[word.dimensions for word in words.values()])
        found = [one for one in dict.fromkeys(split.findall(text)) if not wanted.isdisjoint(self._known_prepared(one))]
        if text.isascii():
            return tuple(found)
        spaced = [one for one in found if not _UNSPACED.search(one)]
        return (*spaced, *[word for word in words if _UNSPACED.search(word) and word in text])

    def forms(self, text: str) -> list[tuple[int, int, frozenset[int | str]]]:
        """Return where each word of a text begins and ends, and its dimensions.

        A word that no text is found by, such as IT in English, is itself; one without spaces is its characters.
        """
        return [(one.start(), one.end(), self._known_form(one[0])) for one in _FORM.finditer(text)]

    def _engine_for(self, text: str, language: str = "") -> e.Bm25:
        """Return the engine for the language of a text, which its words tell if it is none of the index's."""
        if len(self._engines) == 1:
            return self._engines[0]
        if language not in self.languages:
            language = choose_language(text, self.languages)
        return self._engines[self.languages.index(language)]

    def _prepared(self, text: str) -> str:
        text = split_identifiers(without_accents(text)) if self._split else _with_compounds(without_accents(text))
        return split_unspaced(text, characters=True)

    def dimensions(self, text: str) -> frozenset[int]:
        return frozenset(index for engine in self._engines for index in engine.embed_query(text).indices)

    def dimensions_of(self, words: Iterable[str]) -> dict[str, frozenset[int]]:
        return {word: self._known(word) for word in words}

    def _form(self, word: str) -> frozenset[int | str]:
        plain = without_accents(word)
        plain = plain[:-1] if plain.endswith("s") and plain[:-1].isupper() else plain  # MBPs; no stemmer knows them
        return self._query_word(plain, 1).whole or frozenset({plain if plain.isupper() else plain.lower()})

    def _query_word(self, word: str, count: int) -> QueryWord:
        if self._split:
            name, _, rest = split_identifiers(word).partition(" ")
            return QueryWord(self.dimensions(f"{name} {definitions(word)}"), self.dimensions(rest), count)
        whole, parts = _compound(word)
        strict = any(map(str.isdigit, word)) or word.strip(_SIGNS) != word
        like_name = _LIKE_NAME.search(word[:MAX_REMEMBERED]) is not None
        return QueryWord(self.dimensions(whole), self.dimensions(parts), count, bool(parts) and strict, like_name)


@lru_cache(maxsize=64)
def encoder_of(model: Bm25Model) -> Bm25Encoder:
    """Return the encoder of a model for all searches of this process, which remembers words that it has met."""
    return Bm25Encoder(model)


def leaves_out(language: str, word: str) -> bool:
    """Return whether a word is one that texts of a language are not found by: "the" in English, "der" in German."""
    return not _engine(language).embed_query(word).indices


@lru_cache(maxsize=64)
def _engine(language: str) -> e.Bm25:
    """Return Qdrant's encoder for a language. It never changes, and making one takes longer than encoding a query."""
    none = {"stemmer": e.DisabledStemmer(), "stopwords": e.StopwordsSet()}
    words: dict[str, Any] = none if language == NO_LANGUAGE else {"language": language}
    return e.Bm25(e.Bm25Config(k=BM25_K, b=BM25_B, avg_len=AVERAGE_LENGTH, ascii_folding=True, **words))
