"""The house's own words: what the users of this project call the same thing, such as MBP and
MacBook Pro.

A search for one finds what is written with the other. A query's words are looked up in any of their
forms, and those that mean the same are searched for beside them, at a lower weight. Texts are
compared as if what was typed stood beside its synonym.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model, QueryWord
from rag_index.core.files import file_stamp, read_written
from rag_index.core.machine import in_thread
from rag_index.core.settings.index import NO_LANGUAGE
from rag_index.core.settings.parts import is_select
from rag_index.errors import RagIndexError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from rag_index.core.settings import Settings

Pair = tuple[str, str]
"""A phrase, and one that means the same."""
ONE_WAY = "=>"
WEIGHT = 0.6
"""What synonyms count together, where what was typed counts 1."""
MAX_SYNONYMS = 12
"""Synonyms of a query that are searched for at most."""
QUERY_SECONDS, FIRST_SECONDS = 10.0, 2.0
"""How long what the database said is kept, and how long the first search waits for it."""
MAX_SYNONYM_ROWS = 50_000
PLAIN = Bm25Encoder(Bm25Model(NO_LANGUAGE))
"""What finds words for an index that is searched by meaning alone."""
logger = logging.getLogger(__name__)


class Phrases:
    """Phrases that are found in texts in any form of their words, each with another of the same
    meaning."""

    def __init__(self, pairs: Iterable[Pair], encoder: Bm25Encoder | None) -> None:
        self._encoder = encoder or PLAIN
        self._pairs: dict[int | str, list[tuple[list[frozenset[int | str]], Pair]]] = {}
        for pair in pairs:
            if words := [forms for _, _, forms in self._encoder.forms(pair[0])]:
                for one in words[0]:
                    self._pairs.setdefault(one, []).append((words, pair))

    def find(self, text: str) -> Iterator[tuple[int, int, Pair]]:
        """Yield where each phrase begins and ends in a text, with its pair."""
        own = self._encoder.forms(text)
        for place, (start, _, forms) in enumerate(own):
            some = {pair: words for one in forms for words, pair in self._pairs.get(one, ())}
            for pair, words in some.items():
                here = own[place : place + len(words)]
                if len(here) == len(words) and not any(
                    a.isdisjoint(b[2]) for a, b in zip(words, here, strict=True)
                ):
                    yield start, here[-1][1], pair

    def said(self, text: str) -> tuple[str, ...]:
        """Return the phrases that a text has, each once."""
        return tuple(dict.fromkeys(phrase for _, _, (phrase, _) in self.find(text)))

    def read(self, text: str) -> str:
        """Return a text with what means the same in brackets behind each phrase."""
        for _, end, (_, other) in sorted(self.find(text), reverse=True, key=lambda one: one[1]):
            text = f"{text[:end]} ({other}){text[end:]}"
        return text


def words_beside(pairs: Iterable[Pair], encoder: Bm25Encoder) -> dict[str, QueryWord]:
    """Return the words of what means the same as parts of a query. Together they weigh less than
    what was typed."""
    found: dict[str, QueryWord] = {}
    for typed, other in pairs:
        own = encoder.words(other)
        weight = WEIGHT * max(1, len(encoder.words(typed))) / max(1, len(own))
        for word, one in own.items():
            if word not in found or found[word].count < weight:
                found[word] = one.counting(weight)
    return found


class Synonyms:
    """The list of the settings, a file or a SELECT, read again when it may have changed. Any thread
    may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._given = settings, str(settings.retrieve.synonyms)
        self._stamp: tuple[int, int, int] | None = None
        self._reading: Future[None] | None = None
        self._read_at = -math.inf
        self._known: tuple[list[Pair], dict[str, Phrases]] = [], {}
        self.failure = ""
        """Why the list is not known, as a sentence of an answer; "" if it is."""

    def find(self, text: str, encoders: Iterable[Bm25Encoder | None]) -> list[Pair]:
        """Return what is typed in a query, each with a synonym of the list that does not stand
        there, too."""
        if is_select(self._given):
            self._ask()
        elif (stamp := file_stamp(self._path)) != self._stamp or stamp is None:
            self._stamp = stamp
            self._read()
        found, (pairs, phrases) = dict[Pair, None](), self._known
        for encoder in encoders:
            model = encoder.model.fingerprint if encoder else ""
            if model not in phrases:
                phrases[model] = Phrases(pairs, encoder)
            places = [(text[start:end], *pair) for start, end, pair in phrases[model].find(text)]
            there = {phrase.casefold() for _, phrase, _ in places}
            for typed, phrase, other in places:
                if encoder and encoder.dimensions(typed) != encoder.dimensions(
                    phrase
                ):  # MBPs, for which MBP is listed
                    found[typed, phrase] = None
                if other.casefold() not in there:
                    found[typed, other] = None
        return list(found)[:MAX_SYNONYMS]

    @property
    def _path(self) -> Path:
        return self._settings.folder / Path(self._given).expanduser()

    def _ask(self) -> None:
        """Ask the database if what it said is old. Only the first search waits for it."""
        if (
            self._reading is None or self._reading.done()
        ) and time.monotonic() - self._read_at > QUERY_SECONDS:
            self._reading = in_thread(self._read, "rag-index-synonyms")
        if self._reading and self._read_at == -math.inf:
            self.failure = "The synonyms are still being read from the database. Search again."
            with suppress(TimeoutError):
                self._reading.result(FIRST_SECONDS)

    def _read(self) -> None:
        try:
            lines = self._rows() if is_select(self._given) else read_written(self._path).split("\n")
            self._known, self.failure = (parse(lines), {}), ""
        except RagIndexError as error:
            logger.warning("[retrieve] synonyms: %s", error)
            self.failure = "The synonyms of the settings could not be read, and the log says why."
        self._read_at = time.monotonic()

    def _rows(self) -> list[str]:
        """Return what the database has, as the lines of a file. Raises SettingsError and
        SourceError."""
        from rag_index.components.sources.engine import errors_as_ours, limited, open_read_only
        from rag_index.components.sources.source_tables import single_select
        from rag_index.components.sources.undecoded import readable

        what, url = "[retrieve] synonyms", self._settings.source_url
        engine, statement = open_read_only(url, any_text=True), single_select(self._given, what)
        try:
            with (
                errors_as_ours(url, what),
                engine.connect() as connection,
                limited(connection, self._settings.source.timeout, what),
            ):
                rows = connection.execute(statement).fetchmany(MAX_SYNONYM_ROWS)
        finally:
            engine.dispose()
        if rows and len(rows[0]) != 2:
            raise SettingsError(
                f"the query gives {len(rows[0])} columns; it should give two: abbreviation and"
                " words"
            )
        texts = [[str(readable(value) or "").strip() for value in row] for row in rows]
        return [
            f"{one}{' ' if other.startswith(ONE_WAY) else ', '}{other}"
            for one, other in texts
            if one and other
        ]


def parse(lines: Iterable[str]) -> list[Pair]:
    """Return the pairs of a list: `MBP, MacBook Pro` mean the same, `VPN => virtual private
    network` goes one way.

    Raises SettingsError for a line that has no two phrases.
    """
    pairs: dict[Pair, None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        left, arrow, right = line.partition(ONE_WAY)
        own, others = (
            [" ".join(one.split()) for one in side.split(",") if one.strip()]
            for side in (left, right)
        )
        if not own or len(own) + len(others) < 2 or (arrow and not others):
            raise SettingsError(
                f"line {number} is {line.strip()!r:.60}; write MBP, MacBook Pro or VPN => tunnel"
            )
        found = [(one, other) for one in own for other in (others if arrow else own)]
        pairs |= {(one, other): None for one, other in found if one.casefold() != other.casefold()}
    return list(pairs)
