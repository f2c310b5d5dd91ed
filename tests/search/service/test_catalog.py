"""A service over an index that a run filled: how fresh it is, why a document is not found, and the
log of queries."""

import datetime as dt
import json
import sqlite3
import stat
import subprocess
import sys

import httpx
import pytest

from rag_index.core.query_log import QueryLog
from rag_index.search import ALL_GROUPS
from rag_index.search.service.tokens import new_token, token_line
from tests.etl.plain import printed, run_plain
from tests.project import Project, run_here
from tests.search.service.live import Live, asking
from tests.search.service.test_http import problem
from tests.search.service.test_mcp import by_token, talk, text_of

RUN = """
import sys
from rag_index.etl.opened import RunOptions, open_index
from rag_index.core.settings import load_settings
with open_index(load_settings(sys.argv[1]), "notes", RunOptions(), run_id="another"):
    print("running", flush=True)
    input()
"""
ADMIN, STAFF = new_token(), new_token()
LINES = [token_line("admin", ADMIN, ALL_GROUPS), token_line("ann", STAFF, ["author 1"])]
RIGHTS = f'access = "author"\n[serve]\ntokens = {json.dumps(LINES)}'
ASKED = {"query": "printer", "document": "notes/999"}


@pytest.fixture
def project(indexed_notes):
    return indexed_notes(12)


@pytest.mark.long
def test_a_run_that_was_killed_is_not_told_to_be_running(project):
    def told():
        with asking(project.settings) as client:
            return client.get("/indexes").json()["indexes"][0]["as_of"]["last_run"]

    command = [sys.executable, "-c", RUN, str(project.config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "running\n"
        assert told() == "running"
        run.kill()
    assert told() == "interrupted"
    assert project.json("status", "--report")["runs"][0]["state"] == "interrupted"


def test_a_search_does_not_depend_on_the_ledger(project):
    ledger = project.folder / ".rag-index" / "ledger.db"
    ledger.write_bytes(b"this is no database" * 100)
    with asking(project.settings) as client:
        answer = client.post("/search", json={"query": "printer"})
        assert answer.status_code == 200
        assert set(answer.json()["as_of"]["notes"].values()) == {None, ""}
        assert client.get("/indexes").status_code == 503
        assert client.get("/readyz").status_code == 503


def test_a_store_that_is_not_the_ledgers_answers_503_and_says_so(project):
    """As where [store] or [ledger] of the service's settings were not changed with those of the
    runs."""
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as ledger:
        ledger.execute("UPDATE rag_index_collections SET name = 'test_notes__9'")
    with asking(project.settings) as client:
        for answer in (
            client.post("/search", json={"query": "printer"}),
            client.get("/documents/notes/1"),
        ):
            assert answer.status_code == 503, answer.text
            assert (
                "is none of the collections of notes in the ledger (test_notes__9)"
                in answer.json()["detail"]
            )
        assert (
            problem(client.get("/readyz"), 503)["detail"]
            == "the service is not ready; its log says why"
        )
        assert not client.get("/indexes").json()["indexes"][0]["live"]


def served(folder, more=""):
    project = Project(folder).fill(9)
    project.write_settings(project.config.read_text() + more)
    run_plain(project)
    return Live(project.settings)


def test_a_local_service_without_tokens_tells_it(tmp_path):
    with served(tmp_path) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        found = client.post("/why", json=ASKED)
        assert (found.status_code, found.json()["reason"]) == (200, "not_in_table")
        assert client.post("/why", json={**ASKED, "document": "notes"}).status_code == 422
        assert client.post("/why", json={**ASKED, "document": "other/1"}).status_code == 400
        assert client.post("/why", json={**ASKED, "groups": ["author 1"]}).status_code == 403


def test_a_token_with_all_rights_is_told_and_another_is_refused(tmp_path):
    with served(tmp_path, RIGHTS) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        for key, reason in (("999", "not_in_table"), ("2", "access")):
            asked = {**ASKED, "document": f"notes/{key}"}
            refused = client.post("/why", json=asked, headers=bearer(STAFF))
            assert (refused.status_code, refused.json()["code"]) == (403, "NotAllowed")
            assert key not in refused.text
            told = client.post(
                "/why", json={**asked, "groups": ["author 1"]}, headers=bearer(ADMIN)
            )
            assert told.json()["reason"] == reason
        assert client.post("/search", json={"query": "printer"}, headers=bearer(ADMIN)).json()[
            "hits"
        ]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_agents_see_the_tool_if_they_may_use_it(tmp_path):
    with served(tmp_path, RIGHTS) as live:
        for token, known in ((ADMIN, True), (STAFF, False)):
            tools, [answer] = talk(by_token(live.url, token), ("why_not_found", ASKED))
            assert ("why_not_found" in [tool.name for tool in tools]) is known
            assert ("has no 999" in text_of(answer)) is known
            assert answer.is_error is not known


def with_log(folder):
    project = Project(folder).fill(9)
    run_plain(project)
    project.write_settings(f'{project.config.read_text()}\n[serve]\nquery_log = "asked.jsonl"\n')
    return project, project.folder / "asked.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_asked_and_opened_is_kept_measured_and_erased(tmp_path):
    project, path = with_log(tmp_path / "project")
    with asking(project.settings) as client:
        hits = client.post("/search", json={"query": "Note of the printer"}).json()["hits"]
        for query in ("zzqqxx wwvvuu", "Zzqqxx wwvvuu", "vvwwqq kkjjzz"):
            client.get("/search", params={"query": query})
        first, query = hits[0]["document_id"], {"Rag-Index-Query": "Note%20of%20the%20printer"}
        assert client.get(f"/documents/notes/{first}", headers=query).status_code == 200
        assert (
            client.get("/documents/notes/nobody", headers={"Rag-Index-Query": "whose"}).status_code
            == 404
        )
    asked, opened = lines(path)[0], lines(path)[-1]
    assert (asked["query"], asked["groups"], asked["indexes"]) == (
        "Note of the printer",
        [],
        ["notes"],
    )
    assert asked["hits"] == {f"notes/{hit['document_id']}": hit["relevance"] for hit in hits}
    assert (asked["found"], asked["nothing_fits"], lines(path)[1]["nothing_fits"]) == (
        True,
        False,
        True,
    )
    assert (opened["query"], opened["opened"]) == ("Note of the printer", f"notes/{first}")
    assert dt.datetime.fromisoformat(opened["time"]) <= dt.datetime.now(dt.UTC)
    assert len(lines(path)) == 5, "what is not there was not opened"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    missed = printed(project, "status")["not_found"]
    assert missed[0]["times"] == 2
    assert {one["query"].casefold() for one in missed} == {"zzqqxx wwvvuu", "vvwwqq kkjjzz"}
    assert "wwvvuu (2 ×)" in run_here(project.config, "status")[0]
    assert printed(project, "evaluate", "--from-log")["scopes"][0]["queries"] == 1
    project.execute("DELETE FROM note WHERE id = ?", first)
    run_plain(project, allow_deletes=True)
    run_here(project.config, "erase", "notes")
    assert f"notes/{first}" not in path.read_text()
    assert "was opened" in run_here(project.config, "evaluate", "--from-log", code=2)[1]


def test_a_deleted_document_leaves_the_log_when_it_is_erased(tmp_path):
    project, path = with_log(tmp_path / "project")
    log = QueryLog(path, 30)
    for key in ("3", "4"):
        log.add({"query": "a note", "opened": f"notes/{key}"})
    log.add({"query": "other", "hits": {"others/3": 0.5}})
    log.add({"query": "of a key that was another one", "hits": {'notes/["3",1]': 0.5}})
    project.execute("DELETE FROM note WHERE id = 3")
    run_plain(project)
    run_here(project.config, "erase", "notes")
    assert [one.get("opened", one.get("hits")) for one in lines(path)] == [
        "notes/4",
        {"others/3": 0.5},
    ]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e", "\r\n"])
def test_a_query_with_any_sign_is_counted_kept_and_erased(tmp_path, sign):
    path = tmp_path / "asked.jsonl"
    log = QueryLog(path, 30)
    log.add(
        {"query": f"printer of{sign}anna@example.org", "hits": {"notes/7": 0.5}, "found": False}
    )
    log.add({"query": f"printer of{sign}nobody", "hits": {}, "found": False})
    assert len(log.not_found()) == 2
    assert log.erase("notes", lambda document_id: document_id == "7") == 1
    assert [one["query"] for one in log.entries()] == [f"printer of{sign}nobody"]
    assert b"anna" not in path.read_bytes()


def test_old_entries_are_removed_and_a_half_line_costs_nothing(tmp_path):
    path = tmp_path / "asked.jsonl"
    old = (dt.datetime.now(dt.UTC) - dt.timedelta(days=8)).isoformat()
    path.write_text(json.dumps({"time": old, "query": "old"}) + '\n{"time": "2026')
    QueryLog(path, 9).add({"query": "new"})
    assert [one["query"] for one in QueryLog(path, 9).entries()] == ["old"], (
        "a crash cut a line off"
    )
    QueryLog(path, 7).add({"query": "newer"})
    assert "old" not in path.read_text()
    assert QueryLog(path, 7).entries()[-1]["query"] == "newer"


def test_nothing_is_kept_by_default_and_a_log_that_cannot_be_written_costs_no_answer(
    tmp_path, caplog
):
    project, path = with_log(tmp_path / "project")
    path.mkdir()
    with asking(project.settings) as client:
        for _ in range(2):
            assert client.get("/search", params={"query": "note"}).status_code == 200
    assert caplog.text.count(f"query_log {path} cannot be written") == 1
    other = Project(tmp_path / "other").fill(2)
    assert "needs [serve] query_log" in run_here(other.config, "evaluate", "--from-log", code=2)[1]
