"""The corpus that is indexed while runs are killed: seeded small documents, and a night's changes
to them."""

import random
from pathlib import Path

from tests.project import WORDS, Project

Row = tuple[int, str | None, str | None, str, int]


def make_project(folder: Path, documents: int, *, extra: str = "") -> Project:
    """Return a project whose source has this many documents. Every fifth has several chunks; some
    have no text, and some have equal texts."""
    random_ = random.Random(7)
    project = Project(folder, extra=extra)
    with project.source() as db:
        db.executemany(
            "INSERT INTO note VALUES (?, ?, ?, ?, ?)",
            [_row(random_, i) for i in range(1, documents + 1)],
        )
    return project


def edit_corpus(project: Project, *, seed: int = 8) -> Project:
    """Change, shorten, empty, fill, delete and insert a few percent of the documents each, and some
    payloads alone."""
    random_ = random.Random(seed)
    with project.source() as db:
        ids = [row[0] for row in db.execute("SELECT id FROM note ORDER BY id")]
        random_.shuffle(ids)
        part = len(ids) // 40
        parts = [ids[start : start + part] for start in range(0, len(ids), part)]
        for i in _take(parts, 6):
            db.execute(
                "UPDATE note SET body = ? WHERE id = ?", (_body(random_, random_.choice((1, 8))), i)
            )
        for i in _take(parts, 2):
            db.execute("UPDATE note SET title = 'short', body = ? WHERE id = ?", (f"now {i}", i))
        for i in _take(parts, 1):
            db.execute("UPDATE note SET title = NULL, body = ' ' WHERE id = ?", (i,))
        for i in _take(parts, 3):
            db.execute(
                "UPDATE note SET author = ?, priority = NULL WHERE id = ?", (f"editor {i}", i)
            )
        for i in _take(parts, 1):
            db.execute(
                "UPDATE note SET body = body || ' And on.', author = 'both' WHERE id = ?", (i,)
            )
        for i in _take(parts, 2):
            db.execute("DELETE FROM note WHERE id = ?", (i,))
        first = max(ids) + 1
        db.executemany(
            "INSERT INTO note VALUES (?, ?, ?, ?, ?)",
            [_row(random_, first + n) for n in range(4 * part)],
        )
    return project


def _take(parts: list[list[int]], count: int) -> list[int]:
    return [i for _ in range(count) for i in parts.pop()]


def _row(random_: random.Random, i: int) -> Row:
    if i % 41 == 0:
        return i, None, "  ", "nobody", 0
    if i % 29 == 0:
        return i, "The same", "text as others have.", f"author {i % 7}", i % 3
    return i, f"Note {i}", _body(random_, 8 if i % 5 == 0 else 1), f"author {i % 7}", i % 3


def _body(random_: random.Random, sentences: int) -> str:
    return " ".join(
        f"The {' '.join(random_.choices(WORDS, k=9))} does not work." for _ in range(sentences)
    )
