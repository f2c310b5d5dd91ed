"""What is indexed while runs are killed: a seeded corpus of small documents, and a night's changes to it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.project import WORDS, Project

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SHARD_DOCUMENTS", "edited", "made"]

SHARD_DOCUMENTS = {"first": 24, "second": 10}
"""Documents a shard: small, so that a run is many shards."""

Row = tuple[int, str | None, str | None, str, int]


def made(folder: Path, documents: int, *, seed: int = 7, extra: str = "") -> Project:
    """A project whose source has so many documents; every fifth is of several chunks, some have no text or the same."""
    random_ = random.Random(seed)
    project = Project(folder, extra=extra)
    with project.source() as db:
        db.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", [_row(random_, i) for i in range(1, documents + 1)])
    return project


def edited(project: Project, *, seed: int = 8) -> Project:
    """Change, shorten, empty, fill, payload-only edit, delete and insert, each some percent of the documents."""
    random_ = random.Random(seed)
    with project.source() as db:
        ids = [row[0] for row in db.execute("SELECT id FROM note ORDER BY id")]
        random_.shuffle(ids)
        part = len(ids) // 40
        pieces = [ids[start : start + part] for start in range(0, len(ids), part)]
        for i in _taken(pieces, 6):
            db.execute("UPDATE note SET body = ? WHERE id = ?", (_body(random_, random_.choice((1, 8))), i))
        for i in _taken(pieces, 2):
            db.execute("UPDATE note SET title = 'short', body = ? WHERE id = ?", (f"now {i}", i))
        for i in _taken(pieces, 1):
            db.execute("UPDATE note SET title = NULL, body = ' ' WHERE id = ?", (i,))
        for i in _taken(pieces, 3):
            db.execute("UPDATE note SET author = ?, priority = NULL WHERE id = ?", (f"editor {i}", i))
        for i in _taken(pieces, 1):
            db.execute("UPDATE note SET body = body || ' And on.', author = 'both' WHERE id = ?", (i,))
        for i in _taken(pieces, 2):
            db.execute("DELETE FROM note WHERE id = ?", (i,))
        first = max(ids) + 1
        db.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", [_row(random_, first + n) for n in range(4 * part)])
    return project


def _taken(pieces: list[list[int]], count: int) -> list[int]:
    return [i for _ in range(count) for i in pieces.pop()]


def _row(random_: random.Random, i: int) -> Row:
    if i % 41 == 0:
        return i, None, "  ", "nobody", 0
    if i % 29 == 0:
        return i, "The same", "text as others have.", f"author {i % 7}", i % 3
    return i, f"Note {i}", _body(random_, 8 if i % 5 == 0 else 1), f"author {i % 7}", i % 3


def _body(random_: random.Random, sentences: int) -> str:
    return " ".join(f"The {' '.join(random_.choices(WORDS, k=9))} does not work." for _ in range(sentences))
