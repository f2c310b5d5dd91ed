"""A model without a digest is known by a vector: noise changes nothing, and another model of its name is found."""

from contextlib import closing

import numpy as np
import pytest

from rag_index.care.doctor.checkup import examine
from rag_index.care.plan import plan_runs
from rag_index.components.stores import open_store
from tests.fakes.ollama import FakeOllama, vector_of
from tests.project import SETTINGS, Project

EMBEDDER = '[embedder]\nkind = "openai"\nmodel = "fake-embed"\nurl = "{url}/v1"\n'


@pytest.fixture
def project(tmp_path):
    with FakeOllama(dimension=64) as server:
        extra = EMBEDDER.format(url=server.url)
        project = Project(tmp_path / "project", extra).fill(12)
        table = SETTINGS[SETTINGS.index("[[indexes]]") :]
        project.write_settings(SETTINGS.format(extra=extra) + table.replace('"notes"', '"again"'))
        yield project


@pytest.fixture
def noisy(monkeypatch):
    """Every vector is a little different each time, as those of a busy GPU are."""
    chance = np.random.default_rng(7)

    def vector(text, dimension):
        return (np.asarray(vector_of(text, dimension)) + 0.002 * chance.standard_normal(dimension)).tolist()

    monkeypatch.setattr("tests.fakes.ollama.vector_of", vector)


def fingerprints(project):
    with closing(open_store(project.settings.store)) as store:
        found = [store.metadata(project.settings.alias(name)) for name in ("notes", "again")]
    return {one["embedder_fingerprint"] for one in found} | {one["embedder_identity"]["digest"] for one in found}


def test_noise_is_no_other_model(project, noisy):
    """The first vector that was recorded counts for all indexes, so that searches embed a query once for both."""
    assert project.run().exit_code == 0
    recorded = fingerprints(project)
    assert len(recorded) == 2
    project.fill(3, first=13)
    report = project.run()
    assert (report.exit_code, [one.unchanged for one in report.indexes]) == (0, [12, 12])
    assert fingerprints(project) == recorded
    assert [one.message for one in plan_runs(project.settings, project.settings.indexes)] == ["", ""]
    assert not examine(project.settings).findings


def test_another_model_of_the_same_name_is_refused_until_a_rebuild_which_reuses_no_vector(project, monkeypatch):
    project.run()
    before, old = project.points(), fingerprints(project)
    monkeypatch.setattr("tests.fakes.ollama.vector_of", lambda text, size: vector_of(f"another {text}", size))
    project.fill(1, first=13)
    report = project.run("notes")
    assert report.exit_code != 0
    assert "rag-index rebuild notes" in report.indexes[0].message
    assert project.points() == before
    assert project.run(full=True).exit_code == 0
    after = project.points()
    assert all(after[one][1] != vector for one, (_, vector) in before.items())
    assert not fingerprints(project) & old
