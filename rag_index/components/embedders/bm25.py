"""Sparse vectors by BM25: each word of a text is a dimension, and rare words count more.

The weight of a word in a chunk is BM25's term frequency part, with k = 1.2, b = 0.75 and an average
length of 100 words (Robertson and Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond,
2009). The store multiplies it by the word's inverse document frequency when it searches. Qdrant's
own code makes the vectors, so the dimension of a word is the one that a server would compute.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, groupby, pairwise, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.components.embedders.tokenizer import (
    LETTERS,
    WORD,
    TextPattern,
    divided,
    emoji_parts,
    folded,
    has_marks,
    is_pair_of_sounds,
    is_simple,
    normalized,
    overlapped,
)
from rag_index.components.embedders.tokenizer import words as text_words
from rag_index.core.documents.text_languages import choose_language
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.core.settings.index import CODE, NO_LANGUAGE, split_languages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.components.embedders.tokenizer import TextWord
    from rag_index.core.settings import IndexSettings

DEFINES = "defines"
"""The beginning of a word that stands for the definition of a name."""

NAMED_BY = ("path", "qualified_name", "signature")
"""The payload fields by whose words a chunk of source code is found, beside its text."""

_NAME = TextPattern(lambda signs: rf"[^\W\d]{signs.letter}*+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""A run of capitals (`HTTP` of `HTTPServer`), a word with or without its capital, or digits."""
BM25_VERSION = 6
"""Raise it, and INDEX_VERSION, if the same text would get another sparse vector: a query with other
words than a collection was made with would not find them."""
BM25_K, BM25_B, AVERAGE_LENGTH = 1.2, 0.75, 100.0
"""A text of 400 characters has some 40 words that count. Taking such texts for shorter than average
finds more once meaning and words are added up. With the mean of each collection (19 to 68 words),
words alone found .007 and .010 more in two test collections, but searches by both less where texts
are short (.987 to .985)."""
MAX_POINT_WORDS = 160
"""The most distinct words of a query that count (chosen). Of more, those that are long or repeated
count, since rare words are long."""
MAX_REMEMBERED = 64
"""The most characters of a run without white space whose words are cached (chosen)."""
MAX_KNOWN_QUERIES, MAX_KNOWN_WORDS = 256, 50_000
"""The numbers of queries whose words are cached, and of words whose dimensions are: some 15 MB."""
MAX_HIGHLIGHTED = 4000
"""The characters of a text in which words of a query are highlighted (chosen)."""
MAX_NAME = 200
"""The most characters of a name by which a document is found (chosen)."""
_SIGN = TextPattern(
    lambda signs: (
        rf"[-._+#@$*A-Z](?:(?<=[+#@$*_])|(?<={signs.letter}[-.])(?={signs.letter})"
        rf"|(?<=[\s(]\.)(?={signs.letter})|(?<=[a-z][A-Z]))"
    )
)
"""What shows that a word is more than letters: a sign, a dot or a dash inside, or a capital after a
small letter."""
_SPELLED = {"+": "plus", "#": "sharp", "*": "star", ".": "dot", "@": "at", "$": "dollar"}
_SIGNS = "".join(_SPELLED)
_OPAQUE = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_SPACE, _BETWEEN = re.compile(r"\s"), re.compile(r"[-._' ]")
_LETTERS_OF_NAME = TextPattern(lambda signs: f"{signs.emoji_or}{signs.alphanumeric}++|[+#]++")
_LETTERS_OF_KEY = TextPattern(lambda signs: f"{signs.alphanumeric}++")
_TWO_LETTERS = TextPattern(lambda signs: rf"[^\W\d_]{signs.alphabetic}")
_HUMP = re.compile(r"([a-z])([A-Z])")
_LETTER_WITH_SIGNS = TextPattern(
    lambda signs: (
        rf"(?<![\w{signs.marks}.+#@$])[^\W\d_](?:[+#]++(?!{signs.letter})|\*(?![*\w{signs.marks}]))"
    )
)
FIRST_NAME = 2**31
"""The dimensions of names begin here; those of words are below."""


def split_identifiers(text: str) -> str:
    """Return the text with each compound name replaced by the complete name and its parts.

    `JsonTreeReader` and `json_tree_reader` both become "jsontreereader json tree reader", so that
    each is found by the other and by its parts. Other text stays as it is.
    """
    return _NAME.of(text).sub(_spelled_out, text)


def is_compound_name(text: str) -> bool:
    """Return whether a text is one name of several parts, such as `read_tree`."""
    name = text.strip()
    return name.isidentifier() and split_identifiers(name) != name


def names_of(payload: Mapping[str, Any]) -> str:
    """Return the path of a chunk of source code and the names of its symbol, a line each."""
    lines = [str(payload[field]) for field in NAMED_BY if payload.get(field)]
    return "\n".join(lines)


def key_words(document_id: str) -> str:
    """Return the words of a key by which its document is found, and all of them as one; "" if it is
    only a number."""
    key = document_id if is_simple(document_id) else normalized(document_id)
    has_letters = _TWO_LETTERS.of(key).search(key) is not None
    # "6f1f3c9e-…", a UUID, is not searched for
    if not has_letters or _OPAQUE.fullmatch(key):
        return ""
    words = _LETTERS_OF_KEY.of(key).findall(key)
    if len(words) > 1:
        words.append("".join(words))
    return " ".join(words)


def definitions(text: str) -> str:
    """Return a word for each name in the text that only the definition of that name has, not its
    uses. A query has such a word for each of its names, so that a definition is found before its
    uses."""
    plain = text if is_simple(text) else normalized(text)
    found = list[str]()
    for name in _NAME.of(plain).findall(plain):
        found.append(DEFINES + "".join(_parts(name)).lower())
    return " ".join(found)


def _spelled_out(match: re.Match[str]) -> str:
    parts = _parts(match[0])
    if len(parts) == 1:
        return parts[0]
    joined = "".join(parts).lower()
    return f"{joined} {' '.join(parts)}"


def _parts(name: str) -> list[str]:
    """Return the parts of a name: those of `readTree`, or of `read_tree`."""
    parts = [part for part in name.split("_") if part]
    if name.isascii():
        parts = _PART.findall(name)
    return parts or [name]


def _with_compounds(text: str) -> str:
    """Return the text with a word more for each compound and each word with signs: `jsonDecode`,
    `6.1.56`, `g++`. A single letter with signs is no word without them: C is another language than
    C++."""
    extra = list[str]()
    last = 0
    for sign in _SIGN.of(text).finditer(text):
        start = sign.start()
        # another sign of the same run
        if start < last:
            continue
        begin = max(text.rfind(" ", 0, start), text.rfind("\n", 0, start)) + 1
        end = _SPACE.search(text, sign.end())
        last = end.start() if end else len(text)
        add = _added if last - begin <= MAX_REMEMBERED else _added.__wrapped__
        more = add(text[begin:last])
        if more:
            extra.append(more)
    if not extra:
        return text
    # the pattern alone takes as long as all else
    if "+" in text or "#" in text or "*" in text:
        text = _LETTER_WITH_SIGNS.of(text).sub(" ", text)
    return f"{text} {' '.join(extra)}"


@lru_cache(maxsize=20_000)
def _added(run: str) -> str:
    """Return what a text gets for the words of a run of it: "" if the engine takes all of them as
    they stand."""
    added: list[str] = []
    for word in WORD.of(run).findall(run):
        joined, parts = _compound(word)
        if not parts and joined == word:
            continue
        # the engine divides `6.1.56` by itself, and not `jsonDecode`
        added.append(f"{joined} {parts}" if _HUMP.search(word) else joined)
    return " ".join(added)


def _compound(word: str) -> tuple[str, str]:
    """Return a word as one of letters and digits, and its parts; no parts if it is not a compound.
    Numbers stay apart in it: 1.11 is not 11.1, and ORA-01018 is ora01018."""
    if pictures := emoji_parts(word):
        return word, " ".join(pictures)
    bare = word.strip(_SIGNS)
    # "c++", as letters, which no stemmer and no tokenizer takes away
    if bare != word:
        spelled = "".join(_SPELLED.get(sign, sign) for sign in word)
        return spelled, bare if len(bare) > 1 else ""
    with_spaces = _HUMP.sub(r"\1 \2", word)
    parts = [part for part in _BETWEEN.split(with_spaces) if part]
    if len(parts) < 2:
        return word, ""
    # "can't"
    if "'" in word:
        return " ".join(parts), ""
    joined = parts[0]
    for before, part in pairwise(parts):
        are_numbers = before[-1].isdigit() and part[0].isdigit()
        joined += f"x{part}" if are_numbers else part
    return joined, " ".join(parts)


def letters(text: str) -> str:
    """Return a name in letters, digits and the signs of names alone, whatever its case and
    accents."""
    plain = folded(text)
    name = ""
    for part in _LETTERS_OF_NAME.of(plain).findall(plain):
        # 10.0.6 is another name than 1006
        is_between_numbers = name[-1:].isdigit() and part[0].isdigit()
        name += f"x{part}" if is_between_numbers else part
    return name


def name_dimension(name: str) -> int | None:
    """Return the dimension of a complete name, such as a key or a title; None if it has no letters
    or is too long.

    It is above those of words. A document whose name is the query is found by it, however common
    the words are.
    """
    plain = letters(name) if len(name) <= MAX_NAME else ""
    if not plain:
        return None
    digest = blake2b(plain.encode(), digest_size=4).digest()
    return FIRST_NAME | int.from_bytes(digest, "big")


def _name_dimensions(names: Iterable[str]) -> list[int]:
    """Return the dimensions of names in order, each once."""
    found = set[int]()
    for name in names:
        dimension = name_dimension(name)
        if dimension is not None:
            found.add(dimension)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of a query."""

    full: frozenset[int]
    """The dimensions of the complete word."""
    parts: frozenset[int] = frozenset()
    """The dimensions of its parts, if it is a compound."""
    count: float = 1
    """How often the query has it."""
    strict: bool = False
    """Whether texts that have the parts alone do not have the word, as with CVE-2021-44228 and
    g++."""

    @property
    def dimensions(self) -> frozenset[int]:
        return self.full | self.parts

    def known(self, having: Mapping[int, int]) -> frozenset[int]:
        """Return the dimensions that count where this many chunks have each of them."""
        if self.strict and any(having.get(dimension) for dimension in self.full):
            return self.full
        return self.dimensions

    def counting(self, count: float) -> QueryWord:
        """Return the same word, which counts as if it stood this often."""
        return replace(self, count=count)

    def is_in(self, found: set[int]) -> bool:
        """Return whether a text with these dimensions has the word."""
        if not self.full.isdisjoint(found):
            return True
        # "boundary layer" has the parts of "boundary-layer"
        if self.strict or not self.parts:
            return False
        return self.parts <= found


@dataclass(frozen=True, slots=True)
class Bm25Model:
    """Everything that decides the sparse vector of a text. A collection records it in its
    metadata."""

    language: str
    identifiers: bool = False
    """Whether names of source code are taken apart: see `identifiers`."""
    version: int = BM25_VERSION

    @property
    def fingerprint(self) -> str:
        """Name the model: when it changes, the index has to be rebuilt."""
        kind = "-code" if self.identifiers else ""
        return f"bm25-{self.version}-{self.language}{kind}"

    @classmethod
    def from_metadata(cls, recorded: Any) -> Bm25Model | None:
        """Return the recorded model; None if the collection has no sparse vectors, or ones of
        another version."""
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
        self.model = model
        self._split = model.identifiers
        self.languages = split_languages(model.language)
        self._engines = [_engine(language) for language in self.languages]
        self.words = lru_cache(MAX_KNOWN_QUERIES)(self._words)
        self._known = lru_cache(MAX_KNOWN_WORDS)(self.dimensions)
        self._known_prepared = lru_cache(MAX_KNOWN_WORDS)(self._prepared_dimensions)
        self._known_form = lru_cache(MAX_KNOWN_WORDS)(self._form)

    def documents(
        self,
        texts: Iterable[str],
        languages: Iterable[str] = (),
        names: Sequence[Iterable[str]] = (),
    ) -> SparseVectors:
        """Return the sparse vector of each text; one without words gets an empty row.

        Args:
            languages: The language of each text, as far as it is known. The words of the other texts
                show it.
            names: The names by which each text is found.
        """
        indices: list[Sequence[int]] = []
        values: list[Sequence[float]] = []
        for text, language in zip_longest(texts, languages, fillvalue=""):
            vector = self._engine_for(text, language).embed_document(self._prepared(text))
            indices.append(vector.indices)
            values.append(vector.values)
        for row, names_of_text in enumerate(names):
            dimensions = _name_dimensions(names_of_text)
            indices[row] = [*indices[row], *dimensions]
            values[row] = [*values[row], *[1.0] * len(dimensions)]
        return SparseVectors.from_lists(indices, values)

    def query(self, text: str) -> SparseVector:
        """Return the sparse vector of a query: how often it has each word, as each language has it.

        A few words do not show their language, and a text that matches has them as its own language
        does.
        """
        counts = Counter[int]()
        for word in self.words(text).values():
            counts.update(dict.fromkeys(word.dimensions, word.count))
        dimensions = tuple(sorted(counts))
        return SparseVector(dimensions, tuple(float(counts[dimension]) for dimension in dimensions))

    def _words(self, query: str) -> Mapping[str, QueryWord]:
        """Return the words of a query that count, in order. Each step of a search needs them."""
        text = divided(normalized(query))
        pattern = LETTERS if self._split else WORD
        counts = Counter(pattern.of(text).findall(text))
        kept = set(counts)
        if len(counts) > MAX_POINT_WORDS:
            longest = sorted(counts, key=lambda word: -len(word) * counts[word])
            kept = set(longest[:MAX_POINT_WORDS])
        words: dict[str, QueryWord] = {}
        for word, count in counts.items():
            if word in kept:
                query_word = self._query_word(word, count)
                if query_word.dimensions:
                    words[word] = query_word
        return MappingProxyType(words)

    def matched(
        self, words: Mapping[str, QueryWord], texts: Iterable[str]
    ) -> list[tuple[str, ...]]:
        """Return which of these words of a query each text has, in some form; of a compound, the
        complete word."""
        found = list[tuple[str, ...]]()
        for text in texts:
            vector = self._engine_for(text).embed_query(self._prepared(text))
            dimensions = set(vector.indices)
            found.append(tuple(name for name, word in words.items() if word.is_in(dimensions)))
        return found

    def highlights(self, words: Mapping[str, QueryWord], text: str) -> tuple[str, ...]:
        """Return the words of a text, as they stand in it, that are words of a query in some form, each
        once.

        encoder.highlights(encoder.words("printer offline"), "Printers go offline")
        # ("Printers", "offline")
        """
        wanted = frozenset[int]().union(*[word.dimensions for word in words.values()])
        text = text[:MAX_HIGHLIGHTED]
        standing = text_words(text, signs=not self._split)
        is_wanted: dict[str, bool] = {}
        for word in standing:
            if word.text not in is_wanted:
                is_wanted[word.text] = not wanted.isdisjoint(self._known_prepared(word.text))
        if text.isascii():
            return tuple(word for word, found in is_wanted.items() if found)
        found = [is_wanted[word.text] for word in standing]
        for place, (before, word) in enumerate(pairwise(standing)):
            # two characters of a text without spaces, such as 打印: each may stand in other words, too
            if word.joined and not wanted.isdisjoint(self._known(before.text + word.text)):
                found[place] = found[place + 1] = True
        by_chance = _parts_of_words(words)
        highlights = list[str]()
        numbers = _run_numbers(standing, found)
        for _, run in groupby(range(len(standing)), key=numbers.__getitem__):
            places = [*run]
            first, last = standing[places[0]], standing[places[-1]]
            is_chance = len(places) == 2 and first.text + last.text in by_chance
            if found[places[0]] and not is_chance:
                highlights.append(text[first.start : last.end])
        return tuple(dict.fromkeys(highlights))

    def forms(self, text: str) -> list[tuple[int, int, frozenset[int | str]]]:
        """Return where each word of a text begins and ends, and its dimensions.

        A word by which no text is found, such as IT in English, is itself. A word without spaces is its
        characters.
        """
        return [(word.start, word.end, self._known_form(word.text)) for word in text_words(text)]

    def _engine_for(self, text: str, language: str = "") -> e.Bm25:
        """Return the engine for the language of a text. If that is not one of the index's, the words of
        the text decide."""
        if len(self._engines) == 1:
            return self._engines[0]
        if language not in self.languages:
            language = choose_language(text, self.languages)
        return self._engines[self.languages.index(language)]

    def _prepared(self, text: str) -> str:
        """Return a text as the engine is given it: the words of names apart, and texts without spaces
        divided."""
        plain = normalized(text)
        named = split_identifiers(plain) if self._split else _with_compounds(plain)
        return _unsplit(divided(named, characters=True))

    def _prepared_dimensions(self, word: str) -> frozenset[int]:
        """Return the dimensions of a word as it stands in a text."""
        return self.dimensions(self._prepared(word))

    def dimensions(self, text: str) -> frozenset[int]:
        """Return the dimensions of normalized words."""
        given = _unsplit(text)
        found = [engine.embed_query(given).indices for engine in self._engines]
        return frozenset(chain.from_iterable(found))

    def dimensions_of(self, words: Iterable[str]) -> dict[str, frozenset[int]]:
        return {word: self._known(word) for word in words}

    def _form(self, word: str) -> frozenset[int | str]:
        # MBPs; no stemmer knows them
        if word.endswith("s") and word[:-1].isupper():
            word = word[:-1]
        dimensions = self._query_word(word, 1).full
        if dimensions:
            return dimensions
        return frozenset([word if word.isupper() else word.lower()])

    def _query_word(self, word: str, count: int) -> QueryWord:
        """Return a word of a query with its dimensions."""
        if self._split:
            name, _, rest = split_identifiers(word).partition(" ")
            with_definition = f"{name} {definitions(word)}"
            return QueryWord(self.dimensions(with_definition), self.dimensions(rest), count)
        joined, parts = _compound(word)
        # CVE-2021-44228, or g++
        has_digits = any(map(str.isdigit, word))
        is_strict = bool(parts) and (has_digits or word.strip(_SIGNS) != word)
        return QueryWord(self.dimensions(joined), self.dimensions(parts), count, is_strict)


def _run_numbers(standing: Sequence[TextWord], found: Sequence[bool]) -> list[int]:
    """Return a number for each word of a text: the same one for characters that stand together and
    are found."""
    numbers = list[int]()
    for place, word in enumerate(standing):
        continues = word.joined and found[place] and found[place - 1]
        numbers.append(numbers[-1] if continues else place)
    return numbers


def _parts_of_words(words: Iterable[str]) -> set[str]:
    """Return pairs of sounds that are parts of longer words of a query. A pair alone stands in a
    text by chance."""
    parts = set[str]()
    for before, after in pairwise(words):
        if is_pair_of_sounds(before) and overlapped(before, after):
            parts |= {before, after}
    return parts


@lru_cache(maxsize=64)
def encoder_of(model: Bm25Model) -> Bm25Encoder:
    """Return the encoder of a model for all searches of this process, which caches words."""
    return Bm25Encoder(model)


def leaves_out(language: str, word: str) -> bool:
    """Return whether texts of a language are not found by a word: "the" in English, "der" in
    German."""
    return not _engine(language).embed_query(word).indices


class _StandIns(dict[int, int | str]):
    """What the engine is given for each character, so that it splits no word of ours.

    It splits at what it takes for no letter: viramas and tones of Asian scripts, and emojis. In
    their place stand two letters of Tangut, a script that nobody has written for 500 years. They
    name the character, and no stemmer knows them.
    """

    def __missing__(self, code: int) -> int | str:
        self[code] = code
        if _is_split_at(chr(code)):
            self[code] = chr(0x17000 + code // 1024) + chr(0x17800 + code % 1024)
        return self[code]


def _is_split_at(sign: str) -> bool:
    """Return whether the engine splits words at a sign that belongs to them."""
    if not has_marks(sign):
        return False
    return len(_engine(NO_LANGUAGE).embed_query(f"q{sign}z").indices) > 1


_STAND_INS = _StandIns()


def _unsplit(text: str) -> str:
    """Return normalized words in a form in which the engine splits none of them."""
    if not has_marks(text):
        return text
    return text.translate(_STAND_INS)


@lru_cache(maxsize=64)
def _engine(language: str) -> e.Bm25:
    """Return Qdrant's encoder for a language. It never changes, and making one takes longer than
    encoding a query."""
    words: dict[str, Any] = {"language": language}
    if language == NO_LANGUAGE:
        words = {"stemmer": e.DisabledStemmer(), "stopwords": e.StopwordsSet()}
    config = e.Bm25Config(k=BM25_K, b=BM25_B, avg_len=AVERAGE_LENGTH, ascii_folding=True, **words)
    return e.Bm25(config)
