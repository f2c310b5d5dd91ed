"""Synonyms of a project, such as MBP and MacBook Pro. A search for one finds texts with the other.

The phrases of a query are looked up in any of their forms, and their synonyms are searched for as
well, at a lower weight. When texts are compared with the query, the phrase that was typed is added
behind each of its synonyms.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
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
"""A phrase and a synonym of it."""
Forms = list[frozenset[int | str]]
"""The words of a phrase: for each, the forms in which it may stand in a text."""
ONE_WAY = "=>"
WEIGHT = 0.6
"""Weight of all synonyms of a phrase together, where the phrase itself has 1. Chosen."""
MAX_SYNONYMS = 12
"""Synonyms that a query is searched for with at most. Chosen."""
QUERY_SECONDS = 10.0
"""How long the answer of the database is used, in seconds. Chosen."""
FIRST_SECONDS = 2.0
"""How long the first search waits for the database, in seconds. Chosen; later ones do not wait."""
MAX_SYNONYM_ROWS = 50_000
"""Rows that are read of the database at most. Chosen."""
PLAIN = Bm25Encoder(Bm25Model(NO_LANGUAGE))
"""The encoder for an index that is searched by meaning alone."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundPhrase:
    """A phrase of the list in a text, from character `start` to `end`."""

    start: int
    end: int
    phrase: str
    """The phrase as it is listed. It may stand in the text in another form: "MBPs" for "MBP"."""
    synonym: str


class Phrases:
    """Phrases with a synonym each, which are found in texts in any form of their words."""

    def __init__(self, pairs: Iterable[Pair], encoder: Bm25Encoder | None) -> None:
        self._encoder = encoder or PLAIN
        self._pairs: dict[int | str, list[tuple[Forms, Pair]]] = {}
        """The phrases by each form of their first word."""
        for pair in pairs:
            words = [forms for _, _, forms in self._encoder.forms(pair[0])]
            # A phrase of signs alone has no words.
            if words:
                for form in words[0]:
                    self._pairs.setdefault(form, []).append((words, pair))

    def find(self, text: str) -> Iterator[FoundPhrase]:
        """Yield the phrases that a text has."""
        own = self._encoder.forms(text)
        for place, (start, _, forms) in enumerate(own):
            # Of a word with several forms, a phrase counts once.
            candidates: dict[Pair, Forms] = {}
            for form in forms:
                candidates.update({pair: words for words, pair in self._pairs.get(form, ())})
            for (phrase, synonym), words in candidates.items():
                following = own[place : place + len(words)]
                if len(following) == len(words) and _have_forms(following, words):
                    yield FoundPhrase(start, following[-1][1], phrase, synonym)

    def phrases_in(self, text: str) -> tuple[str, ...]:
        """Return the phrases that a text has, each once."""
        phrases = [found.phrase for found in self.find(text)]
        return tuple(dict.fromkeys(phrases))

    def read(self, text: str) -> str:
        """Return a text with the synonym of each phrase in brackets behind it."""
        # From the end, so that the places of the other phrases stay right.
        for found in sorted(self.find(text), key=lambda found: found.end, reverse=True):
            text = f"{text[: found.end]} ({found.synonym}){text[found.end :]}"
        return text


def _have_forms(
    following: Iterable[tuple[int, int, frozenset[int | str]]],
    words: Iterable[frozenset[int | str]],
) -> bool:
    pairs = zip(following, words, strict=True)
    return not any(forms.isdisjoint(word) for (_, _, forms), word in pairs)


def words_beside(pairs: Iterable[Pair], encoder: Bm25Encoder) -> dict[str, QueryWord]:
    """Return the words of the synonyms in pairs, as words of a query. All words of a synonym
    together weigh `WEIGHT` times as much as the phrase that was typed."""
    found: dict[str, QueryWord] = {}
    for typed, synonym in pairs:
        words = encoder.words(synonym)
        typed_count = max(1, len(encoder.words(typed)))
        weight = WEIGHT * typed_count / max(1, len(words))
        for name, word in words.items():
            # A word of several synonyms has its greatest weight.
            if name not in found or found[name].count < weight:
                found[name] = word.counting(weight)
    return found


class Synonyms:
    """The synonyms of the settings: a file or a SELECT, which is read again when it may have changed.
    Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._given = str(settings.retrieve.synonyms)
        self._stamp: tuple[int, int, int] | None = None
        self._reading: Future[None] | None = None
        self._read_at = -math.inf
        self._known: tuple[list[Pair], dict[str, Phrases]] = [], {}
        """The pairs, and by encoder what finds them. Both are replaced at once, since several
        threads read them."""
        self.failure = ""
        """Why the synonyms are not known, as a sentence of an answer; empty if they are."""

    def find(self, text: str, encoders: Iterable[Bm25Encoder | None]) -> list[Pair]:
        """Return the phrases of a query, each with a synonym that the query does not have itself.

        Args:
            text: The query.
            encoders: Those of the searched indexes; None for an index without words.
        """
        self._refresh()
        found: dict[Pair, None] = {}
        pairs, phrases = self._known
        for encoder in encoders:
            model = encoder.model.fingerprint if encoder else ""
            if model not in phrases:
                phrases[model] = Phrases(pairs, encoder)
            places = list(phrases[model].find(text))
            present = {place.phrase.casefold() for place in places}
            for place in places:
                typed = text[place.start : place.end]
                # "MBPs" was typed, MBP is listed, and the index has them as different words.
                if encoder and encoder.dimensions(typed) != encoder.dimensions(place.phrase):
                    found[typed, place.phrase] = None
                if place.synonym.casefold() not in present:
                    found[typed, place.synonym] = None
        return list(found)[:MAX_SYNONYMS]

    def _refresh(self) -> None:
        """Read the synonyms if they may have changed."""
        if is_select(self._given):
            self._query_if_old()
            return
        stamp = file_stamp(self._path)
        # A file that does not exist has no stamp.
        if stamp is None or stamp != self._stamp:
            self._stamp = stamp
            self._read()

    @property
    def _path(self) -> Path:
        path = Path(self._given).expanduser()
        return self._settings.folder / path

    def _query_if_old(self) -> None:
        """Start to query the database if its last answer is old. Only the first search waits."""
        is_reading = self._reading is not None and not self._reading.done()
        if not is_reading and time.monotonic() - self._read_at > QUERY_SECONDS:
            self._reading = in_thread(self._read, "rag-index-synonyms")
        if self._reading and self._read_at == -math.inf:
            self.failure = "The synonyms are still being read from the database. Search again."
            with suppress(TimeoutError):
                self._reading.result(FIRST_SECONDS)

    def _read(self) -> None:
        try:
            lines = self._rows() if is_select(self._given) else read_written(self._path).split("\n")
            self._known = parse(lines), {}
            self.failure = ""
        except RagIndexError as error:
            logger.warning("[retrieve] synonyms: %s", error)
            self.failure = "The synonyms of the settings could not be read, and the log says why."
        self._read_at = time.monotonic()

    def _rows(self) -> list[str]:
        """Return the rows of the SELECT as the lines of a file. Raises SettingsError and
        SourceError."""
        from rag_index.components.sources.engine import errors_as_ours, limited, open_read_only
        from rag_index.components.sources.source_tables import single_select
        from rag_index.components.sources.undecoded import readable

        what = "[retrieve] synonyms"
        url = self._settings.source_url
        engine = open_read_only(url, any_text=True)
        statement = single_select(self._given, what)
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
        lines: list[str] = []
        for row in rows:
            phrase, others = [str(readable(value) or "").strip() for value in row]
            if phrase and others:
                # The second column may begin with an arrow: "=> virtual private network".
                separator = " " if others.startswith(ONE_WAY) else ", "
                lines.append(f"{phrase}{separator}{others}")
        return lines


def parse(lines: Iterable[str]) -> list[Pair]:
    """Return the pairs of a list of synonyms.

    parse(["MBP, MacBook Pro"])  # [("MBP", "MacBook Pro"), ("MacBook Pro", "MBP")]
    parse(["VPN => private network"])  # [("VPN", "private network")]

    Raises:
        SettingsError: a line does not have two phrases.
    """
    pairs: dict[Pair, None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # "VPN => private network" goes one way, "MBP, MacBook Pro" goes both ways.
        left, arrow, right = line.partition(ONE_WAY)
        phrases = _phrases_of(left)
        synonyms = _phrases_of(right) if arrow else phrases
        has_two = bool(synonyms) if arrow else len(phrases) > 1
        if not phrases or not has_two:
            raise SettingsError(
                f"line {number} is {line.strip()!r:.60}; write MBP, MacBook Pro or VPN => tunnel"
            )
        for phrase in phrases:
            for synonym in synonyms:
                if phrase.casefold() != synonym.casefold():
                    pairs[phrase, synonym] = None
    return list(pairs)


def _phrases_of(side: str) -> list[str]:
    phrases = [" ".join(phrase.split()) for phrase in side.split(",")]
    return [phrase for phrase in phrases if phrase]
