"""The projects that tests have on a Qdrant server."""

from functools import partial

from tests.live.qdrant import project_on
from tests.project import Project


def test_the_collections_of_a_test_are_dropped_whatever_it_wrote_into_its_settings(
    tmp_path, qdrant, monkeypatch
):
    monkeypatch.setenv("QDRANT_URL", qdrant.url)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with project_on("real", partial(Project, tmp_path / "project")) as project:
        assert project.fill(3).run().state == "completed"
        with project.store() as store:
            assert store.collections()
            settings = project.config.read_text()
            project.write_settings(settings.replace(qdrant.url, "http://127.0.0.1:9"))
    project.write_settings(settings)
    with project.store() as store:
        assert not store.collections()
