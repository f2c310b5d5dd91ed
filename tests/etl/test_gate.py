"""The gate of a rebuild: a collection that finds less than the live one does not go live."""

import json
from unittest import mock

import pytest

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.reports.outcome import RunReport
from rag_index.search.evaluation import evaluation
from tests.etl.plain import printed, run_plain
from tests.project import Project, run_here

NOTES = 60
LOST = range(3, 10)
"""As many notes as chance does not explain, even of the 60 that are asked."""


def golden(project: Project, numbers=range(1, NOTES + 1)) -> None:
    """Write a golden file: each note must be found by its title."""
    lines = [json.dumps({"query": f"Note {number}", "relevant": [str(number)]}) for number in numbers]
    (project.folder / "golden.jsonl").write_text("\n".join(lines))


def set_gate(project: Project) -> Project:
    project.write_settings(f'{project.config.read_text()}[indexes.gate]\nqueries = "golden.jsonl"\n')
    return project


def lose(project: Project, *numbers: int) -> None:
    """Let notes lose the words by which their queries find them."""
    for number in numbers:
        project.execute("UPDATE note SET title = 'gone', body = 'gone with the wind' WHERE id = ?", number)


def live(project: Project) -> str:
    with project.store() as store:
        return store.aliases()["test_notes"]


@pytest.fixture
def project(indexed_notes) -> Project:
    """An indexed project that has got a gate."""
    project = indexed_notes(NOTES)
    golden(project)
    return set_gate(project)


def test_a_rebuild_that_finds_as_much_goes_live_and_says_so(project):
    outcome = run_plain(project, full=True)
    assert outcome.state == "completed"
    same = "recall@10 of 60 golden queries 1.000 before, 1.000 now (none changed); by meaning alone 0.500 and 0.500"
    assert f"; {same}; by words alone" in outcome.verified
    few = "60 golden queries would not stop a loss of 0.04 (twice max_loss) 9 times in 10"
    assert outcome.message.startswith(few)
    assert live(project) == "test_notes__2"


@pytest.mark.long
def test_a_rebuild_that_finds_less_stays_beside_the_live_collection_until_a_person_allows_it(project):
    before = project.points()
    lose(project, *LOST)
    for _ in range(2):  # the second resumes the collection of the first and asks again
        with mock.patch.object(EdgeStore, "point_alias", side_effect=AssertionError("the alias moved")):
            outcome = run_plain(project, full=True)
        assert (outcome.state, RunReport([outcome]).exit_code) == ("partial", 3)
        assert "recall@10 of 60 golden queries fell from 1.000 to 0.883" in outcome.message
        assert "the rebuilt test_notes__2 was not published" in outcome.message
        assert "'Note 3'" in outcome.message
        assert "--allow-loss" in outcome.message
        assert [(one.query, one.lost) for one in outcome.gate.search.worse] == [(f"Note {n}", (str(n),)) for n in LOST]
        assert [one["query"] for one in outcome.to_json()["gate"]["worse"]] == [f"Note {n}" for n in LOST]
    assert project.points() == before
    assert run_plain(project).state == "completed"
    assert live(project) == "test_notes__1", "an ordinary run publishes nothing"
    allowed = run_plain(project, full=True, allow_loss=True)
    assert (allowed.state, allowed.gate) == ("completed", None)
    assert allowed.message == "the gate was not asked (--allow-loss)"
    assert live(project) == "test_notes__2"


def test_the_first_collection_has_nothing_to_be_compared_with_and_the_run_says_so(tmp_path):
    project = set_gate(Project(tmp_path / "project").fill(5))
    golden(project)
    outcome = run_plain(project, full=True)
    assert (outcome.state, outcome.gate) == ("completed", None)
    assert outcome.message == "the gate had nothing to compare with, because no collection was live"
    assert run_plain(project).message == "", "the second run has one"


@pytest.mark.long
@pytest.mark.parametrize("gone", [None, "model", "server"])
def test_each_collection_is_asked_with_the_model_that_made_it_and_keeps_the_alias_without(
    tmp_path, monkeypatch, fake, gone
):
    """From an Ollama server to the embedder in the process: other vectors, another dimension."""
    monkeypatch.setattr(evaluation, "PAUSE", 0.0)
    project = set_gate(Project(tmp_path / "project", extra=fake.settings).fill(20))
    golden(project, range(1, 21))
    run_plain(project)
    hosts = f'[embedder]\nhosts = ["{fake.url}"]\n'
    project.write_settings(project.config.read_text().replace(fake.settings, hosts))
    if gone == "server":
        fake.stop_listening()
    elif gone == "model":
        fake.fault("status", code=404)
    outcome = run_plain(project, full=True)
    if gone is None:
        assert (outcome.gate.queries, outcome.gate.passed, live(project)) == (20, True, "test_notes__2")
        return
    assert (outcome.state, live(project)) == ("partial", "test_notes__1")
    assert "the gate could not compare test_notes__1 with the rebuilt test_notes__2" in outcome.message
    assert outcome.message.endswith("or run `rag-index rebuild notes --allow-loss`")
    assert "\n" not in outcome.message


@pytest.mark.long
def test_vectors_that_mean_nothing_are_stopped_although_words_find_everything(project, fake):
    project.write_settings(f"{project.config.read_text()}{fake.settings}[retrieve]\ndense_weight = 0.4\n")
    outcome = run_plain(project, full=True)
    assert outcome.state == "partial"
    assert outcome.gate.search.after > 0.97, "words carry the titles"
    assert "recall@10 by meaning alone of 60 golden queries fell from 0.500 to 0." in outcome.message
    assert live(project) == "test_notes__1"


@pytest.mark.long
def test_report_lists_the_queries_that_got_worse_and_an_option_allows_it(project):
    lose(project, *range(21, 51))
    assert run_plain(project, full=True).state == "partial"
    lines = run_here(project.config, "status", "--report")[0].splitlines()
    [means] = [line for line in lines if line.startswith("  recall@10 of 60 golden queries: 1.000 before, 0.5")]
    assert means.endswith("; 30 worse, 0 better")
    assert "    1.000 → 0.000  Note 21, lost 21" in lines
    assert "    and 10 more, which --json prints" in lines
    assert printed(project, "rebuild", "notes", "--allow-loss")["indexes"][0]["state"] == "completed"
    assert live(project) == "test_notes__2"
