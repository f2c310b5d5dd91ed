"""A Qdrant server that goes away in the middle: the progress says so within seconds, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.fakes.qdrant import FakeQdrant
from tests.flows.test_outages import Recorder
from tests.project import Project
from tests.waiting import when


@pytest.fixture
def shown(monkeypatch) -> Recorder:
    """What a person sees of the progress."""
    recorder = Recorder()
    monkeypatch.setattr("rag_index.orchestration.states.open_display", lambda: recorder)
    return recorder


@pytest.mark.parametrize(
    "options",
    [pytest.param({"workers": 1}, marks=pytest.mark.long, id="worker"), pytest.param({"serial": True}, id="serial")],
)
def test_a_qdrant_server_that_goes_away_is_named_without_an_eta(tmp_path, prefect_server, shown, options):
    with FakeQdrant() as qdrant:
        project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"').fill(200)
        away = f"Qdrant at {qdrant.url} does not answer, waiting since "
        with (
            when(lambda: qdrant.requests("PUT /collections/test_notes__1/points") >= 3, qdrant.stop),
            when(lambda: shown.says(away, "refused"), qdrant.start),
        ):
            report = project.index(shard_documents=20, **options)
        assert report.state == "completed", report.sentence()
        said = [sentence for sentence in shown.sentences if "does not answer" in sentence]
        assert not [one for one in said if " left" in one or "/s" in one or "busy" in one], said
        assert len(project.texts()) == 200
