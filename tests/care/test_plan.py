"""`rag-index plan`: it says what the next run does, also where that run fails or holds something
back."""

import time
from contextlib import closing

import pytest

from rag_index.care.index_status import status
from rag_index.care.plan import CostCounter
from rag_index.components.sources import open_source
from rag_index.core import recovery
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.core.reports import progress
from rag_index.core.settings import ContextSettings, EmbedderSettings
from tests.etl.plain import printed
from tests.etl.test_parts import SETTINGS, TABLES
from tests.project import Project, run_here

WARNING = "not known what model ours was trained to read"
CODE = '[[indexes]]\nname = "code"\nkind = "code"\nroot = "src"\n'
MORE = '[[indexes]]\nname = "more"\ntable = "note"\nkey = "id"\ntext = "body"\n'


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(60)


def counts(plan: dict) -> dict[str, int]:
    """Return the numbers that are not 0."""
    return {name: value for name, value in plan.items() if isinstance(value, int) and value}


def change_settings(project: Project, old: str, new: str) -> None:
    project.write_settings(project.config.read_text().replace(old, new))


def test_what_ends_a_run_before_it_begins_is_an_error(project):
    project.run()
    change_settings(project, "chunk_chars = 200", "chunk_chars = 300")
    (plan,) = printed(project, "plan", code=1)["indexes"]
    assert (plan["error"], counts(plan)) == (project.run().indexes[0].message, {})
    out, said = run_here(project.config, "plan", code=1)
    assert (out, "\nrag-index: notes: a run would fail: test_notes__1 was chunked as" in said) == (
        "",
        True,
    )
    (project.folder / ".rag-index" / "qdrant" / "catalog.json").unlink()
    (plan,) = printed(project, "plan", code=1)["indexes"]
    assert "the store has none live" in plan["error"]


@pytest.mark.parametrize(
    ("form", "body", "said"),
    [
        (
            "html",
            "<p hidden>abcdefghi</p><p class='abc'>&auml;bcdefghi</p>",
            "47% of the letters of column body (",
        ),
        (
            "json",
            '{"token": "a8f5", "salt": "two spoons"}',
            "of the letters of column body (format json)",
        ),
        ("plain", "see data:image/png;base64,AAAA", "of the letters of column body (format plain)"),
        ("auto", "# Head\n\n[abc](http://abcdef.gh) **word**", ""),
    ],
)
def test_what_is_left_out_of_texts_is_said_by_column(project, form, body, said):
    change_settings(
        project, "chunk_chars = 200", f'chunk_chars = 200\nformat = {{body = "{form}"}}'
    )
    project.execute("UPDATE note SET body = ?", body)
    message = printed(project, "plan")["indexes"][0].get("message", "")
    assert said in message
    assert ("left out" in message) == bool(said)


def test_an_embedder_that_is_down_is_said_and_the_plan_is_made(tmp_path, fake):
    project = Project(tmp_path / "project", extra=fake.settings).fill(1)
    fake.stop_listening()
    said = run_here(project.config, "plan")[0]
    fake.listen()
    project.run()
    project.fill(3, first=2)
    fake.stop_listening()
    (later,) = printed(project, "plan")["indexes"]
    assert "notes: 1 chunk of " in said
    assert "in about 1 request;" in said
    assert f"notes: the embedder does not answer: {fake.url}" in said
    assert counts(later) == {"documents": 4, "new": 3, "unchanged": 1}
    not_compared = (
        "the embedder does not answer, so it was not compared with the one that made the index: "
    )
    assert later["message"].startswith(not_compared)


def test_a_plan_says_whom_it_waits_for(tmp_path, monkeypatch, qdrant):
    monkeypatch.setattr(recovery, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.01)
    project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"').fill(3)
    qdrant.break_next("GET /aliases", times=3, status=503, error="starting")
    planned, said = run_here(project.config, "plan")
    assert f"\nrag-index: waiting for Qdrant at {qdrant.url} since " in said
    assert "503: starting" in said
    assert planned.splitlines()[1].split()[:3] == ["notes", "3", "3"]


def test_every_file_counts_once_and_skipped_ones_are_no_work(project):
    source = project.folder / "src"
    source.mkdir()
    for number in range(3):
        (source / f"f{number}.py").write_text(f"def f{number}():\n    return {number}\n")
    (source / "binary.py").write_bytes(b"a = 1\0")
    (source / "large.py").write_text("# a comment\n" * 100_000)
    (source / "away.py").symlink_to("/etc/hostname")
    project.write_settings(project.config.read_text().partition("[[indexes]]")[0] + CODE)
    (plan,) = printed(project, "plan")["indexes"]
    assert counts(plan) == {"documents": 6, "new": 3, "failed": 1, "skipped": 2}
    assert project.run().indexes[0].state == "partial"
    (plan,) = printed(project, "plan")["indexes"]
    assert counts(plan) == {"documents": 6, "unchanged": 3, "failed": 1, "skipped": 2}
    assert status(project.settings).indexes[0].failed == 1
    assert "failed  skipped\n" in run_here(project.config, "plan")[0]


def test_a_document_that_failed_too_often_is_no_work(project, ledger):
    project.execute("DELETE FROM note WHERE id > 2")
    project.run()
    project.execute("INSERT INTO note VALUES (3, NULL, 'a text that fails', 'kim', 1)")
    failure = Failure(encode_key((3,)), "why", hash_text("a text that fails"))
    ledger.clock = lambda: time.time() - 5 * 86_400
    ledger.fail(ledger.collections("test_notes")[0].id, [failure])
    (plan,) = printed(project, "plan")["indexes"]
    assert counts(plan) == {"documents": 3, "unchanged": 2, "failed": 1}


def test_deletions_that_a_run_would_hold_back_are_said(project):
    project.fill(340, first=61)
    project.run()
    project.execute("DELETE FROM note WHERE id <= 250")
    project.execute("UPDATE note SET title = '', body = '' WHERE id <= 260")
    (plan,) = printed(project, "plan")["indexes"]
    assert counts(plan) == {
        "documents": 150,
        "gone": 250,
        "held_back": 260,
        "unchanged": 140,
        "empty": 10,
    }
    assert (
        plan["message"]
        == "the run would hold back 260 of 400 documents, more than delete_guard (20%) allows"
    )
    assert plan["message"] in run_here(project.config, "plan")[0]


def test_the_cost_is_of_what_is_new_or_changed_at_the_rate_of_the_last_run(project):
    project.fill(100, first=61)  # enough to measure a rate by, however slow the machine is
    (plan,) = printed(project, "plan")["indexes"]
    said = run_here(project.config, "plan")[0].splitlines()[-1]
    project.run()
    cost = plan["cost"]
    with project.source() as db:
        (characters,) = db.execute(
            "SELECT sum(length(title || char(10) || body)) FROM note"
        ).fetchone()
    assert (cost["chunks"], cost["chunks_estimated"]) == (
        printed(project, "status")["indexes"][0]["points"],
        False,
    )
    assert abs(cost["characters"] - characters) <= 160, "title and body are joined"
    assert (
        cost["requests"],
        cost["context_requests"],
        cost["chars_per_second"],
        cost["seconds"],
    ) == (None,) * 4
    assert said.startswith(
        f"notes: {cost['chunks']:,} chunks of {cost['characters']:,} characters to embed; "
    )
    assert said.endswith("how long that takes is unknown until a run has measured it")
    assert printed(project, "plan")["indexes"][0]["cost"] is None
    project.execute("UPDATE note SET body = 'another text' WHERE id <= 3")
    (plan,) = project.json("plan", RAG_INDEX_PARALLEL__SERIAL="true")["indexes"]
    cost = plan["cost"]
    assert (plan["changed"], cost["chunks"], cost["workers"]) == (3, 3, 1)
    assert cost["chars_per_second"] > 0
    assert cost["seconds"] == pytest.approx(cost["characters"] / cost["chars_per_second"], abs=0.1)
    assert "as the last run measured" in run_here(project.config, "plan")[0]


def test_the_cost_of_requests_and_contexts_is_counted_and_the_chunks_of_many_documents_estimated(
    tmp_path,
):
    project = Project(tmp_path / "project").fill(1_200)
    exact = CostCounter(project.settings, project.settings.indexes[0], None)
    counter = CostCounter(project.settings, project.settings.indexes[0], 1_000.0)
    with closing(open_source(project.settings, project.settings.indexes[0])) as source:
        documents = source.page(None, 2_000).documents
    for start in range(0, 1_200, 400):
        exact.add(documents.take(list(range(start, start + 400))))
    counter.add(documents)
    cost, true = counter.cost(), exact.cost()
    assert (cost.chunks_estimated, true.chunks_estimated) == (True, False)
    assert cost.characters == true.characters == sum(map(len, documents.texts))
    assert cost.chunks == pytest.approx(true.chunks, rel=0.1)
    assert cost.seconds == pytest.approx(cost.characters / 1_000 / cost.workers)
    embedder = EmbedderSettings(kind="ollama", model="m", batch_texts=10, batch_chars=1_000_000)
    index = project.settings.indexes[0].model_copy(
        update={"context": ContextSettings(model="writer")}
    )
    asked = CostCounter(project.settings.model_copy(update={"embedder": embedder}), index, None)
    asked.add(documents.take(list(range(25))))
    found = asked.cost()
    assert (found.requests, found.context_requests) == (-(-found.chunks // 10), found.chunks)
    assert (
        f"in about {found.requests} requests and at most {found.chunks} requests for contexts"
        in found.sentence()
    )


def test_the_text_of_attachments_is_in_the_cost(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    before = printed(project, "plan")["indexes"][0]["cost"]["characters"]
    project.attach(b"<!DOCTYPE html><p>" + b"word " * 1000, "true")
    assert printed(project, "plan")["indexes"][0]["cost"]["characters"] >= before + 3 * 4_999


@pytest.mark.long
def test_plan_and_status_say_which_prefixes_are_used_and_warn_once_where_nobody_knows(
    project, fake
):
    fake.model = "hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0"
    embedder = f'[embedder]\nkind = "ollama"\nhosts = ["{fake.url}"]\nmodel = "{fake.model}"\n'
    project.write_settings(f"{project.config.read_text()}{MORE}{embedder}")
    planned = run_here(project.config, "plan")[0].splitlines()[3]
    assert "query prefix 'Instruct: Given a web search query, retrieve" in planned
    assert WARNING not in run_here(project.config, "index-all")[0]
    said = run_here(project.config, "status")[0].splitlines()[3]
    assert said == planned.replace("embedder", "embedder of notes, more")
    assert printed(project, "search", "a printer")["hits"]
    assert any(
        text.endswith("\nQuery:a printer") for request in fake.requests for text in request.texts
    )
    project.write_settings(project.config.read_text().replace(fake.model, "ours"))
    fake.model = "ours"
    refused = run_here(project.config, "index-all", code=1)[0]
    assert "settings say 8-d ours (ollama" in refused, "other prompts are another model"
    assert run_here(project.config, "rebuild", "notes", "more")[0].count(WARNING) == 1
    assert run_here(project.config, "plan")[0].count(WARNING) == 1
    again = printed(project, "index-all")["indexes"]
    assert not any("message" in one for one in again), "it was said when the index was made"
    assert "no prefixes" in printed(project, "status")["indexes"][1]["embedder"]


def test_a_plan_says_once_what_holds_for_all_indexes(tmp_path):
    project = Project(tmp_path / "two").fill(3)
    project.write_settings(project.config.read_text() + MORE)
    (project.folder / "source.db").write_text("no database at all " * 100)
    said = run_here(project.config, "plan", code=2)[1]
    assert (
        said.count("rag-index: ") == said.count("rag-index: notes, more: a run would fail: ") == 1
    ), said


def test_documents_are_shown_with_title_payload_and_parts_and_that_there_is_none(tmp_path):
    desk = Project(tmp_path / "project")
    desk.write_settings(SETTINGS)
    with desk.source() as db:
        db.executescript(TABLES)
        db.execute("UPDATE remark SET body = 'red' || char(27) || '[31m' WHERE id = 11")
    shown = run_here(desk.config, "plan", "--show", "1")[0]
    head = (
        'notes: Printer offline (1)\n  https://desk.example.org/t/1\n  payload: {"customer":'
        ' {"name": "Acme"}}\n'
    )
    chunks = {
        "chunk 0": "It prints only red pages.",
        "remark 10": "Replace the toner cartridge.",
        "remark 11": "red\N{REPLACEMENT CHARACTER}[31m",
    }
    parts = "".join(
        f"  --- {part}\n  Printer offline\n\n  {text}\n" for part, text in chunks.items()
    )
    assert shown == f"{head}{parts}\n"
    assert not (desk.folder / ".rag-index").exists()  # nothing is written
    desk.execute("UPDATE ticket SET hidden = 1")
    assert run_here(desk.config, "plan", "--show", "1")[0] == "notes: no document with text\n"
