"""A model that changes in the middle of a run while its server stays up: the index ends as failed
and mixes no vectors.

The name of a model is no identity: `ollama pull` gives it other weights, and a server takes them
with the next request.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from rag_index.core.settings import run_settings
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.launch import run_locally
from tests.fakes.ollama import FakeOllama, vector_of
from tests.project import Project

FORMER, LATTER = "d1" * 32, "e2" * 32


@dataclass
class RepulledOllama(FakeOllama):
    """A server whose model is pulled again while it answers a request with the marker: later
    vectors, and those of that request, point the other way."""

    marker: str = ""

    def embed(self, texts, *, truncate, fault):
        if self.marker and any(self.marker in text for text in texts):
            self.digest = LATTER
        status, answer = super().embed(texts, truncate=truncate, fault=fault)
        if self.digest == LATTER:
            answer["embeddings"] = [[-number for number in row] for row in answer["embeddings"]]
        return status, answer


def made_by(project: Project) -> set[str]:
    """Return which of the two models made the vectors of the index."""
    found = set()
    for payload, vector in project.points().values():
        cosine = np.dot(vector, vector_of(payload["_rag"]["text"]))
        assert abs(cosine) == pytest.approx(1, abs=1e-5)
        found.add(FORMER if cosine > 0 else LATTER)
    return found


def run(project: Project, *, serial: bool):
    settings = run_settings(project.config, serial=serial, workers=2, shard_documents=10)
    [outcome] = run_locally(settings, settings.indexes, RunOptions()).indexes
    return outcome


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("serial", [True, False])
def test_a_model_that_changes_under_a_run_ends_it_as_failed_and_no_vector_of_it_is_written(
    tmp_path, kind, serial
):
    with RepulledOllama() as server:
        embedder = server.settings.replace('"ollama"', f'"{kind}"')
        project = Project(tmp_path / "project", extra=f"{embedder}batch_texts = 4\n").fill(60)
        server.marker = "ticket 41 "
        outcome = run(project, serial=serial)
        assert (outcome.state, outcome.error_class) == ("failed", "ModelChanged"), outcome
        assert "start a new run to index with the new model" in outcome.message
        written = project.texts()
        assert "41" not in written
        assert made_by(project) <= {FORMER}
        with project.ledger() as ledger:
            [collection] = ledger.collections()
            assert ledger.totals(collection.id).documents == len(written)
        # the former model is put back: what was committed stays, and the rest follows
        server.marker, server.digest = "", FORMER
        outcome = run(project, serial=serial)
        assert (outcome.state, outcome.new) == ("completed", 60 - len(written))
        assert (made_by(project), len(project.texts())) == ({FORMER}, 60)


def test_a_run_with_the_new_model_does_not_add_its_vectors_to_those_of_the_former(tmp_path):
    with RepulledOllama() as server:
        project = Project(tmp_path / "project", extra=f"{server.settings}batch_texts = 4\n").fill(
            60
        )
        assert run(project, serial=True).state == "completed"
        project.execute("UPDATE note SET body = body || ' and more' WHERE id > 30")
        server.marker = "ticket 41 "
        assert run(project, serial=True).error_class == "ModelChanged"
        assert (made_by(project), len(project.texts())) == ({FORMER}, 60)
        outcome = run(project, serial=True)  # the server has the new model from its beginning
        assert (outcome.state, outcome.error_class) == ("failed", "FingerprintChanged")
        assert made_by(project) == {FORMER}
