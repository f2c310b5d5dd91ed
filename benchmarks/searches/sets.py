"""Documents with queries and what is right for each: public test collections, and sets made of what
every machine has.

cranfield, cisi             public collections with graded judgements, in a folder that
`--collections` names summaries                   the summary of an entry of Python's documentation
finds the rest of the entry names, phrases              its name finds the entry, and so do four to
six neighbouring words german, japanese, chinese   messages of programs in translation, found by a
part of one that has a gap
"""

from __future__ import annotations

import gettext
import gzip
import random
import re
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.first_run.samples import pydocs

if TYPE_CHECKING:
    from collections.abc import Callable

SEED, QUERIES = 7, 300
LENGTHS = (2, 3, 4, 6, 9, 14, 24, 40)
WORD = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]{2,4}|[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """Documents (id, title, text), and queries, each with the documents that are right for it and
    how right."""

    name: str
    documents: list[tuple[str, str, str]]
    queries: list[tuple[str, dict[str, int]]]
    graded: bool = False
    settings: str = ""


def nonsense(judged: JudgedSet) -> list[str]:
    """Return queries of words that each come from another document, some of them backwards."""
    chance = random.Random(SEED)
    texts = [words for _, _, text in judged.documents if len(words := WORD.findall(text)) > 3]
    found = []
    for number in range(len(LENGTHS) * 20):
        some = [chance.choice(chance.choice(texts)) for _ in range(LENGTHS[number % len(LENGTHS)])]
        found.append(
            " ".join(word[::-1] if number % 2 and chance.random() < 0.3 else word for word in some)
        )
    return found


def collection(name: str, folder: Path | None) -> JudgedSet | None:
    """Return a collection with judgements, None if there is no folder."""
    if folder is None:
        return None
    place = folder / {"cranfield": "cran"}.get(name, name)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "docs.db"
        path.write_bytes(gzip.decompress((place / "docs.db.gz").read_bytes()))
        with closing(sqlite3.connect(path)) as db:
            documents = [
                (str(key), title or "", text or "")
                for key, title, text in db.execute("SELECT id, title, text FROM doc")
            ]
    judged: dict[str, dict[str, int]] = {}
    for line in (place / "qrels.txt").read_text().splitlines():
        topic, _, document, grade = line.split()
        if int(grade) > 0:
            judged.setdefault(topic, {})[document] = int(grade)
    topics = [line.split("\t", 1) for line in (place / "topics.tsv").read_text().splitlines()]
    return JudgedSet(
        name,
        documents,
        [(text, judged[topic]) for topic, text in topics if topic in judged],
        graded=True,
    )


@cache
def _entries() -> list[tuple[str, str, str]]:
    """Return name, summary and body of the entries of Python's documentation."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "pydocs.db"
        pydocs.write(path)
        with closing(sqlite3.connect(path)) as db:
            tables = ("class", "function", "method", "module", "topic")
            rows = [
                row
                for table in tables
                for row in db.execute(f"SELECT name, summary, body FROM {table}")
            ]
    return [
        (name, summary, body)
        for name, summary, body in {row[0]: row for row in rows}.values()
        if body
    ]


def summaries(_: Path | None) -> JudgedSet:
    """Return entries without their summaries, and summaries that are of one entry alone."""
    asked = Counter(summary for _, summary, _ in _entries())
    queries = [
        (summary, {name: 1})
        for name, summary, _ in _entries()
        if asked[summary] == 1 and len(summary) > 20
    ]
    return JudgedSet(
        "summaries", [(name, "", body) for name, _, body in _entries()], _some(queries)
    )


def names(_: Path | None) -> JudgedSet:
    """Return entries, and their names."""
    return JudgedSet("names", _entries(), _some([(name, {name: 1}) for name, _, _ in _entries()]))


def phrases(_: Path | None) -> JudgedSet:
    """Return entries, and some words of the middle of each."""
    chance, queries = random.Random(SEED), []
    for name, _, body in _entries():
        words = body.split()
        if len(words) > 12:
            start = chance.randrange(len(words) - 6)
            queries.append((" ".join(words[start : start + chance.randint(4, 6)]), {name: 1}))
    return JudgedSet("phrases", _entries(), _some(queries))


def messages(name: str, code: str, _: Path | None) -> JudgedSet | None:
    """Return messages of this machine's programs in a language, None if it has few."""
    texts: dict[str, str] = {}
    for path in sorted(Path("/usr/share/locale", code, "LC_MESSAGES").glob("*.mo")):
        with path.open("rb") as file, suppress(OSError, UnicodeDecodeError):
            for number, text in enumerate(gettext.GNUTranslations(file)._catalog.values()):
                if 40 <= len(text) <= 1000 and text not in texts:
                    texts[text] = f"{path.stem}/{number}"
    chance, queries = random.Random(SEED), []
    for text, key in texts.items():
        words = text.split() if name == "german" else re.findall(r"[^\W\d_a-zA-Z]{10,}", text)[:1]
        units = words if name == "german" else list("".join(words))
        if len(units) >= 8:
            start = chance.randrange(len(units) - 7)
            gap = chance.randint(2, 5)
            part = [*units[start : start + gap], " ", *units[start + gap + 1 : start + 8]]
            queries.append(((" " if name == "german" else "").join(part), {key: 1}))
    documents = [(key, "", text) for text, key in texts.items()]
    settings = f'language = "{name}"\n'
    return (
        JudgedSet(name, documents, _some(queries), settings=settings)
        if len(documents) > 500
        else None
    )


def _some(queries: list[tuple[str, dict[str, int]]]) -> list[tuple[str, dict[str, int]]]:
    return random.Random(SEED).sample(queries, min(QUERIES, len(queries)))


SETS: dict[str, Callable[[Path | None], JudgedSet | None]] = {
    "cranfield": partial(collection, "cranfield"),
    "cisi": partial(collection, "cisi"),
    "summaries": summaries,
    "names": names,
    "phrases": phrases,
    "german": partial(messages, "german", "de"),
    "japanese": partial(messages, "japanese", "ja"),
    "chinese": partial(messages, "chinese", "zh_CN"),
}
