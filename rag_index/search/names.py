"""Names in a query: codes, numbers, addresses and keys that one document has and no other.

Whoever types `INV 2002/5985` or `anna@shop.example` wants the documents that have it. Vectors do
not distinguish such names, and BM25 ranks a long chunk with the name behind short ones with parts
of it. So names are recognised by their form, the chunks that have them are looked up, and these
come before all others, whatever their scores.

A name must be rare: at most `RARE` chunks have all of it. A name may consist of several runs (`INV
2002/5985`), each of which is frequent. So the store returns the chunks that have all words, and
their texts decide.

If the database decides what the caller may see, no names are looked up: the answer would depend on
hidden documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import name_dimension
from rag_index.core.documents.vectors import SparseVector
from rag_index.search.question import IndexAnswer, spaced, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.components.stores.protocol import WordCounts
    from rag_index.core.documents.batches import StoredPoint

RARE = 50
"""Chunks that have a rare name at most. Chosen; a name in more chunks is ranked as other words."""
MAX_NAMES = 5
"""Names of a query that are looked up at most. Chosen; a query with more names is a pasted text."""
MAX_PLAIN_WORDS = 2
"""Words of a query that is a search for the chunks with all of them, if they are rare. Chosen."""
PLAIN_SHARE = 100
"""Plain words are rare if at most one chunk in this many has them. Chosen."""
MIN_PLAIN_CHUNKS = 2
"""Words in this many chunks are rare in a small collection, too. Chosen."""

_EDGES = "\"'`\u201c\u201d\u201e()[]{}<>,;:!?.\u2026"
"""Punctuation around a run, which is no part of a name."""
_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")
_INNER_SIGN = re.compile(
    r"\w\w[._]\w\w|\w@\w|(?<!\w)[/\\]\w+[/\\]\w|[a-z][A-Z]|[A-Z]{2}-\w|\w-[A-Z]{2}"
)
"""A sign within a run without digits: `plan_final.xlsx`, `anna@shop`, `/etc/hosts`, `getUser`,
`SRV-ZRH`; not `i.e.`, and not `and/or`."""
_YEAR = r"(?:1[5-9]|20)\d\d"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"(?:1[89]|20)\d\d([-/.]){_MONTH}(?:\1{_DAY})?|{_DAY}([-/.]){_DAY}\2{_YEAR}|{_DAY}/{_DAY}/\d\d"
    rf"|(?=[\d.]{{0,6}}(?<!\d)0){_DAY}\.{_MONTH}\.\d\d|{_MONTH}/{_YEAR}"
)
"""`2024-05-01`, `2024/05`, `01.05.2024`, `5/1/24`, `01.05.24`, `05/2024`; 5.12.23 may be a
version."""
_YEARS = re.compile(rf"{_YEAR}(?:[-/\u2013]{_YEAR}|[-/\u2013]\d\d)?")
"""`1998`, `1998-2002`, `1998/99`."""
_TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?")
_QUANTITY = re.compile(r"[-+]?\d+(?:[.,]\d+)?[^\W\d_]{1,4}|\d+(?:st|nd|rd|th)", re.IGNORECASE)
"""`20kg`, `1.5GB`, `90s`, `2nd`."""
_AMOUNT = re.compile(
    r"[-+]?[\u20ac$\u00a3]?(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})?|\d+)(?:[.,]\d{1,2})?[%\u20ac$\u00a3]?"
)
"""`10,000`, `10.000`, `1,234.56`, `12345.67`, `12%`."""
_CAPITALS = re.compile(r"[A-Z]{1,5}(?:-[A-Z]{1,5})?")
"""What may stand before a number, as a part of the same name: `INV`, `B-XY`."""
MIN_DIGITS = 5
"""Digits that a number needs to be a name, as article numbers and postcodes have. Chosen; counts and
years have fewer."""
MIN_PAIR_DIGITS = 3
"""Digits that a number needs to be a name with the word before it: `EN 50128`, `room 312`.
Chosen."""


@dataclass(frozen=True, slots=True)
class QueryName:
    """A name in a query, or the plain words that a query consists of.

    Attributes:
        words: The dimensions of each word. A chunk that has the name has one dimension of each.
        text: The name as `spaced` writes it, if a chunk must have the words together; else empty.
    """

    words: tuple[frozenset[int], ...]
    text: str = ""

    @property
    def sparse(self) -> SparseVector:
        """The sparse vector that finds the chunks with most of its words, the rarest first."""
        dimensions = frozenset[int]().union(*self.words)
        return SparseVector(tuple(sorted(dimensions)), (1.0,) * len(dimensions))

    def has_all_words(self, dimensions: Set[int]) -> bool:
        """Return whether a chunk with these dimensions has all words."""
        return all(not word.isdisjoint(dimensions) for word in self.words)


def looks_like_name(run: str) -> bool:
    """Return whether a run without spaces has the form of a name, and not of a date, an amount or a
    quantity.

    Example:
        looks_like_name("MBP-HAM805")  # True
        looks_like_name("20kg")  # False
    """
    run = run.strip(_EDGES)
    # No digits: `plan_final.xlsx` is a name, "printer" is not.
    if not _DIGIT.search(run):
        return _INNER_SIGN.search(run) is not None
    if any(form.fullmatch(run) for form in (_DATE, _YEARS, _TIME, _QUANTITY)):
        return False
    # Letters and digits: "MBP-HAM805".
    if _LETTER.search(run):
        return True
    groups = re.findall(r"\d+", run)
    # An amount: 10,000 or 12345.67.
    if len(groups) > 1 and _AMOUNT.fullmatch(run):
        return False
    # A version such as 2.4.1, an address, an article number.
    if len(groups) > 2 and "." in run:
        return True
    # Other numbers: 100234, 4500-123456.
    return sum(map(len, groups)) >= MIN_DIGITS


def runs_of_names(query: str) -> Iterator[str]:
    """Yield the parts of a query that have the form of a name. If one contains others, the longest
    counts.

    "invoice INV 2002/5985" yields "INV 2002/5985"; "case 12 O 345/22" yields "12 O 345/22".
    """
    runs = query.split()
    position = 0
    while position < len(runs):
        end = _end_of_name(runs, position)
        if end == position:
            position += 1
            continue
        yield " ".join(runs[position:end])
        position = end


def _end_of_name(runs: Sequence[str], start: int) -> int:
    """Return the end of the name that begins at `start`; `start` if none begins there."""
    end = start
    digits = 0
    while end < len(runs) and _may_be_part(runs[end]):
        digits = max(digits, len(_DIGIT.findall(runs[end])))
        end += 1
    # `INV 2002/5985 ASAP`: capitals after the last number are no part of the name.
    while end > start and not (_DIGIT.search(runs[end - 1]) or looks_like_name(runs[end - 1])):
        end -= 1
    # Several runs: `INV 2002/5985`.
    if end - start > 1 and digits >= MIN_PAIR_DIGITS:
        return end
    if looks_like_name(runs[start]):
        return start + 1
    # `room 312` as the whole query, or `Room 312` beside other words.
    is_pair = start + 1 < len(runs) and _is_word_with_number(runs[start], runs[start + 1])
    if is_pair and (len(runs) == 2 or runs[start][0].isupper()):
        return start + 2
    return start


def _may_be_part(run: str) -> bool:
    """Return whether a run may be part of a name of several runs: capitals (`INV`) or digits, but no
    date or quantity."""
    run = run.strip(_EDGES)
    if not _DIGIT.search(run):
        return _CAPITALS.fullmatch(run) is not None
    return not any(form.fullmatch(run) for form in (_DATE, _YEARS, _TIME, _QUANTITY))


def _is_word_with_number(word: str, number: str) -> bool:
    number = number.strip(_EDGES)
    has_digits = number.isdigit() and len(number) >= MIN_PAIR_DIGITS
    return word.isalpha() and has_digits and not _YEARS.fullmatch(number)


def names_in(answer: IndexAnswer, query: str, having: Mapping[int, int]) -> list[QueryName]:
    """Return the rare names in a query.

    Args:
        answer: The index, whose encoder splits the query.
        query: The query.
        having: How many chunks of all searched indexes have each dimension.
    """
    encoder = answer.live.encoder
    if encoder is None:
        return []
    names: list[QueryName] = []
    for run in runs_of_names(query):
        words = tuple(word.full for word in encoder.words(run).values() if word.full)
        # If no chunk has one of the words, no chunk has the name.
        if not words or not all(_is_known(word, having) for word in words):
            continue
        # "These 528" is a count after a word that the encoder leaves out.
        if any(_is_left_out(part, encoder) for part in run.split()):
            continue
        if len(words) > 1:
            names.append(QueryName(words, spaced(run)))
        # A single word is found by its dimension: SD-100234 and SD100234 are the same name.
        elif max(having.get(dimension, 0) for dimension in words[0]) <= RARE:
            names.append(QueryName(words))
    for run in runs_of_keys(query):
        dimension = name_dimension(run)
        if dimension is not None and 0 < having.get(dimension, 0) <= RARE:
            names.append(QueryName((frozenset({dimension}),)))
    return names[:MAX_NAMES]


def _is_known(word: frozenset[int], having: Mapping[int, int]) -> bool:
    return any(having.get(dimension) for dimension in word)


def _is_left_out(part: str, encoder: Bm25Encoder) -> bool:
    """Return whether a part of a name is a word without meaning, such as "these"."""
    is_word = len(part) > 1 and part.isalpha()
    return is_word and not encoder.words(part)


def runs_of_keys(query: str) -> list[str]:
    """Return the runs of a query that may be the key or the title of a document: "A-17" of "the
    state of A-17".

    A plain word such as "printer" may be a title as well, but is no name. Neither is a number: where
    keys are row numbers, each number is one, but "Windows 11" does not ask for row 11. The whole
    query is compared with keys and titles in any case.
    """
    runs = [run.strip(_EDGES) for run in query.split()]
    if len(runs) < 2:
        return []
    return [run for run in runs if _may_be_key(run)]


def _may_be_key(run: str) -> bool:
    """Return whether a run has letters, and digits or a sign inside, and is no quantity such as
    20kg."""
    if not _LETTER.search(run) or _QUANTITY.fullmatch(run):
        return False
    return _DIGIT.search(run) is not None or _INNER_SIGN.search(run) is not None


def plain_words(answer: IndexAnswer, having: Mapping[int, int], points: int) -> QueryName | None:
    """Return the words of a query of one or two plain words if they may be rare together, else
    None."""
    words = answer.words
    if not 1 <= len(words) <= MAX_PLAIN_WORDS or not all(word.isalpha() for word in words):
        return None
    counts: list[int] = []
    for word in words.values():
        counts.append(max([having.get(dimension, 0) for dimension in word.full], default=0))
    # The rarer word limits how many chunks have both.
    most = max(MIN_PLAIN_CHUNKS, points // PLAIN_SHARE)
    if not 0 < min(counts) <= most:
        return None
    return QueryName(tuple(word.full for word in words.values()))


@dataclass(frozen=True, slots=True)
class SoughtNames:
    """The names of a query that are looked up in one index.

    Attributes:
        query: The dimension of the query as a name, if it is the key or the title of a document of
            the index; else None.
        rare: The names in the query.
        plain: The rare plain words that the query consists of; None if it has names or other words.
    """

    query: int | None = None
    rare: Sequence[QueryName] = ()
    plain: QueryName | None = None

    @classmethod
    def of(cls, answer: IndexAnswer, query: str, counts: WordCounts) -> SoughtNames:
        """Return the names of a query in an index. `counts` are those of all searched indexes."""
        dimension = name_dimension(query)
        if dimension is not None and not answer.counts.having.get(dimension):
            dimension = None
        # The database decides what the caller may see, and names may be those of hidden documents.
        if answer.asks:
            return cls(dimension)
        rare = names_in(answer, query, counts.having)
        plain = None if rare else plain_words(answer, counts.having, counts.points)
        return cls(dimension, rare, plain)

    @property
    def sparse(self) -> list[SparseVector]:
        """The sparse vectors that find the chunks with the names."""
        vectors = [name.sparse for name in self.rare]
        if self.query is not None:
            vectors.insert(0, SparseVector((self.query,), (1.0,)))
        return vectors

    def set_matches(self, points: Sequence[StoredPoint]) -> None:
        """Set in points, which have their sparse vectors and payloads, which names they have."""
        if self.query is None and not self.rare and self.plain is None:
            return
        words = self._dimensions_by_point(points)
        for point in points:
            point.exact = self.query in words[point.id]
            point.has_words = self.plain is not None and self.plain.has_all_words(words[point.id])
        for name in self.rare:
            having = [point for point in points if name.has_all_words(words[point.id])]
            # The text must have "INV 2002/5985", and not only "INV 2001/5985, see 2002/17".
            having = [point for point in having if name.text in spaced(text_of(point.payload))]
            # A name that more chunks have is no name of one document.
            if len(having) <= RARE:
                for point in having:
                    point.names += 1

    def _dimensions_by_point(self, points: Sequence[StoredPoint]) -> dict[str, frozenset[int]]:
        """Return by point id those dimensions of the names that the point has."""
        names = [*self.rare, self.plain] if self.plain else self.rare
        dimensions = frozenset[int]().union(*[name.sparse.indices for name in names])
        if self.query is not None:
            dimensions |= {self.query}
        found: dict[str, frozenset[int]] = {}
        for point in points:
            indices = point.sparse.indices if point.sparse else ()
            found[point.id] = dimensions.intersection(indices)
        return found
