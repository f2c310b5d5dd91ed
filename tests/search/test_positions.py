"""What answers claim to be true of, what searches may demand, and what an answer says that it
lacks."""

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from rag_index.components.ledger import Ledger, Reached
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores.edge import reader as reader_module
from rag_index.errors import (
    EmbedderUnavailable,
    IndexBehind,
    LedgerUnavailable,
    SettingsError,
    StoreMismatch,
)
from rag_index.search import Retriever, fan_out, positions
from rag_index.search.frameworks import found_in
from rag_index.search.live_collections import LiveCollection
from rag_index.search.positions import Known, find_too_old
from rag_index.search.service.mcp_tools import search_text
from tests.etl.plain import run_plain
from tests.project import Project, run_here
from tests.search.desk import DESK, Desk, agent, documents
from tests.waiting import GENEROUS, eventually

NONSENSE = "zzqqxx wwvvuu"


@pytest.fixture
def project(indexed_notes):
    return indexed_notes(12)


def test_a_reader_that_has_loaded_an_older_state_claims_no_more_than_that(project, monkeypatch):
    """However soon the ledger knows of a commit: the view of this process was opened before it."""
    load, free = reader_module.EdgeReader._newest_view, threading.Event()
    monkeypatch.setattr(fan_out, "IDLE_SECONDS", 60.0)
    with Retriever(project.settings) as retriever:

        def claim(**demand):
            found = retriever.search_sync("zebra", limit=20, timeout=60, **demand)
            return found.as_of["notes"].at, {hit.document_id for hit in found.hits}

        def newest():
            known = retriever.run(retriever.checked())
            return known.as_of("notes", known.newest("notes")).at

        before, _ = claim()
        assert before == newest()
        monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 0.1)
        monkeypatch.setattr(reader_module, "FRESH_SECONDS", 0.01)
        monkeypatch.setattr(
            reader_module.EdgeReader, "_newest_view", lambda *given: free.wait(60) and load(*given)
        )
        project.execute("INSERT INTO note VALUES (99, 'zebra', 'quagga', 'me', 1)")
        written = time.time()
        run_plain(project)
        eventually(lambda: newest() != before)
        assert claim()[0] == before
        with pytest.raises(
            IndexBehind, match=f"index notes is not at most .* s old: it is at {before}"
        ) as raised:
            claim(max_age=time.time() - written)
        assert raised.value.as_of["notes"]["at"] == before
        free.set()
        at, found = eventually(lambda: (found := claim()) and found[0] != before and found)
        assert (at, "99" in found) == (newest(), True)
        assert claim(max_age=time.time() - written + 60)[0] == at


def test_an_answer_claims_no_commit_that_came_after_its_search(tmp_path, qdrant):
    project = Project(
        tmp_path, extra=f'[store]\nurl = "{qdrant.url}"\n[store.server]\ngrpc_port = 0\n'
    ).fill(12)
    run_plain(project)
    with Retriever(project.settings) as retriever:
        before = retriever.search_sync("zebra").as_of["notes"].at
        ask = retriever._fan_out.ask

        async def late(*given):
            answers = await ask(*given)
            project.execute("INSERT INTO note VALUES (99, 'zebra', 'quagga', 'me', 1)")
            run_plain(project)
            known = await retriever._positions.read_again(60)
            assert known.as_of("notes", known.newest("notes")).at != before
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
        assert known.claim(
            "notes", LiveCollection("notes", f"a__{number}", "", "", None), None
        ).at == float(number)
    assert known.claim("notes", LiveCollection("notes", "a__3", "", "", None), None) is None


def test_an_index_that_is_older_than_a_search_allows_is_an_error_at_once(project, monkeypatch):
    with Retriever(project.settings) as retriever:
        with pytest.raises(
            SettingsError, match="max_age = 'a while': give seconds, or a text such as '10 s'"
        ):
            retriever.search_sync("printer", max_age="a while")
        assert retriever.search_sync("printer", max_age="1 h", timeout=60).hits
        asked = mock.Mock(side_effect=AssertionError("the store is not asked"))
        monkeypatch.setattr(retriever._fan_out, "ask", asked)
        began = time.monotonic()
        with pytest.raises(
            IndexBehind, match="index notes is not at most 0 s old: it is at"
        ) as raised:
            retriever.search_sync("printer", max_age=0, timeout=3600)
        assert time.monotonic() - began < GENEROUS, "it does not wait for its time limit"
        assert raised.value.as_of["notes"]["known_by"] == "run"


def test_a_search_that_demands_an_age_knows_of_a_run_that_has_just_ended(project, monkeypatch):
    """However young the last reading of the ledger is."""
    monkeypatch.setattr(positions, "REST_SECONDS", 3600.0)
    with (
        Retriever(project.settings) as retriever,
        closing(Ledger(project.settings.ledger_url)) as ledger,
    ):
        retriever.search_sync("printer", timeout=60)
        ledger.drop_position("test_notes")
        retriever.run(retriever._positions.read_again(60))
        run_plain(project)
        found = retriever.search_sync("printer", max_age="1 h", timeout=60)
    assert found.as_of["notes"].known_by == "run"


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
    with (
        Retriever(project.settings) as retriever,
        pytest.raises(StoreMismatch, match="put back to an older copy"),
    ):
        retriever.search_sync("printer")


def test_an_index_whose_store_was_put_back_stays_closed_while_the_ledger_cannot_be_read(
    project, monkeypatch
):
    """It has what was deleted since."""
    for wait in ("REST_SECONDS", "OLD_SECONDS"):
        monkeypatch.setattr(positions, wait, 0.0)
    monkeypatch.setattr(positions, "LEDGER_PATIENCE", 60.0)
    store, copy = project.settings.store.path, project.folder / "copy"
    shutil.copytree(store, copy)
    project.execute("DELETE FROM note WHERE id = 3")
    run_plain(project)
    shutil.rmtree(store)
    copy.rename(store)
    away = mock.patch.object(Ledger, "reached", side_effect=LedgerUnavailable("it is away"))
    with Retriever(project.settings) as retriever:
        with pytest.raises(StoreMismatch, match="put back to an older copy"):
            retriever.search_sync("printer")
        with away, pytest.raises(StoreMismatch, match="put back to an older copy"):
            retriever.search_sync("printer")
        run_plain(project)
        # Or the store is looked at again only after some seconds.
        monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 0.0)
        assert retriever.search_sync("printer").hits


def test_a_machine_without_a_ledger_looks_for_one_at_each_check_alone(project, monkeypatch):
    """As one that only searches: opening a database twice a second would cost it and the server."""
    opened, open_ledger = [], positions.Ledger

    def note_opening(url, **how):
        opened.append(url)
        return open_ledger(url, **how)

    monkeypatch.setattr(positions, "Ledger", note_opening)
    monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 600.0)
    ledger = project.settings.ledger_url.database
    for end in ("", "-wal", "-shm"):
        Path(ledger + end).unlink(missing_ok=True)
    read = positions.Positions(project.settings)
    for _ in range(5):
        assert asyncio.run(read.read_again(60.0)).live == {"notes": "test_notes__1"}
    read.close()
    assert len(opened) == 1


def test_a_living_reader_forgets_what_its_ledger_has_forgotten(project, monkeypatch):
    """Such as after a restore."""
    monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 0.0)
    with (
        Retriever(project.settings) as retriever,
        closing(Ledger(project.settings.ledger_url)) as ledger,
    ):
        assert retriever.run(retriever.checked()).reached["notes"]
        ledger.drop_position("test_notes")
        assert not retriever.run(retriever.checked()).reached["notes"]


def test_a_position_of_a_clock_that_was_ahead_is_young_enough_for_nobody(project):
    for ahead, young in ((3600, False), (-10, True), (-3600, False)):
        reached = Reached("test_notes", "test_notes__1", 1, time.time() + ahead, "run")
        assert (find_too_old({"notes": reached}, Known(), 60) is None) is young


def test_nothing_fits_is_never_claimed_while_an_index_fails_and_every_text_says_first_what_is_missing(
    embedded, caplog
):
    shutil.rmtree(embedded.settings.store.path / "collections" / "desk_titles__1")
    with embedded.retriever() as retriever:
        result = retriever.search_sync(NONSENSE, limit=2)
        kept = retriever.search_sync(NONSENSE, indexes=["comments", "solutions"])
        typed = retriever.search_sync("prinetr")
    assert (result.nothing_fits, "titles" in result.errors, len(result.hits)) == (False, True, 2)
    assert kept.nothing_fits
    assert not typed.corrected, "titles may have the word"
    reason = result.errors["titles"].rstrip(".")
    assert (
        result.missing
        == f"titles did not answer: {reason}. This is only what comments, solutions have."
    )
    assert search_text(result).startswith(result.missing)
    assert "Nothing fits" not in search_text(result)
    hits, said = found_in(result)
    assert "nothing_fits" not in said
    assert hits[0][2]["missing"] == said["missing"] == result.missing
    assert result.missing in caplog.text
    printed = run_here(embedded.config, "search", NONSENSE, code=3)[0]
    assert printed.startswith("titles did not answer: ")
    assert "Nothing fits" not in printed
    left_out = run_here(embedded.config, "search", NONSENSE, "--min-relevance", "0.5", code=3)[
        0
    ].splitlines()
    assert (len(left_out), left_out[1]) == (2, "Nothing found.")
    answer = json.loads(run_here(embedded.config, "search", NONSENSE, "--json", code=3)[0])
    assert "nothing_fits" not in answer
    assert answer["missing"].startswith("titles did not answer: ")
    assert set(answer["as_of"]) == {"comments", "solutions"}


def test_an_index_that_is_not_there_yet_is_named_and_one_that_is_being_filled_too(tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments", "titles")).fill(
        {"comments": DESK["comments"]}
    )

    def asked(indexes=None):
        with desk.retriever() as retriever:
            return retriever.search_sync(NONSENSE, indexes=indexes)

    result = asked()
    assert result.missing == "titles is not indexed yet. This is only what comments has."
    assert (result.nothing_fits, result.errors) == (False, {})
    assert asked(["comments"]).nothing_fits
    with closing(Ledger(desk.settings.ledger_url)) as ledger:
        for index, said in (
            ("titles", "titles is still being filled. This is only what comments has."),
            (
                "comments",
                (
                    "comments is still being filled. titles is not indexed yet. This is only what"
                    " comments has."
                ),
            ),
        ):
            with IndexLease(ledger, f"desk_{index}", "a-run"):
                ledger.start_run(
                    "a-run", f"desk_{index}", host=socket.gethostname(), pid=os.getpid()
                )
                assert asked().missing == said
        result = asked(["comments"])
        assert (result.missing, result.nothing_fits) == (
            "comments was never filled, since its last run died.",
            False,
        )


def test_an_index_that_is_closed_to_the_caller_is_not_said_to_have_nothing(tmp_path):
    rows = [(1, "The printer is offline", {"_rag": {"groups": ["staff"]}})]
    desk = Desk(
        tmp_path / "desk", names=("comments", "titles"), more={"comments": 'access = "acl"'}
    )
    desk.fill({"comments": rows, "titles": DESK["titles"]})
    with desk.retriever() as retriever:
        assert not retriever.search_sync(NONSENSE).nothing_fits
        assert retriever.search_sync(NONSENSE, groups="staff").nothing_fits
        text = agent(desk.settings, retriever)("search", query=NONSENSE)
    assert text.startswith("Index comments: it is for members of groups")


def test_words_alone_find_and_judge_while_the_embedder_is_down_and_the_answer_says_so(
    ollama_desk, ollama
):
    ollama.stop_listening()
    with ollama_desk.retriever() as retriever:
        result = retriever.search_sync("printer", dense_weight=0, min_relevance=0.1)
        nonsense = retriever.search_sync("printer giraffe zebra harbour", dense_weight=0)
        with pytest.raises(EmbedderUnavailable):
            retriever.search_sync("printer", timeout=60)
    assert documents(result) == {
        ("comments", "1"),
        ("comments", "2"),
        ("solutions", "1"),
        ("titles", "t-1"),
    }
    assert "comments was searched by words alone, since its embedder fails: " in result.missing
    assert not nonsense.nothing_fits
