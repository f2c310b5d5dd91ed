"""What is held of a table of long texts: never more than about a page of characters."""

import tracemalloc

import pytest

from rag_index.components.sources import open_source
from rag_index.components.sources.pages import PAGE_CHARS
from tests.project import Project

LONG = 100_000


@pytest.fixture
def project(tmp_path) -> Project:
    """500 short texts, then 300 of 100,000 characters: 30 MB."""
    project = Project(tmp_path / "project").fill(500)
    with project.source() as db:
        db.executemany(
            "INSERT INTO note VALUES (?, 'long', ?, 'a', 1)", ((i, f"{i} " * (LONG // 4)) for i in range(501, 801))
        )
    return project


def read(project: Project, rows: int) -> tuple[list[str], list[int], int]:
    """Return keys of all documents, the characters of each page, and the most bytes that were held at a time."""
    keys, sizes = [], []
    source = open_source(project.settings, project.settings.indexes[0])
    tracemalloc.start()
    try:
        cursor = None
        while True:
            page = source.page(cursor, rows)
            keys += [*page.documents.keys, *page.unread]
            sizes.append(sum(map(len, page.documents.texts)))
            cursor = page.cursor
            if cursor is None:
                return keys, sizes, tracemalloc.get_traced_memory()[1]
            del page
    finally:
        tracemalloc.stop()
        source.close()


@pytest.mark.parametrize("rows", [2000, 7])
def test_a_page_is_bounded_by_its_characters(project, rows):
    keys, sizes, peak = read(project, rows)
    assert keys == [str(i) for i in range(1, 801)]
    assert max(sizes) < PAGE_CHARS + 2 * LONG
    assert len(sizes) == (800 // rows + 1 if rows == 7 else 8)
    assert peak < 3 * PAGE_CHARS
