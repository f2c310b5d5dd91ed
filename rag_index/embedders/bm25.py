"""Sparse vectors by BM25: each word of a text is a dimension, and rare words count more.

The weight of a word in a chunk is BM25's term frequency part, with k = 1.2, b = 0.75 and an average length of 100 words
(Robertson and Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond, 2009). The store multiplies it by the
word's inverse document frequency when it searches. Qdrant's own code makes the vectors, so the dimension of a word is
the one that a server would compute.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.documents.languages import choose_language
from rag_index.documents.vectors import SparseVector, SparseVectors
from rag_index.settings.index import CODE, NO_LANGUAGE, split_languages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.settings import IndexSettings

DEFINES = "defines"
"""The beginning of a word that stands for the definition of a name."""

NAMED_BY = ("path", "qualified_name", "signature")
"""The payload fields by whose words a chunk of source code is found, beside its text."""

_NAME = re.compile(r"[^\W\d]\w*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""A run of capitals (`HTTP` of `HTTPServer`), a word with or without its capital, or digits."""
VERSION = 3
"""Raise it if the same text would get another sparse vector."""
K, B, AVERAGE_LENGTH = 1.2, 0.75, 100.0
"""A text of 400 characters has some 40 words that count. Taking such texts for shorter than average finds more once
meaning and words are added up (`benchmarks/quality.py`)."""
_SIGNS = {"c++": "cplusplus", "c#": "csharp", "f#": "fsharp", ".net": "dotnet"}
_SIGNED = re.compile(r"(?<![\w.+#])(?:[cf]#|c\+\+|\.net)(?![\w+#])|\b[a-z]+\.(?:ai|io|js|net)\b", re.IGNORECASE)
"""A name that punctuation would take apart: `C++`, `.NET`, `node.js`."""
_SIGNS_OF_NAMES = ("#", "c++", ".ai", ".io", ".js", ".net")
"""What each of these names has one of."""
_OPAQUE = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_HIRAGANA = "\u3041-\u309f"
_UNSPACED = re.compile(
    f"[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+|[{_HIRAGANA}]+"
    "|[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]+"
)
"""A run of Han characters, Hiragana or Katakana: in Japanese, a word seldom goes on in another script."""
_PARTICLE = re.compile(f"[{_HIRAGANA}]")
_WORD = re.compile(r"(?<![\w.+#])(?:[cf]#|c\+\+|\.net)(?![\w+#])|\w+(?:[-.']\w+)*", re.IGNORECASE)


def split_identifiers(text: str) -> str:
    """Return the text with each compound name replaced by the whole name and its parts.

    `JsonTreeReader` and `json_tree_reader` both become "jsontreereader json tree reader", so that each is found by the
    other and by its parts. Other text stays as it is.
    """
    return _NAME.sub(_spelled_out, text)


def split_unspaced(text: str, *, characters: bool = False) -> str:
    """Return the text with Chinese and Japanese in pairs of neighbouring characters, as words: whatever their language.

    No dictionary has every name, and it divides a phrase otherwise than the text that has it. With `characters`, each
    character is a word too, so that a query of one finds it. A single Hiragana is a particle or an ending, and no word.
    """

    def words(match: re.Match[str]) -> str:
        run = match[0]
        if len(run) == 1:
            return " " if _PARTICLE.fullmatch(run) else f" {run} "
        pairs = map("".join, pairwise(run))
        return f" {' '.join([*pairs, *run] if characters else pairs)} "

    return text if text.isascii() else _UNSPACED.sub(words, text)


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
    """Return a word for each name in the text that only the definition of that name has, not its uses.

    A query has such a word for each of its names, so that a definition is found before its uses.
    """
    return " ".join(DEFINES + "".join(_parts(match[0])).lower() for match in _NAME.finditer(text))


def _spelled_out(match: re.Match[str]) -> str:
    parts = _parts(match[0])
    return f"{''.join(parts).lower()} {' '.join(parts)}" if len(parts) > 1 else parts[0]


def _whole_name(match: re.Match[str]) -> str:
    name = match[0].lower()
    return _SIGNS.get(name) or f"{match[0]} {name.replace('.', '')}"


def _parts(name: str) -> list[str]:
    parts = _PART.findall(name) if name.isascii() else [part for part in name.split("_") if part]
    return parts or [name]


@dataclass(frozen=True, slots=True)
class Bm25Model:
    """Everything that decides the sparse vector of a text. A collection records it in its metadata."""

    language: str
    identifiers: bool = False
    """Whether names of source code are taken apart: see `identifiers`."""
    version: int = VERSION

    @property
    def fingerprint(self) -> str:
        """Name the model: when it changes, the index has to be rebuilt."""
        return f"bm25-{self.version}-{self.language}{'-code' if self.identifiers else ''}"

    def to_metadata(self) -> dict[str, Any]:
        """Return the model as a collection's metadata record it."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, recorded: Any) -> Bm25Model | None:
        """Return the recorded model; None if the collection has no sparse vectors, or ones of another version."""
        try:
            model = cls(**recorded)
        except TypeError:
            return None
        return model if model.version == VERSION else None


def bm25_model(index: IndexSettings) -> Bm25Model | None:
    """Return the model of an index, None if it is searched by meaning alone."""
    if index.search == "dense":
        return None
    return Bm25Model(index.language, identifiers=index.kind == CODE)


class Bm25Encoder:
    """A maker of sparse vectors, cheap to make: there is no model to load."""

    def __init__(self, model: Bm25Model) -> None:
        self._model, self._split = model, model.identifiers
        self.languages = split_languages(model.language)
        self._engines = [_engine(language) for language in self.languages]

    def documents(self, texts: Iterable[str], languages: Iterable[str] = ()) -> SparseVectors:
        """Return the sparse vector of each text; one without words gets an empty row.

        `languages` has the language of each text, as far as it is known. The words of the other texts tell it.
        """
        found = [
            self._engine_for(text, language).embed_document(self._prepared(text, document=True))
            for text, language in zip_longest(texts, languages, fillvalue="")
        ]
        return SparseVectors.from_lists([vector.indices for vector in found], [vector.values for vector in found])

    def query(self, text: str) -> SparseVector:
        """Return the sparse vector of a query: 1 for each word, as each language has it.

        A few words do not tell their language, and a text that matches has them as its own language does.
        """
        prepared = f"{self._prepared(text)} {definitions(text)}" if self._split else self._prepared(text)
        found = [engine.embed_query(prepared) for engine in self._engines]
        if len(found) == 1:
            return SparseVector(tuple(found[0].indices), tuple(found[0].values))
        values = {index: value for row in found for index, value in zip(row.indices, row.values, strict=True)}
        return SparseVector(tuple(sorted(values)), tuple(values[index] for index in sorted(values)))

    def words(self, query: str) -> Mapping[str, frozenset[int]]:
        """Return the words of a query that count, in order, with the dimensions of each."""
        return _words(self._model, query)

    def matched(self, words: Mapping[str, frozenset[int]], text: str) -> tuple[str, ...]:
        """Return which of these words of a query the text has, in some form."""
        found = set(self._engine_for(text).embed_query(self._prepared(text, document=True)).indices)
        return tuple(word for word, dimensions in words.items() if not found.isdisjoint(dimensions))

    def _engine_for(self, text: str, language: str = "") -> e.Bm25:
        """Return the engine for the language of a text, which its words tell if it is none of the index's."""
        if len(self._engines) == 1:
            return self._engines[0]
        if language not in self.languages:
            language = choose_language(text, self.languages)
        return self._engines[self.languages.index(language)]

    def _prepared(self, text: str, *, document: bool = False) -> str:
        text = split_identifiers(text) if self._split else self._folded(text)
        return split_unspaced(text, characters=document)

    def _folded(self, text: str) -> str:
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        elif not any(map(text.lower().__contains__, _SIGNS_OF_NAMES)):  # which most texts are, and it is much faster
            return text
        return _SIGNED.sub(_whole_name, text)


@lru_cache(maxsize=256)
def _words(model: Bm25Model, query: str) -> Mapping[str, frozenset[int]]:
    """Return what `Bm25Encoder.words` does, which soft match, matched words and relevance of a search all need."""
    encoder = Bm25Encoder(model)
    words = {word: frozenset(encoder.query(word).indices) for word in _WORD.findall(split_unspaced(query))}
    return MappingProxyType({word: dimensions for word, dimensions in words.items() if dimensions})


@lru_cache(maxsize=64)
def _engine(language: str) -> e.Bm25:
    """Return Qdrant's encoder for a language. It never changes, and making one takes longer than encoding a query."""
    none = {"stemmer": e.DisabledStemmer(), "stopwords": e.StopwordsSet()}
    words: dict[str, Any] = none if language == NO_LANGUAGE else {"language": language}
    return e.Bm25(e.Bm25Config(k=K, b=B, avg_len=AVERAGE_LENGTH, ascii_folding=True, **words))
