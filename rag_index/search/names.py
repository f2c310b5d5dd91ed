"""Names in a query: codes, numbers, addresses and keys that one document has and no other.

Whoever types `INV 2002/5985` or `anna@shop.example` wants the documents that have it. Meaning says
nothing about such a name, and words rank a long chunk that has it behind short ones that have parts
of it. So names are recognised by their form, the chunks that have them are looked up, and these
come before all others, whatever their scores.

A name must be rare: at most `RARE` chunks have all of it. A name may consist of several runs (`INV
2002/5985`), of which each is frequent. So the store returns the chunks that have all words, and
their texts decide.

If the database decides what the caller may see, nothing is looked up: the answer would depend on
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

    from rag_index.components.stores.protocol import WordCounts
    from rag_index.core.documents.batches import StoredPoint

RARE = 50
"""Chunks at most that have a name. Chosen; a name in more chunks is ranked as other words are."""
MAX_NAMES = 5
"""Names of a query that are looked up. Chosen; a query of more is a text, and no question for
one."""
MAX_PLAIN_WORDS = 2
"""A query of so few plain words asks for the chunks that have them."""
PLAIN_SHARE = 100
"""Such words are rare if one chunk of so many has them."""
MIN_PLAIN_CHUNKS = 2
"""In a small collection, words in so few chunks are rare, too."""

_EDGES = "\"'`\u201c\u201d\u201e()[]{}<>,;:!?.\u2026"
"""Punctuation around a run, which is no part of a name."""
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_INNER_SIGN = re.compile(
    r"\w\w[._]\w\w|\w@\w|(?<!\w)[/\\]\w+[/\\]\w|[a-z][A-Z]|[A-Z]{2}-\w|\w-[A-Z]{2}"
)
"""A sign within a run without digits: `plan_final.xlsx`, `anna@shop`, `/etc/hosts`, `getUser`,
`SRV-ZRH`; not `i.e.`, and not `and/or`."""
_YEAR, _MONTH, _DAY = r"(?:1[5-9]|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
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
"""Digits of a number that may be a name: article numbers and postcodes have as many, counts and
years have fewer."""
MIN_PAIR_DIGITS = 3
"""Digits of a number that is a name together with the word before it: `EN 50128`, `room 312`."""


@dataclass(frozen=True, slots=True)
class QueryName:
    """A name in a query, or the plain words that a query consists of.

    Attributes:
        words: The dimensions of each of its words; a chunk that has it has one of each.
        text: How it stands in a text, as `spaced` writes it; "" if the words need not stand
            together.
    """

    words: tuple[frozenset[int], ...]
    text: str = ""

    @property
    def sparse(self) -> SparseVector:
        """Return what finds the chunks with most of its words, the rarest first."""
        dimensions = sorted(frozenset[int]().union(*self.words))
        return SparseVector(tuple(dimensions), (1.0,) * len(dimensions))

    def has_all_words(self, dimensions: Set[int]) -> bool:
        """Return whether a chunk with these dimensions has all its words."""
        return all(not word.isdisjoint(dimensions) for word in self.words)


def looks_like_name(run: str) -> bool:
    """Return whether a run without spaces has the form of a name, and not of a date, an amount or a
    quantity.

    looks_like_name("MBP-HAM805"), looks_like_name("7891-44-6"), looks_like_name("20kg")  # True,
    True, False
    """
    run = run.strip(_EDGES)
    if not _DIGIT.search(run):
        return _INNER_SIGN.search(run) is not None
    if any(form.fullmatch(run) for form in (_DATE, _YEARS, _TIME, _QUANTITY)):
        return False
    if _LETTER.search(run):
        return True
    groups = re.findall(r"\d+", run)
    if len(groups) > 1 and _AMOUNT.fullmatch(run):  # 10,000 or 12345.67
        return False
    if len(groups) > 2 and "." in run:  # a version such as 2.4.1, an address, an article number
        return True
    return sum(map(len, groups)) >= MIN_DIGITS  # 100234, 4500-123456


def runs_of_names(query: str) -> Iterator[str]:
    """Yield the parts of a query that have the form of a name, the longest first where one contains
    others.

    "invoice INV 2002/5985" yields "INV 2002/5985"; "case 12 O 345/22" yields "12 O 345/22".
    """
    runs, position = query.split(), 0
    while position < len(runs):
        end = _end_of_name(runs, position)
        if end == position:
            position += 1
            continue
        yield " ".join(runs[position:end])
        position = end


def _end_of_name(runs: Sequence[str], start: int) -> int:
    """Return where the name that begins with a run ends; `start` if none begins there."""
    end, digits = start, 0
    while end < len(runs) and _may_be_part(runs[end]):
        digits = max(digits, len(_DIGIT.findall(runs[end])))
        end += 1
    while end > start and not (_DIGIT.search(runs[end - 1]) or looks_like_name(runs[end - 1])):
        end -= 1  # `INV 2002/5985 ASAP`: capitals after the last number are no part of it
    if end - start > 1 and digits >= MIN_PAIR_DIGITS:
        return end
    if looks_like_name(runs[start]):
        return start + 1
    # room 312, as all that is asked for, or Room 312 beside other words
    is_pair = start + 1 < len(runs) and _is_word_with_number(runs[start], runs[start + 1])
    if is_pair and (len(runs) == 2 or runs[start][0].isupper()):
        return start + 2
    return start


def _may_be_part(run: str) -> bool:
    """Return whether a run may be a part of a name of several: capitals (`INV`) or digits, but no
    date or amount."""
    run = run.strip(_EDGES)
    if not _DIGIT.search(run):
        return _CAPITALS.fullmatch(run) is not None
    return not any(form.fullmatch(run) for form in (_DATE, _YEARS, _TIME, _QUANTITY))


def _is_word_with_number(word: str, number: str) -> bool:
    number = number.strip(_EDGES)
    return (
        word.isalpha()
        and number.isdigit()
        and len(number) >= MIN_PAIR_DIGITS
        and not _YEARS.fullmatch(number)
    )


def names_in(answer: IndexAnswer, query: str, having: Mapping[int, int]) -> list[QueryName]:
    """Return the names of a query. `having` counts the chunks of each dimension in all indexes that
    are searched."""
    encoder = answer.live.encoder
    if encoder is None:
        return []
    names = list[QueryName]()
    for run in runs_of_names(query):
        words = tuple(word.whole for word in encoder.words(run).values() if word.whole)
        if not words or not all(any(having.get(one) for one in word) for word in words):
            continue  # No chunk has one of its words, so none has the name.
        if any(
            len(part) > 1 and part.isalpha() and not encoder.words(part) for part in run.split()
        ):
            continue  # A word that says nothing and a count, as "These 528"
        if len(words) > 1:
            names.append(QueryName(words, spaced(run)))
        elif max(having.get(one, 0) for one in words[0]) <= RARE:
            # Of a single word such as SD-100234, the dimension tells: SD100234 is the same name.
            names.append(QueryName(words))
    for run in runs_of_keys(query):
        dimension = name_dimension(run)
        if dimension is not None and 0 < having.get(dimension, 0) <= RARE:
            names.append(QueryName((frozenset({dimension}),)))
    return names[:MAX_NAMES]


def runs_of_keys(query: str) -> list[str]:
    """Return the runs of a query that may be the key or the title of a document: "A-17" of "the
    state of A-17".

    A plain word such as "printer" may be a title, too, but is no name. Nor is a number: where keys
    count rows, each number is one, and "Windows 11" asks for no row 11. The whole query is compared
    with keys and titles anyway.
    """
    runs = [run.strip(_EDGES) for run in query.split()]
    return [run for run in runs if _may_be_key(run)] if len(runs) > 1 else []


def _may_be_key(run: str) -> bool:
    """Return whether a run has letters and digits, or a sign inside, and is no quantity such as
    20kg."""
    if not _LETTER.search(run) or _QUANTITY.fullmatch(run):
        return False
    return _DIGIT.search(run) is not None or _INNER_SIGN.search(run) is not None


def plain_words(answer: IndexAnswer, having: Mapping[int, int], points: int) -> QueryName | None:
    """Return the words of a query of one or two plain words, if they may be rare together; None
    otherwise.

    The rarer of two words bounds how many chunks have both.
    """
    words = answer.words
    if not 1 <= len(words) <= MAX_PLAIN_WORDS or not all(word.isalpha() for word in words):
        return None
    counts = [max((having.get(one, 0) for one in word.whole), default=0) for word in words.values()]
    if not 0 < min(counts) <= max(MIN_PLAIN_CHUNKS, points // PLAIN_SHARE):
        return None
    return QueryName(tuple(word.whole for word in words.values()))


@dataclass(frozen=True, slots=True)
class SoughtNames:
    """What a query names exactly, as the chunks of one index are searched for it.

    Attributes:
        whole: The dimension of the whole query, if it is the key or the title of a document of the
            index; else None.
        rare: The names in the query.
        plain: The rare plain words that the query consists of; None if it has names or other words.
    """

    whole: int | None = None
    rare: Sequence[QueryName] = ()
    plain: QueryName | None = None

    @classmethod
    def of(cls, answer: IndexAnswer, query: str, counts: WordCounts) -> SoughtNames:
        """Return what a query names in an index. `counts` are those of all indexes that are
        searched."""
        whole = name_dimension(query)
        if whole is not None and not answer.counts.having.get(whole):
            whole = None
        if answer.asks:
            return cls(whole)
        rare = names_in(answer, query, counts.having)
        plain = None if rare else plain_words(answer, counts.having, counts.points)
        return cls(whole, rare, plain)

    @property
    def sparse(self) -> list[SparseVector]:
        """Return what each of the names is looked up by."""
        found = [name.sparse for name in self.rare]
        return found if self.whole is None else [SparseVector((self.whole,), (1.0,)), *found]

    def mark(self, points: Sequence[StoredPoint]) -> None:
        """Let points, which have their sparse vectors and payloads, know what of the names they
        have."""
        sought = [*self.rare, *([self.plain] if self.plain else [])]
        if self.whole is None and not sought:
            return
        whole = [] if self.whole is None else [self.whole]
        dimensions = frozenset(whole).union(*[one.sparse.indices for one in sought])
        words = {
            one.id: dimensions.intersection(one.sparse.indices if one.sparse else ())
            for one in points
        }
        for point in points:
            point.exact = self.whole in words[point.id]
            point.has_words = self.plain is not None and self.plain.has_all_words(words[point.id])
        for name in self.rare:
            having = [one for one in points if name.has_all_words(words[one.id])]
            # "INV 2002/5985" stands in the text, and not only "INV 2001/5985, see 2002/17".
            having = [one for one in having if name.text in spaced(text_of(one.payload))]
            if len(having) <= RARE:  # A name that more chunks have is no name of one document.
                for point in having:
                    point.names += 1
