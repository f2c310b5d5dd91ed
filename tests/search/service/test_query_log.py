"""What callers asked and opened is kept in a file, for those who asked for that, and only as long as it may be."""

import datetime as dt
import json
import stat

import pytest

from rag_index.core.query_log import QueryLog
from tests.etl.plain import printed, run_plain
from tests.project import Project, run_here
from tests.search.service.live import asking


def with_log(folder):
    project = Project(folder).fill(9)
    run_plain(project)
    config = project.config.read_text()
    project.config.write_text(f'{config}\n[serve]\nquery_log = "asked.jsonl"\n')
    return project, project.config.parent / "asked.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_asked_and_opened_is_kept_measured_and_erased(tmp_path):
    project, path = with_log(tmp_path / "project")
    with asking(project.settings) as client:
        hits = client.post("/search", json={"query": "Body of another note"}).json()["hits"]
        client.get("/search", params={"query": "zzqqxx wwvvuu"})
        client.get("/search", params={"query": "Zzqqxx wwvvuu"})
        client.get("/search", params={"query": "vvwwqq kkjjzz"})
        first = hits[0]["document_id"]
        assert (
            client.get(
                f"/documents/notes/{first}", headers={"Rag-Index-Query": "Body%20of%20another%20note"}
            ).status_code
            == 200
        )
        assert client.get("/documents/notes/nobody", headers={"Rag-Index-Query": "whose"}).status_code == 404
    asked, opened = lines(path)[0], lines(path)[-1]
    assert (asked["query"], asked["groups"], asked["indexes"]) == ("Body of another note", [], ["notes"])
    assert asked["hits"] == {f"notes/{hit['document_id']}": hit["relevance"] for hit in hits}
    assert (asked["found"], asked["nothing_fits"], lines(path)[1]["nothing_fits"]) == (True, False, True)
    assert (opened["query"], opened["opened"]) == ("Body of another note", f"notes/{first}")
    assert dt.datetime.fromisoformat(opened["time"]) <= dt.datetime.now(dt.UTC)
    assert len(lines(path)) == 5, "what is not there was not opened"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    missed = printed(project, "status")["not_found"]
    assert missed[0]["times"] == 2
    assert {one["query"].casefold() for one in missed} == {"zzqqxx wwvvuu", "vvwwqq kkjjzz"}
    assert "wwvvuu (2 ×)" in run_here(project.config, "status")[0]
    measured = printed(project, "evaluate", "--from-log")
    assert measured["scopes"][0]["queries"] == 1

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
    assert [one.get("opened", one.get("hits")) for one in lines(path)] == ["notes/4", {"others/3": 0.5}]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e", "\r\n"])
def test_a_query_with_any_sign_is_counted_kept_and_erased(tmp_path, sign):
    path = tmp_path / "asked.jsonl"
    log = QueryLog(path, 30)
    log.add({"query": f"printer of{sign}anna@example.org", "hits": {"notes/7": 0.5}, "found": False})
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
    assert [one["query"] for one in QueryLog(path, 9).entries()] == ["old"], "a crash cut a line off"
    QueryLog(path, 7).add({"query": "newer"})
    assert "old" not in path.read_text()
    assert QueryLog(path, 7).entries()[-1]["query"] == "newer"


def test_nothing_is_kept_by_default_and_a_log_that_cannot_be_written_costs_no_answer(tmp_path, caplog):
    project, path = with_log(tmp_path / "project")
    path.mkdir()
    with asking(project.settings) as client:
        for _ in range(2):
            assert client.get("/search", params={"query": "note"}).status_code == 200
    assert caplog.text.count(f"query_log {path} cannot be written") == 1
    assert (
        "needs [serve] query_log"
        in run_here(Project(tmp_path / "other").fill(2).config, "evaluate", "--from-log", code=2)[1]
    )
