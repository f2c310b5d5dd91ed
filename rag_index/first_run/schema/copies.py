"""Copies of the texts of hidden rows that other tables keep for a search, a list or a preview."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import read_value
from rag_index.first_run.schema.documents import is_of_copies, squeezed
from rag_index.first_run.schema.hidden_rows import Conditions, joined, unmet
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.tables import Condition, Table

PIECE = 30
"""Letters by which a text is found again, about five words: an excerpt of a line has as many."""
HIDDEN_TEXTS, COMPARED_TEXTS = 100, 100
"""Texts of hidden rows, and of a column that may hold copies, that are compared at most."""
COMPARED_CHARS = 600
"""What is compared of one text. These numbers are chosen so that a column takes milliseconds."""


def copied_columns(
    catalog: DatabaseCatalog, tables: Sequence[Table], hidden: Conditions
) -> Iterator[tuple[Table, str, Table]]:
    """Yield the columns of other tables that hold texts of hidden rows, with the table of these
    rows."""
    sources = []
    for table in tables:
        # an old version that nobody sees says what the document says, too
        if hidden[table] and (table.prose or table.title) and not is_of_copies(table):
            sources.append(_Source(catalog, table, hidden[table]))
    for table in tables:
        for name in table.texts:
            near = [one for one in sources if _may_copy(table, name, one.table)]
            texts = shown_texts(catalog, table, name, hidden[table]) if near else []
            is_prose = table.columns[name].role == "prose"
            for source in near:
                if source.holds(texts) if is_prose else source.titles_hold(texts):
                    yield table, name, source.table
                    break


def _may_copy(table: Table, name: str, of: Table) -> bool:
    """Return whether a column may be kept for a search, or show a text of rows beside:
    `last_post_text`."""
    if of is table:
        return False
    related = {one.parent for one in table.parents} | {one.child for one in table.children}
    named = {*map(singular, (*words(name), *table.noun))}
    return of in related or of.noun[-1] in named or is_of_copies(table)


class _Source:
    """A table with hidden rows, whose texts other tables may hold."""

    def __init__(
        self, catalog: DatabaseCatalog, table: Table, conditions: Sequence[Condition]
    ) -> None:
        self.table = table
        self._catalog, self._conditions = catalog, conditions

    def holds(self, texts: Sequence[str]) -> bool:
        """Return whether texts of another table are copies or excerpts, some of hidden rows."""
        copies = [_pieces(text) for text in texts[:COMPARED_TEXTS]]
        copies = [pieces for pieces in copies if pieces]
        of_hidden = [pieces for pieces in copies if pieces <= self._hidden]
        if not of_hidden:
            return False
        # what shown rows say as well, such as a greeting, proves nothing
        of_shown = [pieces for pieces in copies if pieces <= self._shown]
        of_hidden = [pieces for pieces in of_hidden if not pieces <= self._shown]
        is_copy = len(of_hidden) + len(of_shown) >= known.HALF * len(copies)
        if is_copy and of_hidden:
            return True
        # a log of all that was written: a good share of the hidden texts is there
        windows: set[str] = set()
        for text in texts:
            windows.update(_windows(squeezed(text)))
        own = [_pieces(text) for text in self._hidden_texts]
        found = [some for some in own if some and some <= windows and not some <= self._shown]
        return len(found) >= max(1, known.SOME * len(own))

    def titles_hold(self, texts: Sequence[str]) -> bool:
        """Return whether names in another table are titles of rows, some of hidden ones:
        `last_topic_title`."""
        names = {_line(text) for text in texts}
        of_hidden = (names & self._hidden_titles) - {""}
        if not of_hidden:
            return False
        shown = shown_texts(self._catalog, self.table, self.table.title, self._conditions)
        titles = {_line(text) for text in shown}
        is_copy = len(names & (titles | of_hidden)) >= known.MIN_FOUND * len(names)
        return is_copy and not of_hidden <= titles

    @cached_property
    def _hidden_texts(self) -> list[str]:
        found: list[str] = []
        for name in self.table.prose:
            # a text that several rows have is itself a copy: answers with their question
            if self.table.columns[name].distinct >= known.NEARLY_ALL:
                found += self._texts_of_hidden(name)
        return found

    @cached_property
    def _hidden(self) -> set[str]:
        """Return all pieces of texts of hidden rows."""
        found: set[str] = set()
        for text in self._hidden_texts:
            found.update(_windows(_letters(text)))
        return found

    @cached_property
    def _shown(self) -> set[str]:
        """Return all pieces of texts of shown rows."""
        found: set[str] = set()
        for name in self.table.prose:
            for text in shown_texts(self._catalog, self.table, name, self._conditions):
                found.update(_windows(_letters(text)))
        return found

    @cached_property
    def _hidden_titles(self) -> set[str]:
        if self.table.title not in self.table.columns:
            return set()
        return {_line(text) for text in self._texts_of_hidden(self.table.title)}

    def _texts_of_hidden(self, name: str) -> list[str]:
        condition = unmet(self._conditions)
        return _read_texts(self._catalog, self.table, name, condition, HIDDEN_TEXTS)


def _line(text: str) -> str:
    return " ".join(text.lower().split())


def _letters(text: str) -> str:
    return squeezed(text[:COMPARED_CHARS])


def _windows(letters: str) -> Iterator[str]:
    """Yield all pieces of some letters."""
    for start in range(len(letters) - PIECE + 1):
        yield letters[start : start + PIECE]


def _pieces(text: str) -> frozenset[str]:
    """Return the pieces that all are in a text if this one is a copy of it, or an excerpt; it may
    begin with a title or a name of its own."""
    letters = _letters(text)
    starts = [len(letters) // 4, len(letters) // 2]
    pieces = {letters[start : start + PIECE] for start in starts}
    pieces = {piece for piece in pieces if len(piece) == PIECE} or {letters[:PIECE]}
    return frozenset(piece for piece in pieces if len(piece) == PIECE)


def shown_texts(
    catalog: DatabaseCatalog, table: Table, name: str, conditions: Sequence[Condition]
) -> Sequence[str]:
    """Return texts that rows of a table show in one column, as people read them."""
    if not conditions:
        return table.columns[name].texts
    return _read_texts(catalog, table, name, joined(conditions), known.MAX_SHOWN)


def _read_texts(
    catalog: DatabaseCatalog, table: Table, name: str, condition: str, limit: int
) -> list[str]:
    form = table.columns[name].form
    found = catalog.texts_that(table, name, condition, limit)
    texts = [read_value(value, form) for value in found]
    return [text for text in texts if text]
