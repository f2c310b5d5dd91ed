"""A generated service desk of any size: tickets with title, description, comments, work logs and
solutions.

    title, description      one for each ticket
    comment                 about half of all documents
    worklog, solution       for about two tickets in three

The same seed gives the same desk on every machine. A document is the same in desks of different
sizes, except for the last documents, which belong to other tickets.

The texts are as people write them: short and long, with traces of mail programs and web forms. All
of it is made up: addresses are from ranges and domains that are reserved for examples. The words
and sentences are in servicedesk.json, where a name in braces is a slot for one of `_pools`. Only
`random.Random.random` is used, because Python promises to keep that one generator, so a seed gives
the same texts in every version.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from rag_index.errors import SettingsError
from rag_index.first_run.samples import new_database

T = TypeVar("T")
_Template = tuple[str | tuple[str, ...], ...]
"""Literal texts, and pools from which one text is picked."""
_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
_WORDS = {name: tuple(text.split("|")) for name, text in _DATA["words"].items()}
AUTHORS = tuple(f"{first} {last}" for last in _WORDS["last"] for first in _WORDS["first"])
_LANGUAGES = (
    ("en",) * 45 + ("de",) * 8 + ("fr", "fr", "el", "el", "ru", "ru", "ar", "ar", "zh", "zh", "ja")
)
_NOTHING = (None, None, None, None, "", "", "", " ", "\r\n\r\n", " \t ", "\u00a0")
_SENTENCES = (
    (1,) * 16
    + (2,) * 12
    + (3,) * 10
    + (4,) * 8
    + (5,) * 6
    + (6, 6, 6, 7, 7, 8, 8, 9, 11, 13, 16, 22)
)
_ENTITIES = {
    "ä": "&auml;",
    "ö": "&ouml;",
    "ü": "&uuml;",
    "ß": "&szlig;",
    '"': "&quot;",
    "'": "&#39;",
}
_ZERO_WIDTH = ("\u200b", "\ufeff", "\u00ad", "\u200d", "\u2060", "\u200e")
FULL_SIZE = {
    "comment": 108_129,
    "description": 30_871,
    "solution": 24_305,
    "title": 30_871,
    "worklog": 19_896,
}
"""Numbers of documents by table; other sizes keep these proportions. The total is 214,072."""
_COLUMNS = ("ticket_id", "author", "priority", "created_at", "updated_at")
_PRIORITIES = ("low",) * 5 + ("normal",) * 20 + ("high",) * 6 + ("urgent",)
_FIRST_DAY = datetime(2020, 1, 1)  # noqa: DTZ001 - a TIMESTAMP without time zone, as such databases have
_BETWEEN_TICKETS = 1200
"""Seconds from one ticket to the next, on average."""
_STILL_OPEN = 40
"""About this many tickets receive comments at a time."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a ticket and the language of its author, as templates to fill."""

    language: str
    titles: tuple[_Template, ...]
    symptoms: tuple[_Template, ...]
    steps: tuple[_Template, ...]
    foreign: tuple[_Template, ...]
    """Sentences in the author's language; none for English."""


def _pools(words: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the texts of each slot."""
    sites = words["sites"]
    return {
        "app": words["apps"],
        "company": tuple(
            f"{name} {form}"
            for name in words["companies"]
            for form in ("Ltd", "GmbH", "S.A.", "Inc.")
        ),
        "dept": words["departments"],
        "day": words["days"],
        "error": (
            tuple(f"0x8007{i * 2371 % 65536:04X}" for i in range(60))
            + tuple(f"{fault}_{i * 37 % 900 + 100}" for fault in words["faults"] for i in range(9))
        ),
        "file": tuple(
            f"{name}_{year}.{suffix}"
            for name in words["files"]
            for year in range(2017, 2025)
            for suffix in ("xlsx", "pdf", "csv")
        ),
        "first": words["first"],
        "floor": tuple(str(i) for i in range(1, 13)),
        "host": tuple(
            f"{site.upper()}-NB-{i * 7919 % 9000 + 1000}" for site in sites for i in range(80)
        ),
        "ip": (
            tuple(f"192.0.2.{i}" for i in range(2, 255))
            + tuple(f"10.{i % 31}.{i % 7}.{i}" for i in range(1, 250))
        ),
        "number": tuple(str(i) for i in range(2, 61)),
        "phone": tuple(f"+49 30 23125 {i * 67 % 900 + 100}" for i in range(200)),
        "printer": tuple(f"{site}-prn-{i:03d}" for site in sites for i in range(40)),
        "room": tuple(
            f"{building}{floor}.{i:02d}"
            for building in "ABC"
            for floor in range(1, 7)
            for i in range(1, 24)
        ),
        "server": tuple(
            f"{site}-{role}{i:02d}"
            for site in sites
            for role in ("app", "db", "fs", "web")
            for i in range(9)
        ),
        "ticket": tuple(f"INC{i * 104729 % 900000 + 100000:07d}" for i in range(900)),
        "time": tuple(
            f"{hour:02d}:{minute:02d}" for hour in range(6, 22) for minute in range(0, 60, 7)
        ),
        "url": tuple(
            f"https://{page}.example.{end}/{i:x}"
            for page in words["pages"]
            for end in ("com", "org")
            for i in range(9, 40)
        ),
        "user": tuple(
            f"{first[0]}{last[:6]}".lower().replace("'", "")
            for first in words["first"]
            for last in words["last"]
        ),
        "version": tuple(
            f"{major}.{minor}.{major * minor % 17}" for major in range(2, 12) for minor in range(12)
        ),
    }


_POOLS = _pools(_WORDS)


def _compiled(templates: Iterable[str]) -> tuple[_Template, ...]:
    return tuple(
        tuple(
            part
            for literal, slot, _, _ in string.Formatter().parse(text)
            for part in (literal, slot and _POOLS[slot])
            if part
        )
        for text in templates
    )


_ENGLISH = tuple(
    Subject(
        "en",
        _compiled(topic["titles"]),
        _compiled(topic["symptoms"]),
        _compiled([*topic["steps"], *topic["causes"]]),
        (),
    )
    for topic in _DATA["topics"]
)
_FOREIGN = {language: _compiled(sentences) for language, sentences in _DATA["foreign"].items()}
_SUBJECTS = tuple(
    replace(about, language=language, foreign=_FOREIGN.get(language, ()))
    for language in _LANGUAGES
    for about in _ENGLISH
)
_GENERIC = _compiled(_DATA["generic"])
_GREETINGS = _compiled(_DATA["greetings"])
_CLOSINGS = _compiled(_DATA["closings"])
_TRACES = _compiled(_DATA["traces"])
_ADDENDA = _compiled(_DATA["addenda"])
_HEADERS = _compiled(_DATA["headers"])
_EMOJI: list[str] = _DATA["emoji"]
_CANNED: list[str] = _DATA["canned"]
_DISCLAIMERS: list[str] = _DATA["disclaimers"]
_PREFIXES: list[str] = _DATA["prefixes"]
_SHORT_TITLES: list[str] = _DATA["short_titles"]


class Prose:
    """An endless stream of texts; equal seeds give equal streams."""

    __slots__ = ("_random",)

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def below(self, limit: int) -> int:
        """Return an integer from 0 to limit - 1."""
        return int(self._random() * limit)

    def chance(self, share: float) -> bool:
        """Return True in this share of calls."""
        return self._random() < share

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, all equally likely."""
        return choices[int(self._random() * len(choices))]

    def title(self, about: Subject) -> str | None:
        """Return a title of about 60 characters; sometimes it is empty, or a stock phrase."""
        roll = self._random()
        if roll < 0.016:
            return self.pick(_NOTHING)
        if roll < 0.046:
            return self.pick(_SHORT_TITLES)
        if about.foreign and roll < 0.5:
            return self._fill(self.pick(about.foreign))
        text = self._fill(self.pick(about.titles))
        if self.chance(0.15):
            text = self.pick(_PREFIXES) + text
        turn = self.below(len(_ADDENDA))
        while len(text) < 40 or (len(text) < 90 and self.chance(0.5)):
            text += self._fill(_ADDENDA[turn % len(_ADDENDA)])
            turn += 1
        return text if roll > 0.06 else f"{self.pick(_EMOJI)} {text}"

    def body(
        self, about: Subject, *, steps: bool, scale: int = 1, threads: bool = True
    ) -> str | None:
        """Return a text of any length: nothing (1.6%), a stock phrase (3%), a thread of mails
        (0.25%), else a letter.

        With `steps`, most sentences say what was done instead of what is wrong. `scale` multiplies
        their number.
        """
        roll = self._random()
        if roll < 0.016:
            return self.pick(_NOTHING)
        if roll < 0.046:
            return self.pick(_CANNED)
        if roll < 0.0485 and threads:
            return self._thread(about)
        return self._styled(self._letter(about, self.pick(_SENTENCES) * scale, steps=steps))

    def sentences(self, about: Subject, count: int, *, steps: bool) -> str:
        """Return sentences on one line; no two in a row come from the same template."""
        first = self.below(
            720
        )  # divisible by 1 to 6 and some more, so all members of such a pool are equally likely
        return " ".join(
            [self._sentence(about, turn, steps=steps) for turn in range(first, first + count)]
        )

    def _fill(self, template: _Template) -> str:
        rand = self._random
        return "".join(
            [part if isinstance(part, str) else part[int(rand() * len(part))] for part in template]
        )

    def _sentence(self, about: Subject, turn: int, *, steps: bool) -> str:
        roll = self._random()
        if about.foreign and roll < 0.7:
            pool = about.foreign
        elif roll > 0.6:
            pool = _GENERIC
        else:
            pool = about.steps if steps == (roll > 0.15) else about.symptoms
        return self._fill(pool[turn % len(pool)])

    def _letter(self, about: Subject, count: int, *, steps: bool) -> list[str]:
        """Return paragraphs, sometimes with a greeting, a stack trace, a closing or a
        disclaimer."""
        roll = self._random()
        paragraphs = [self._fill(self.pick(_GREETINGS))] if roll < 0.4 else []
        for start in range(0, count, 4):
            paragraphs.append(self.sentences(about, min(4, count - start), steps=steps))
        if 0.3 < roll < 0.35:
            paragraphs.append(self._fill(self.pick(_TRACES)))
        if 0.35 < roll < 0.365:
            paragraphs.append(self._long_word())
        if roll < 0.3 or roll > 0.93:
            paragraphs.append(self._fill(self.pick(_CLOSINGS)))
        if roll < 0.07:
            paragraphs.append(self.pick(_DISCLAIMERS))
        return paragraphs

    def _styled(self, paragraphs: list[str]) -> str:
        """Return the paragraphs joined as one of the programs joins them that people write with."""
        roll = self._random()
        if roll < 0.62:
            text = "\n\n".join(paragraphs)
        elif roll < 0.76:
            text = "\r\n".join(paragraphs)
        elif roll < 0.9:
            text = _html(paragraphs, styled=roll < 0.82)
        elif roll < 0.93:
            text = "\t" + "\n\t".join(paragraphs)
        else:
            text = " ".join(paragraphs)
        return self._odd(text, roll * 100 % 1)

    def _odd(self, text: str, roll: float) -> str:
        """Return the text, sometimes with invisible characters, emoji, trailing blanks, or in
        capitals."""
        if roll < 0.85:
            return text
        if roll < 0.91:
            return f"{text} {self.pick(_EMOJI)}"
        if roll < 0.93:
            return text.replace(" ", f" {self.pick(_ZERO_WIDTH)}", 1 + self.below(4))
        if roll < 0.95:
            return text.replace("ü", "u\u0308").replace(" ", "\u00a0", 2)
        if roll < 0.96:
            return text.upper()
        return text + self.pick(("   ", "\r\n\r\n\r\n", "\n\n--\n", " ...", "!!!!!", "\t"))

    def _long_word(self) -> str:
        """Return an encoded picture or a tracking link: hundreds or thousands of characters without
        a blank."""
        blocks = 3 + self.below(4 if self.chance(0.6) else 60)
        start = self.below(1 << 48)
        raw = b"".join(hashlib.sha512(b"%d/%d" % (start, i)).digest() for i in range(blocks))
        if blocks < 7:
            return f"https://links.example.com/?url=https%3A%2F%2Fportal.example.org%2F&data={raw.hex()}"
        return f"data:image/png;base64,{base64.b64encode(raw).decode()}"

    def _thread(self, about: Subject) -> str:
        """Return a letter with all earlier ones below it, 20,000 to 60,000 characters in total."""
        target = 20_000 + int(self._random() ** 2 * 40_000)
        end, quoting = self.pick(("\n", "\r\n")), self.chance(0.5)
        letters, size, depth = ["\n\n".join(self._letter(about, 2, steps=True))], 0, 0
        while size < target:
            depth += 1
            letter = "\n\n".join(self._letter(about, self.pick(_SENTENCES), steps=depth % 2 == 0))
            quoted = self._fill(self.pick(_HEADERS)) + letter + "\n\n" + self.pick(_DISCLAIMERS)
            if quoting:
                prefix = "> " * min(depth, 8)
                quoted = prefix + quoted.replace("\n", f"\n{prefix}")
            letters.append(quoted)
            size += len(quoted)
        return "\n\n".join(letters).replace("\r\n", "\n").replace("\n", end)


def _html(paragraphs: list[str], *, styled: bool) -> str:
    """Return the paragraphs as HTML, as a web form or a mail program (`styled`) stores it."""
    text = "\n".join(paragraphs)
    for character, entity in _ENTITIES.items():
        text = text.replace(character, entity)
    if not styled:
        return text.replace("\r\n", "\n").replace("\n", "<br>\r\n").replace(". ", ".&nbsp; ")
    opening = '<p style="margin:0cm;font-size:11.0pt;font-family:&quot;Calibri&quot;,sans-serif">'
    return "".join(f"{opening}{line or '&nbsp;'}</p>" for line in text.split("\n"))


TABLES: dict[str, tuple[str, ...]] = {
    "comment": ("body",),
    "description": ("body",),
    "solution": ("symptom", "resolution"),
    "title": ("title",),
    "worklog": ("body",),
}
"""Tables, with the columns that hold their text."""


_Row = tuple[int, int, str | None, str, str, str, *tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Values that all documents of a ticket share."""

    number: int
    about: Subject
    priority: str
    opened: int
    """Seconds after the first day."""


def table_sizes(documents: int) -> dict[str, int]:
    """Return the numbers of documents by table: at least one each, exactly `documents` in total, as
    in `FULL_SIZE`.

    Raises SettingsError for fewer than five documents.
    """
    if documents < len(TABLES):
        raise SettingsError(
            f"{documents} documents are too few for {len(TABLES)} tables; ask for {len(TABLES)} or"
            " more"
        )
    total = sum(FULL_SIZE.values())
    sizes = {table: max(1, documents * FULL_SIZE[table] // total) for table in TABLES}
    sizes["comment"] += documents - sum(sizes.values())
    return sizes


def write(out: Path, *, documents: int = 20_000, seed: int = 1) -> dict[str, int]:
    """Write the SQLite database `out`, replacing what was there, and return the number of rows by
    table.

    Rows are made one by one, so memory does not grow with `documents`. Raises SettingsError for
    fewer than five documents, and SourceError if the file cannot be written.
    """
    sizes = table_sizes(documents)
    with new_database(out) as connection:
        for table, texts in TABLES.items():
            columns = "".join(f", {column} TEXT" for column in texts)
            connection.execute(
                f"CREATE TABLE {table} (id INTEGER NOT NULL PRIMARY KEY, ticket_id INTEGER NOT"
                " NULL, author TEXT, priority TEXT NOT NULL, created_at TIMESTAMP NOT NULL,"
                f" updated_at TIMESTAMP NOT NULL{columns})"
            )
            placeholders = ", ".join("?" * (1 + len(_COLUMNS) + len(texts)))
            rows = _rows(table, sizes[table], sizes["title"], seed)
            connection.executemany(f"INSERT INTO {table} VALUES ({placeholders})", rows)
    return sizes


def scaffold(database: str) -> str:
    """Return a rag-index.toml with an index for each table of the SQLite file `database`."""
    indexes = [
        f'\n[[indexes]]\nname = "{table}s"\ntable = "{table}"\nkey = "id"\n'
        f"text = {json.dumps(texts)}\npayload = {json.dumps(_COLUMNS)}\n"
        for table, texts in TABLES.items()
    ]
    return f'[source]\nurl = "sqlite:///{database}"\n' + "".join(indexes)


def _rows(table: str, count: int, tickets: int, seed: int) -> Iterator[_Row]:
    """Yield the first `count` rows of a table's endless stream, for tickets from 1 to `tickets`."""
    prose = Prose(f"{seed}/{table}")
    for key in range(1, count + 1):
        ticket = _ticket(min(_ticket_number(table, key, prose), tickets), seed)
        later = (
            0
            if table in ("title", "description")
            else int(10 ** (1 + 4.5 * prose.below(1000) / 1000))
        )
        created = ticket.opened + later
        updated = created + (60 + prose.below(500_000) if prose.chance(0.15) else 0)
        author = None if prose.chance(0.01) else prose.pick(AUTHORS)
        texts = _texts(table, ticket.about, prose)
        yield (
            key,
            ticket.number,
            author,
            ticket.priority,
            _timestamp(created),
            _timestamp(updated),
            *texts,
        )


def _ticket_number(table: str, key: int, prose: Prose) -> int:
    """Return the ticket of a row: titles and descriptions have one per ticket, others spread over
    the open tickets."""
    if table in ("title", "description"):
        return key
    newest = key * FULL_SIZE["title"] // FULL_SIZE[table] + 1
    return max(1, newest - prose.below(_STILL_OPEN))


def _ticket(number: int, seed: int) -> _Ticket:
    """Return a ticket made of its number and the seed alone, so every table has the same one
    without a lookup."""
    value = (
        number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03
    ) & _MASK  # mixed as in splitmix64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    opened = number * _BETWEEN_TICKETS + (value >> 20) % _BETWEEN_TICKETS
    return _Ticket(
        number,
        _SUBJECTS[(value >> 32) % len(_SUBJECTS)],
        _PRIORITIES[value % len(_PRIORITIES)],
        opened,
    )


def _texts(table: str, about: Subject, prose: Prose) -> tuple[str | None, ...]:
    if table == "title":
        return (prose.title(about),)
    if table == "description":
        return (prose.body(about, steps=False, scale=2),)
    if table == "worklog":
        return (prose.body(about, steps=True, threads=False),)
    if table == "comment":
        return (prose.body(about, steps=prose.chance(0.6)),)
    resolution = prose.body(about, steps=True, threads=False)
    if resolution is None or not resolution.strip():
        return (None if prose.chance(0.8) else "", resolution)
    return (
        prose.sentences(about, 1 + prose.below(3), steps=False) if prose.chance(0.95) else None,
        resolution,
    )


def _timestamp(seconds: int) -> str:
    return (_FIRST_DAY + timedelta(seconds=seconds)).isoformat(" ")
