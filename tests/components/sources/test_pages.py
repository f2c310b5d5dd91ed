"""What is held of a table of long texts, never more than about a page of characters; and a sample of a source."""

import tracemalloc

import pytest

from rag_index.components.sources import Sample, open_source, read_sample
from rag_index.components.sources.pages import PAGE_CHARS
from rag_index.errors import SourceError
from tests.components.sources.databases import pages
from tests.project import Project


def read(project, size) -> Sample:
    return read_sample(project.settings, project.settings.index("notes"), size)


def test_a_sample_is_the_same_each_time_and_spread_over_all_documents_read(tmp_path):
    project = Project(tmp_path / "p").fill(400)
    sample = read(project, 40)
    assert sample.count() == 40
    assert sample.documents == read(project, 40).documents
    numbers = [int(key.strip("[]")) for key in sample.documents.keys]
    assert numbers == sorted(numbers)
    assert min(numbers) < 100
    assert max(numbers) > 300
    assert sample.seconds > 0
    assert [len(page.documents) for page in pages(sample, 15)] == [15, 15, 10]


def test_the_sample_of_a_small_source_is_all_of_it_except_empty_texts(tmp_path):
    project = Project(tmp_path / "p").fill(12)
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 5")
    assert read(project, 1000).count() == 11
    project.execute("UPDATE note SET title = '', body = NULL")
    with pytest.raises(SourceError, match="notes has no documents with text"):
        read(project, 10)


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


def read_pages(project: Project, rows: int) -> tuple[list[str], list[int], int]:
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
    keys, sizes, peak = read_pages(project, rows)
    assert keys == [str(i) for i in range(1, 801)]
    assert max(sizes) < PAGE_CHARS + 2 * LONG
    assert len(sizes) == (800 // rows + 1 if rows == 7 else 8)
    assert peak < 3 * PAGE_CHARS
