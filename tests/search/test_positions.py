"""What answers claim to be true of, and what searches may demand."""

import shutil
import threading
import time
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger, Reached
from rag_index.components.stores.edge import reader as reader_module
from rag_index.errors import IndexBehind, SettingsError, StoreMismatch
from rag_index.search import Retriever, fan_out, positions
from rag_index.search.live_collections import LiveCollection
from rag_index.search.positions import Known
from tests.etl.plain import run_plain
from tests.project import Project
from tests.waiting import eventually


@pytest.fixture
def project(indexed_notes):
    return indexed_notes(12)


def test_a_reader_that_has_loaded_an_older_state_claims_no_more_than_that(project, monkeypatch):
    """However soon the ledger knows of a commit: the view of this process was opened before it."""
    load, free = reader_module.EdgeReader._newest_view, threading.Event()
    monkeypatch.setattr(fan_out, "IDLE_SECONDS", 60.0)
    with Retriever(project.settings) as retriever:

        def claim(**demand):
            found = retriever.search_sync("zebra", limit=20, **demand)
            return found.as_of["notes"].at, {hit.document_id for hit in found.hits}

        def newest():
            known = retriever.run(retriever.checked())
            return known.as_of("notes", known.newest("notes")).at

        before, _ = claim()
        assert before == newest()
        monkeypatch.setattr(reader_module, "FRESH_SECONDS", 0.01)
        monkeypatch.setattr(reader_module.EdgeReader, "_newest_view", lambda *given: free.wait(60) and load(*given))
        project.execute("INSERT INTO note VALUES (99, 'zebra', 'quagga', 'me', 1)")
        run_plain(project)
        eventually(lambda: newest() != before)
        after = newest()
        assert claim()[0] == before
        with pytest.raises(IndexBehind, match=f"index notes has not reached {after} within 0.5 s: it is at {before}"):
            claim(after=after, timeout=0.5)
        free.set()
        at, found = claim(after=after, timeout=60)
        assert (at, "99" in found) == (after, True)


def test_an_answer_claims_no_commit_that_came_after_its_search(tmp_path, qdrant):
    project = Project(tmp_path, extra=f'[store]\nurl = "{qdrant.url}"\n[store.server]\ngrpc_port = 0\n').fill(12)
    run_plain(project)
    with Retriever(project.settings) as retriever:
        before = retriever.search_sync("zebra").as_of["notes"].at
        ask = retriever._fan_out.ask

        async def late(*given):
            answers = await ask(*given)
            project.execute("INSERT INTO note VALUES (99, 'zebra', 'quagga', 'me', 1)")
            run_plain(project)
            await retriever._positions.wait(lambda known: known.as_of("notes", known.newest("notes")).at != before, 60)
            return answers

        retriever._fan_out.ask = late
        found = retriever.search_sync("zebra", timeout=100)
    assert "99" not in {hit.document_id for hit in found.hits}
    assert found.as_of["notes"].at == before


def test_a_position_is_claimed_for_the_collection_that_was_searched_alone():
    """While a rebuilt one is published, a process may still search the one before."""
    reached = [Reached("a", f"a__{number}", 0, float(number), "watch") for number in (1, 2)]
    known = Known({"notes": reached})
    for number in (1, 2):
        live = LiveCollection("notes", f"a__{number}", "", "", None)
        assert known.claim("notes", live, None).at == float(number)
    assert known.claim("notes", LiveCollection("notes", "a__3", "", "", None), None) is None


def test_a_demand_that_is_not_met_or_cannot_be_meant_is_refused(project):
    with Retriever(project.settings) as retriever:
        for demand, said in (
            ({"after": "0/16B3748"}, "after = '0/16B3748': it has to be a time with its zone"),
            ({"after": "soon"}, "after = 'soon': it has to be a time with its zone"),
            ({"max_age": "a while"}, "max_age = 'a while': give seconds, or a text such as '10 s'"),
        ):
            with pytest.raises(SettingsError, match=said):
                retriever.search_sync("printer", **demand)
        assert retriever.search_sync("printer", max_age="1 h", timeout=60).hits
        with pytest.raises(IndexBehind, match=r"index notes has not been at most 0 s old within 0\.2 s") as raised:
            retriever.search_sync("printer", max_age=0, timeout=0.2)
        assert raised.value.as_of["notes"]["known_by"] == "run"


def test_the_first_search_knows_whether_the_store_was_put_back(project, monkeypatch):
    """As each `rag-index search`, whose process answers once, however slow the look is."""
    monkeypatch.setattr(positions, "LEDGER_PATIENCE", 0.0)
    store, copy = project.settings.store.path, project.folder / "copy"
    shutil.copytree(store, copy)
    with Retriever(project.settings) as retriever:
        assert retriever.search_sync("printer").as_of["notes"].last_run == "completed"
    project.execute("DELETE FROM note WHERE id = 3")
    run_plain(project)
    shutil.rmtree(store)
    copy.rename(store)
    with Retriever(project.settings) as retriever, pytest.raises(StoreMismatch, match="put back to an older copy"):
        retriever.search_sync("printer")


def test_a_living_reader_forgets_what_its_ledger_has_forgotten(project, monkeypatch):
    """Such as after a restore."""
    monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 0.0)
    with Retriever(project.settings) as retriever, closing(Ledger(project.settings.ledger_url)) as ledger:
        assert retriever.run(retriever.checked()).reached["notes"]
        ledger.drop_position("test_notes")
        assert not retriever.run(retriever.checked()).reached["notes"]


def test_a_position_of_a_clock_that_was_ahead_is_young_enough_for_nobody(project):
    demand = positions.Demand.of(None, 60)
    for ahead, met in ((3600, False), (-10, True), (-3600, False)):
        reached = Reached("test_notes", "test_notes__1", 1, time.time() + ahead, "run")
        assert (demand.unmet({"notes": reached}, positions.Known(), 1.0) is None) is met
