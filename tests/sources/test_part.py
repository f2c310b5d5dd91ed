"""A sample of a source."""

from __future__ import annotations

import pytest

from rag_index.errors import SourceError
from rag_index.sources.part import READ_FOR_EACH, Part, read_part
from tests.project import Project


def read(project, size) -> Part:
    return read_part(project.settings, project.settings.index("notes"), size)


def test_a_sample_is_the_same_each_time_and_of_all_that_was_read(tmp_path):
    project = Project(tmp_path / "p").fill(400)
    part = read(project, 40)
    assert part.count() == 40
    assert part.documents == read(project, 40).documents
    numbers = [int(key.strip("[]")) for key in part.documents.keys]
    assert numbers == sorted(numbers)
    assert min(numbers) < 100
    assert max(numbers) > 300
    assert part.seconds > 0


def test_a_large_source_is_not_read_to_its_end(tmp_path):
    project = Project(tmp_path / "p").fill(400)
    assert max(int(key.strip("[]")) for key in read(project, 5).documents.keys) <= 5 * READ_FOR_EACH


def test_a_small_source_is_taken_whole_but_for_empty_texts(tmp_path):
    project = Project(tmp_path / "p").fill(12)
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 5")
    assert read(project, 1000).count() == 11


def test_pages_of_a_part_come_to_an_end(tmp_path):
    part = read(Project(tmp_path / "p").fill(12), 100)
    pages, cursor = [], None
    while not pages or cursor is not None:
        page = part.page(cursor, 5)
        pages.append(len(page.documents))
        cursor = page.cursor
    assert pages == [5, 5, 2]


def test_nothing_to_try_with_is_said(tmp_path):
    with pytest.raises(SourceError, match="notes has no documents with text"):
        read(Project(tmp_path / "p"), 10)
