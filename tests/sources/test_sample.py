"""A sample of a source."""

import pytest

from rag_index.components.sources import READ_FACTOR, Sample, read_sample
from rag_index.errors import SourceError
from tests.project import Project
from tests.sources.databases import pages


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


def test_a_large_source_is_not_read_to_its_end(tmp_path):
    project = Project(tmp_path / "p").fill(400)
    assert max(int(key.strip("[]")) for key in read(project, 5).documents.keys) <= 5 * READ_FACTOR


def test_the_sample_of_a_small_source_is_all_of_it_except_empty_texts(tmp_path):
    project = Project(tmp_path / "p").fill(12)
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 5")
    assert read(project, 1000).count() == 11
    project.execute("UPDATE note SET title = '', body = NULL")
    with pytest.raises(SourceError, match="notes has no documents with text"):
        read(project, 10)
