"""A rebuild beside the live collection: it is not shown before the store was counted against the
ledger, nor, where the index has a gate, if it finds less than the live one. Going back to
collections that are kept."""

import json
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.documents.keys import point_id
from rag_index.core.reports.outcome import RunReport
from rag_index.core.settings import Alias
from rag_index.errors import StoreMismatch
from rag_index.etl.changed import index_documents
from rag_index.etl.collection import verify_counts
from rag_index.etl.publish import publish_collection, roll_back
from rag_index.search.evaluation import evaluation
from tests.etl.plain import printed, run_plain
from tests.project import Project, run_here

ALIAS = Alias("p", "notes")
NOTES = 60
LOST = range(3, 5)
"""As few notes as a gate refuses: one alone may be lost."""


@pytest.fixture
def store(project):
    with project.store() as opened:
        yield opened


def publish(ledger, store, number, *, keep, alias=ALIAS):
    """Make another collection of the alias, and show it."""
    collection = ledger.add_collection(
        alias=alias,
        name=f"{alias}__{number}",
        store_id=str(number),
        embedder_fingerprint="f",
        embedder="e",
        chunking="c",
        dimension=2,
        state="building",
    )
    store.create(collection.name, 2, {"store_id": str(number)})
    publish_collection(ledger, store, collection, keep=keep)


def there(ledger, store, alias=ALIAS):
    """The numbers of the alias's collections, in the store and in the ledger alike, and of the one
    that is shown."""
    stored = sorted(
        int(name.rpartition("__")[2]) for name in store.collections() if name.startswith(alias)
    )
    assert stored == sorted(int(c.name.rpartition("__")[2]) for c in ledger.collections(alias))
    return stored, int(store.aliases()[alias].rpartition("__")[2])


@pytest.mark.parametrize(
    ("keep", "kept"), [(0, [4]), (1, [3, 4]), (2, [2, 3, 4]), (9, [1, 2, 3, 4])]
)
def test_so_many_older_collections_are_kept(ledger, store, keep, kept):
    publish(ledger, store, 1, keep=keep, alias="p_other")
    for number in (1, 2, 3, 4):
        publish(ledger, store, number, keep=keep)
    assert there(ledger, store) == (kept, 4)
    assert there(ledger, store, "p_other") == ([1], 1), "another index's are its own"


def test_what_was_shown_until_now_is_kept_rather_than_a_newer_one_that_people_went_back_from(
    ledger, store
):
    publish(ledger, store, 1, keep=1)
    publish(ledger, store, 2, keep=1)
    for _ in range(2):
        assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__2", "p_notes__1", 0)
        assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__1", "p_notes__2", 0)
    assert there(ledger, store) == ([1, 2], 2), "going back and forth moves nothing but the alias"
    roll_back(ledger, store, ALIAS, "notes")
    publish(ledger, store, 3, keep=1)
    assert there(ledger, store) == ([1, 3], 3)


def losing(chunk: int):
    """Let the store lose what is written of chunks of this number, without a word."""
    upsert = EdgePoints.upsert

    def write_too_few(points: EdgePoints, batch: PointBatch) -> None:
        kept = [
            row
            for row, payload in enumerate(batch.payloads)
            if payload[RESERVED_KEY]["chunk"] != chunk
        ]
        ids, payloads = [batch.ids[row] for row in kept], [batch.payloads[row] for row in kept]
        upsert(points, PointBatch(ids, batch.vectors[kept], payloads))

    return mock.patch.object(EdgePoints, "upsert", write_too_few)


def test_a_run_whose_points_were_lost_on_the_way_says_so(project):
    project.fill(20)
    with losing(1), pytest.raises(StoreMismatch, match="the ledger explains"):
        run_plain(project)
    project.execute("DELETE FROM note")
    run_plain(project, full=True, allow_loss=True)
    project.fill(1, first=40)
    with losing(1):
        outcome = index_documents(project.settings, "notes", ["40"])
    assert (outcome.state, "the ledger explains" in outcome.message) == ("failed", True)


def test_points_that_no_document_explains_are_noticed_and_those_of_pending_ones_may_be_there(
    ledger, store
):
    publish(ledger, store, 1, keep=0)
    [collection] = ledger.collections(ALIAS)
    foreign = PointBatch(
        [point_id("notes", "7", 0)], np.ones((1, 2), np.float32), [{"_rag": {"key": "7"}}]
    )
    store.points(collection.name).upsert(foreign)
    store.points(collection.name).flush()
    with pytest.raises(StoreMismatch, match="holds 1 points, the ledger explains 0"):
        verify_counts(ledger, store, collection)
    ledger.mark_pending(collection.id, ["7", "8"])
    assert verify_counts(ledger, store, collection) == (0, 0)


def wrong_vectors(points: EdgePoints, batch: PointBatch, *, upsert=EdgePoints.upsert) -> None:
    upsert(points, replace(batch, vectors=-batch.vectors))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (losing(0), "the ledger explains"),
        (losing(1), "the ledger explains"),  # not among those that are embedded again
        (
            mock.patch.object(EdgePoints, "upsert", wrong_vectors),
            "sampled chunks find themselves; it was not published",
        ),
    ],
)
def test_a_rebuild_whose_points_are_not_right_is_never_shown(project, fault, message):
    run_plain(project.fill(30))
    before = project.points()
    project.write_settings(
        project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 150")
    )
    moved = mock.patch.object(
        EdgeStore, "point_alias", side_effect=AssertionError("the alias moved")
    )
    with fault, moved, pytest.raises(StoreMismatch, match=message):
        run_plain(project, full=True)
    assert project.points() == before


def test_nobody_goes_back_to_a_collection_that_a_rebuild_did_not_finish(ledger, store):
    publish(ledger, store, 1, keep=2)
    publish(ledger, store, 2, keep=2)
    with (
        mock.patch.object(EdgeStore, "point_alias", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        publish(ledger, store, 3, keep=2)
    assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__2", "p_notes__1", 0)


def test_a_first_run_that_is_killed_once_its_collection_is_live_leaves_one_that_can_be_searched(
    project,
):
    killed = mock.patch("rag_index.etl.collection.make_searchable", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        project.fill(3).run()
    assert printed(project, "search", "printer")["hits"] == []


@pytest.mark.long
def test_a_rebuild_verifies_publishes_and_keeps_one_collection_to_roll_back_to(project):
    project.fill(150).run()
    before = project.points()
    report = project.run(full=True)
    outcome = report.indexes[0]
    assert report.state == "completed"
    assert f"verified {len(before)} points of 150 documents" in outcome.verified
    assert "20 of 20 sampled found themselves" in outcome.verified
    assert printed(project, "status")["indexes"][0]["collection"] == "test_notes__2"
    assert project.points() == before, (
        "the same source, the same points: vectors are copied bit by bit"
    )
    assert outcome.chunks_embedded == 0, "every text had a vector already"

    project.execute("DELETE FROM note WHERE id = 5")
    project.run()
    back = printed(project, "rollback", "notes")
    assert (back["before"], back["live"]) == ("test_notes__2", "test_notes__1")
    assert "5" in project.texts(), "the earlier collection is unchanged"
    status = printed(project, "status")["indexes"][0]
    assert (status["collection"], status["documents"]) == ("test_notes__1", 150), (
        "the ledger went back with it"
    )
    assert project.run().indexes[0].deleted == 1

    project.run(full=True)
    project.run(full=True)
    with project.store() as store:
        assert len(store.collections()) == 2, "the live collection and the previous one"


def golden(project: Project, numbers=range(1, NOTES + 1)) -> None:
    """Write a golden file: each note must be found by its title."""
    lines = [
        json.dumps({"query": f"Note {number}", "relevant": [str(number)]}) for number in numbers
    ]
    (project.folder / "golden.jsonl").write_text("\n".join(lines))


def set_gate(project: Project) -> Project:
    project.write_settings(
        f'{project.config.read_text()}[indexes.gate]\nqueries = "golden.jsonl"\n'
    )
    return project


def lose(project: Project, *numbers: int) -> None:
    """Let notes lose the words by which their queries find them."""
    for number in numbers:
        project.execute(
            "UPDATE note SET title = 'gone', body = 'gone with the wind' WHERE id = ?", number
        )


def live(project: Project) -> str:
    with project.store() as store:
        return store.aliases()["test_notes"]


@pytest.fixture
def gated(indexed_notes) -> Project:
    """An indexed project that has got a gate."""
    project = indexed_notes(NOTES)
    golden(project)
    return set_gate(project)


def test_a_rebuild_that_finds_as_much_goes_live_and_says_so(gated):
    outcome = run_plain(gated, full=True)
    assert outcome.state == "completed"
    assert outcome.verified.endswith(
        "; recall@10 of 60 golden queries 1.000 before, 1.000 now (none changed)"
    )
    assert outcome.message == ""
    assert live(gated) == "test_notes__2"


@pytest.mark.long
def test_a_rebuild_that_finds_less_stays_beside_the_live_collection_until_a_person_allows_it(gated):
    before = gated.points()
    lose(gated, *LOST)
    for _ in range(2):  # the second resumes the collection of the first and asks again
        with mock.patch.object(
            EdgeStore, "point_alias", side_effect=AssertionError("the alias moved")
        ):
            outcome = run_plain(gated, full=True)
        assert (outcome.state, RunReport([outcome]).exit_code) == ("partial", 3)
        assert "recall@10 of 60 golden queries fell from 1.000 to 0.967" in outcome.message
        assert "the rebuilt test_notes__2 was not published" in outcome.message
        assert "'Note 3'" in outcome.message
        assert "--allow-loss" in outcome.message
        assert [(one.query, one.lost) for one in outcome.gate.worse] == [
            (f"Note {n}", (str(n),)) for n in LOST
        ]
        assert [one["query"] for one in outcome.to_json()["gate"]["worse"]] == [
            f"Note {n}" for n in LOST
        ]
    assert (gated.points(), run_plain(gated).state) == (before, "completed")
    assert live(gated) == "test_notes__1", "an ordinary run publishes nothing"
    allowed = run_plain(gated, full=True, allow_loss=True)
    assert (allowed.state, allowed.gate) == ("completed", None)
    assert (allowed.message, live(gated)) == (
        "the gate was not asked (--allow-loss)",
        "test_notes__2",
    )


def test_documents_that_the_source_deleted_are_no_loss_and_the_run_names_them(gated):
    gated.execute("DELETE FROM note WHERE id IN (3, 4)")
    outcome = run_plain(gated, full=True)
    assert (outcome.state, outcome.gate.queries, outcome.gate.gone) == (
        "completed",
        NOTES - 2,
        ("3", "4"),
    )
    assert (
        "the source does not have 2 documents of the golden file (3, 4), which do not count"
        in outcome.message
    )


def test_the_first_collection_has_nothing_to_be_compared_with_and_the_run_says_so(tmp_path):
    project = set_gate(Project(tmp_path / "project").fill(5))
    golden(project)
    outcome = run_plain(project, full=True)
    assert (outcome.state, outcome.gate) == ("completed", None)
    assert outcome.message == "the gate had nothing to compare with, because no collection was live"
    assert run_plain(project).message == "", "the second run has one"


@pytest.mark.long
@pytest.mark.parametrize("gone", [None, "model", "server"])
def test_each_collection_is_asked_with_the_model_that_made_it_or_keeps_the_alias(
    tmp_path, monkeypatch, fake, gone
):
    """From an Ollama server to the embedder in the process: other vectors, another dimension."""
    monkeypatch.setattr(evaluation, "PAUSE", 0.0)
    project = set_gate(Project(tmp_path / "project", extra=fake.settings).fill(20))
    golden(project, range(1, 21))
    run_plain(project)
    project.write_settings(
        project.config.read_text().replace(fake.settings, f'[embedder]\nhosts = ["{fake.url}"]\n')
    )
    if gone == "server":
        fake.stop_listening()
    elif gone == "model":
        fake.fault("status", code=404)
    outcome = run_plain(project, full=True)
    if gone is None:
        assert (outcome.gate.queries, outcome.gate.passed, live(project)) == (
            20,
            True,
            "test_notes__2",
        )
        return
    assert (outcome.state, live(project)) == ("partial", "test_notes__1")
    assert (
        "the gate could not compare test_notes__1 with the rebuilt test_notes__2" in outcome.message
    )
    assert outcome.message.endswith("or run `rag-index rebuild notes --allow-loss`")
    assert "\n" not in outcome.message


@pytest.mark.long
@pytest.mark.parametrize(("dense_weight", "state"), [(0.4, "completed"), (1.0, "partial")])
def test_a_gate_weighs_meaning_and_words_as_the_settings_do(gated, fake, dense_weight, state):
    """The vectors of the new model mean nothing; the words carry the titles."""
    gated.write_settings(
        f"{gated.config.read_text()}{fake.settings}[retrieve]\ndense_weight = {dense_weight}\n"
    )
    outcome = run_plain(gated, full=True)
    assert (outcome.state, outcome.gate.passed) == (state, state == "completed")
    assert live(gated) == ("test_notes__2" if state == "completed" else "test_notes__1")


@pytest.mark.long
def test_report_lists_the_queries_that_got_worse_and_an_option_allows_it(gated):
    lose(gated, *range(21, 51))
    assert run_plain(gated, full=True).state == "partial"
    lines = run_here(gated.config, "status", "--report")[0].splitlines()
    [means] = [
        line
        for line in lines
        if line.startswith("  recall@10 of 60 golden queries: 1.000 before, 0.5")
    ]
    assert means.endswith("; 30 worse, 0 better")
    assert "    1.000 → 0.000  Note 21, lost 21" in lines
    assert "    and 10 more, which --json prints" in lines
    assert printed(gated, "rebuild", "notes", "--allow-loss")["indexes"][0]["state"] == "completed"
    assert live(gated) == "test_notes__2"
