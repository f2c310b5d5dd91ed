"""Words first in the flow: a task that one sees, which says how many documents can be found."""

import logging

import pytest

from rag_index.etl import words_first
from tests.flows.test_graph import seen_of
from tests.project import Project


@pytest.mark.long
def test_a_first_run_of_the_flow_writes_words_first_and_embeds_everything(
    tmp_path, fake, prefect_server, monkeypatch, caplog
):
    monkeypatch.setattr(words_first, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(words_first, "SHARE", 0)
    written, write = [], words_first.WordsFirst._write_shard

    def note(self, documents, chunker):
        written.extend(documents.keys)
        write(self, documents, chunker)

    monkeypatch.setattr(words_first.WordsFirst, "_write_shard", note)
    monkeypatch.setattr("rag_index.etl.run.MAX_PAGE_ROWS", 10)
    extra = f"{fake.settings}[parallel]\nshard_documents = 4\nworkers = 1\n"
    project = Project(tmp_path / "project", extra=extra).fill(30)
    caplog.set_level(logging.INFO)
    outcome = project.index().indexes[0]
    assert (outcome.state, outcome.new, outcome.failed) == ("completed", 30, 0)
    assert 10 < len(written) < 30
    assert all(vector for _, vector in project.points().values())
    assert f"{len(written)} documents can be found by their words" in caplog.text
    graph, _, _ = seen_of(prefect_server, "index notes")
    assert "write words" in graph
